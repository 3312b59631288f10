"""The page about the paper's tables and figures."""
