"""Long work as it is watched and stopped from a terminal."""
