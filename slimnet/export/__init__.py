"""The files of a bundle: how a network is captured, described, written and read back."""
