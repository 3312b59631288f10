"""Progress of long work, and how it is stopped from a terminal."""
