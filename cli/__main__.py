"""So that `python -m slimnet_cli` is the command line, as torchrun wants it."""

from slimnet_cli import main

main()
