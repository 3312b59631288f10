"""What is recorded of the sizes that an op was given: for which channels, and of which attributes and widths."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from slimnet.graph.labels import Labels, varying_axes
from slimnet.graph.sizes import Size, SizeUse, Width, attributes_of
from slimnet.tracing.recorder import Recorder


def origins(recorder: Recorder, numbers: Sequence[int]) -> list[Size | None]:
    """Where each of an op's sizes comes from; None for numbers.

    The function that the network's code called was given them in the same order, with -1 for one that is inferred.
    """
    given = recorder.given
    for start in range(len(given) - len(numbers) + 1):
        window = given[start : start + len(numbers)]
        if all(int(one) in (other, -1) for one, other in zip(window, numbers, strict=True)):
            return [size_of(recorder, number) for number in window]
    return [origin(recorder, number) if list(numbers).count(number) == 1 else None for number in numbers]


def origin(recorder: Recorder, number: int | None) -> Size | None:
    """Where a number comes from: the only size of this value that the function was given; None where there are two."""
    found = [size_of(recorder, other) for other in recorder.given if number is not None and int(other) == number]
    sizes = [size for size in found if size is not None]
    return sizes[0] if sizes and all(size == sizes[0] for size in sizes) else None


def size_of(recorder: Recorder, number: int) -> Size | None:
    """The size that a number of this trace remembers."""
    return getattr(number, "size", None) if getattr(number, "trace", None) is recorder.trace else None


def note_use(recorder: Recorder, face: Labels, axis: int, size: Size | None) -> None:
    """Record that an op was given a size for an axis of channels of a tensor with these labels."""
    axes = sorted({axis, *varying_axes(face)})
    if size is not None and face.size:
        labels = np.ascontiguousarray(face.reshape([face.shape[each] for each in axes]))
        recorder.uses.append(SizeUse(len(recorder.ops), labels, axes.index(axis), size))


def note_shape(recorder: Recorder, faces: Sequence[Labels], shape: Sequence[int]) -> None:
    """Record the sizes of a view, for the axes with channels."""
    if recorder.given:
        for axis, size in enumerate(origins(recorder, shape)):
            for face in faces:
                if face.shape[axis] > 1:
                    note_use(recorder, face, axis, size)


def note_equal_widths(recorder: Recorder) -> None:
    """Record the sizes that the code has compared with widths, such as in an assertion, as if an op was given them."""
    for op, *sides in recorder.trace.equal:
        for width, size in (sides, sides[::-1]):
            if isinstance(width, Width):
                # Behind the last op there is no other to name.
                recorder.uses.append(SizeUse(min(op, len(recorder.ops) - 1), width.labels, 0, size))
    recorder.trace.equal.clear()


def are_free(sizes: Sequence[Size | None]) -> bool:
    """Whether parts may have any sizes: in turn, each has an attribute that is in none of those that come after it."""
    waiting = [frozenset() if size is None else attributes_of(size) for size in dict.fromkeys(sizes)]
    while waiting:
        times = Counter(attribute for attributes in waiting for attribute in attributes)
        left = [attributes for attributes in waiting if all(times[each] > 1 for each in attributes)]
        if len(left) == len(waiting):
            return False
        waiting = left
    return True
