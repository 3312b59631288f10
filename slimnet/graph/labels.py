"""Label arrays: which channel each position of a tensor belongs to.

A label array is an int64 NumPy array with as many axes as its tensor. An axis is either full (the labels
change along it) or 1 (they do not), as in broadcasting: the feature map `(N, C, H, W)` of a convolution has
labels `(1, C, 1, 1)`. Label 0 means "no known channel".
"""

from collections.abc import Sequence

import numpy as np
import torch

Labels = np.ndarray


def varying_axes(labels: Labels) -> tuple[int, ...]:
    """The axes along which the labels change."""
    return tuple([axis for axis, size in enumerate(labels.shape) if size > 1])


def common_shape(arrays: Sequence[Labels]) -> tuple[int, ...]:
    """The shape to which label arrays broadcast."""
    first = arrays[0].shape
    if all(array.shape == first for array in arrays):
        return first
    return np.broadcast_shapes(*(array.shape for array in arrays))


def align(labels: Labels, ndim: int) -> Labels:
    """Prepend axes of size 1 until there are `ndim`, as broadcasting does."""
    if labels.ndim == ndim:
        return labels
    return labels.reshape((1,) * (ndim - labels.ndim) + labels.shape)


def along(vector: Labels, axis: int, ndim: int) -> Labels:
    """Put a vector of labels `(C,)` on one axis of an `ndim`-dimensional label array."""
    shape = [1] * ndim
    shape[axis] = vector.size
    return vector.reshape(shape)


def compress(labels: Labels) -> Labels:
    """Reduce to size 1 every axis along which the labels do not change."""
    for axis in varying_axes(labels):
        first = labels.take([0], axis)
        if not np.count_nonzero(labels != first):
            labels = first
    return labels


def reshape(labels: Labels, before: Sequence[int], after: Sequence[int]) -> Labels:
    """The labels of a tensor of shape `before` when it is viewed as shape `after`.

    The axes are grouped into runs with equal products; only runs whose labels change are expanded.
    """
    expanded: list[int] = []
    result: list[int] = []
    for old_axes, new_axes in matching_runs(before, after):
        if any(labels.shape[axis] > 1 for axis in old_axes):
            expanded += [before[axis] for axis in old_axes]
            result += [after[axis] for axis in new_axes]
        else:
            expanded += [1] * len(old_axes)
            result += [1] * len(new_axes)
    return compress(np.broadcast_to(labels, expanded).reshape(result))


def matching_runs(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Pair up the shortest runs of axes of two shapes that hold the same number of elements."""
    runs = []
    i = j = 0
    while i < len(before) or j < len(after):
        old, new = [], []
        old_size = new_size = 1
        if i < len(before):
            old.append(i)
            old_size = before[i]
            i += 1
        if j < len(after) and (old_size > 1 or i >= len(before) or after[j] == 1):
            new.append(j)
            new_size = after[j]
            j += 1
        while old_size != new_size:
            if old_size < new_size:
                old.append(i)
                old_size *= before[i]
                i += 1
            else:
                new.append(j)
                new_size *= after[j]
                j += 1
        runs.append((old, new))
    return runs


def expand_fully(labels: Labels, shape: Sequence[int]) -> torch.Tensor:
    """One label for every position, as a tensor, for structural ops that no shortcut covers."""
    return torch.from_numpy(np.array(np.broadcast_to(labels, tuple(shape)), order="C"))


def labels_among(arrays: Sequence[Labels]) -> Labels:
    """Every label in these arrays, once."""
    found = [array[array > 0].reshape(-1) for array in arrays]
    return unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)


def unique(numbers: np.ndarray) -> np.ndarray:
    """The values of an array, once each and in order; `np.unique` loads the module of masked arrays for that, 5 MB."""
    ordered = numbers.ravel()
    if np.count_nonzero(ordered[1:] > ordered[:-1]) == ordered.size - 1:
        return ordered
    ordered = np.sort(ordered)
    first = np.ones(ordered.size, dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def connected_sets(size: int, left: Labels, right: Labels) -> np.ndarray:
    """Connected components: the number of the set of every label below `size`, when each `left` is joined to `right`.

    Sets are numbered in the order of their smallest labels. Each round links the larger of two roots to the smaller,
    for all pairs with different roots at once, which needs less memory than a sparse graph of the pairs.
    """
    root = np.arange(size, dtype=left.dtype)
    while left.size:
        np.minimum.at(root, np.maximum(left, right), np.minimum(left, right))
        while not np.array_equal(root, above := root.take(root)):
            root = above
        left, right = root.take(left), root.take(right)
        apart = left != right
        left, right = left[apart], right[apart]
    first = root == np.arange(size)
    first[0] = False  # so that its set is number 0
    return np.cumsum(first).take(root)
