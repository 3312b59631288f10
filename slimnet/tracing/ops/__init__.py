"""One file for each family of ATen ops: its handlers, and its rows in the registry (`registry.py`)."""
