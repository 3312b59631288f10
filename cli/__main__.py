"""Makes `python -m slimnet_cli` the command line, as torchrun requires."""

from slimnet_cli import main

main()
