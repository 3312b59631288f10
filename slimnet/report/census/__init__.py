"""The page of a census of checkpoints."""
