"""A slim network as a folder: saved, loaded and verified."""
