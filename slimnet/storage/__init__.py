"""Files that appear whole or not at all, and strict readers of what they hold."""
