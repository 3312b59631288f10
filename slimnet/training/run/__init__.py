"""A run in its folder: checkpoints, sessions, resuming."""
