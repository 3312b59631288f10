"""The training loop: batches, steps, several processes."""
