"""Runtimes in which networks are measured: one protocol, one file for each, one table."""
