"""The page about a training run."""
