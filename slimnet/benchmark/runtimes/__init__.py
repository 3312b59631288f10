"""Runtimes in which a network is measured."""
