"""Progress of long work, and stop requests from a terminal."""
