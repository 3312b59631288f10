"""Modules as data: their tensors, copies, forward path and example inputs."""
