"""Output: tables, messages, JSON, files."""
