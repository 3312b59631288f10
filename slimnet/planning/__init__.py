"""From a channel graph to a plan: constants, removable channels, the constraints between them, and the plan itself."""
