"""Measurements of a trained network: accuracy, sparsity, universality."""
