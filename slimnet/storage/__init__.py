"""Atomic writes of files and folders, locks, and strict readers of records."""
