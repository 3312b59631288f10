"""The widths at which a runtime's convolutions are fast on this machine: measured once, and stored."""
