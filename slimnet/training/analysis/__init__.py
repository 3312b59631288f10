"""What is measured of a trained network: accuracy, sparsity, universality."""
