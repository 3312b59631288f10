"""Heat maps as a few filled paths, one for each opacity, so that they are small and use the page's colours."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path

STRENGTHS = 10
RECTANGLE = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]


def draw_cells(axes: Axes, columns: np.ndarray, rows: np.ndarray, values: np.ndarray, colour: str) -> None:
    """Fill the cells between the edges `columns` `(X + 1,)` and `rows` `(Y + 1,)`; `values` `(X, Y)` are 0 to 1.

    Every positive value is visible, however small it is.
    """
    strengths = np.ceil(STRENGTHS * np.clip(values, 0, 1)).astype(int)
    for strength in range(1, STRENGTHS + 1):
        corners = _rectangles(columns, rows, strengths == strength)
        if corners.size:
            path = Path(corners, RECTANGLE * (len(corners) // len(RECTANGLE)))
            patch = PathPatch(path, facecolor=colour, alpha=strength / STRENGTHS, linewidth=0, antialiased=False)
            axes.add_patch(patch)


def _rectangles(columns: np.ndarray, rows: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The corners `(5 n, 2)` of the rectangles of runs of marked cells along the columns."""
    corners: list[tuple[float, float]] = []
    for row, marks in enumerate(cells.T):
        changes = np.flatnonzero(np.diff(np.concatenate([[0], marks.astype(int), [0]])))
        low, high = rows[row], rows[row + 1]
        for left, right in zip(columns[changes[::2]], columns[changes[1::2]], strict=True):
            corners += [(left, low), (right, low), (right, high), (left, high), (left, low)]
    return np.asarray(corners)


def shares(values: np.ndarray, edges: np.ndarray, of: int) -> np.ndarray:
    """The share of `of` channels in each bin, `(T, bins)`, of values `(T, channels)`; NaN is not counted."""
    counts = [np.histogram(row[np.isfinite(row)], edges)[0] for row in values]
    return np.asarray(counts, dtype=float).reshape(len(values), len(edges) - 1) / max(of, 1)


def between(points: np.ndarray) -> np.ndarray:
    """The edges of cells for increasing points, from 0: each cell ends at its point, where it was measured."""
    return np.concatenate([[0], points])
