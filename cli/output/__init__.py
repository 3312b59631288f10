"""What people and machines see: tables, messages, JSON, files."""
