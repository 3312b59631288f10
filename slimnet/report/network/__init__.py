"""The page about networks side by side."""
