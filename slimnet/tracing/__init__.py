"""How a trace follows channels: labels, what is known about each tensor, and the registry of ops."""
