"""Between a channel graph and a plan: constants, what can go, equal parts, and what is written down."""
