"""Sweeps: a grid of recipes, and a table of their outcomes."""

from slimnet.sweep.ending import Ending
from slimnet.sweep.grid import Cell, read_grid
from slimnet.sweep.store import Row, Store

__all__ = ["Cell", "Ending", "Row", "Store", "read_grid"]
