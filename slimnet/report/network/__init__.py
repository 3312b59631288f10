"""The page about a slimmed network, or about several networks."""
