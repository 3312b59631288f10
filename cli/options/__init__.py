"""What a command line says: options that several commands share, and what they are turned into."""
