"""The channel graph: which channel is where in every tensor."""
