"""The command line of slimnet."""
