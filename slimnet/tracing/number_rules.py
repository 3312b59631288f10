"""Which of the numbers in an op's arguments a narrower network must repeat.

The others are sizes and positions that follow the width. A rule takes the recorder and a call, and returns the numbers.
"""

from collections.abc import Callable, Mapping
from typing import Any

from slimnet.graph.labels import varying_axes
from slimnet.tracing.op_call import Call
from slimnet.tracing.recorder import Recorder

NUMBERS = (int, float)
SEQUENCES = (list, tuple)


def no_number(_: Recorder, __: Call) -> tuple[Any, ...]:
    """Ops whose numbers are sizes, which follow the width."""
    return ()


def along_axis(position: int) -> Callable[[Recorder, Call], tuple[Any, ...]]:
    """The rule of ops whose numbers are positions on one axis, which is the argument `dim` at `position`.

    Positions on an axis of channels follow the width.
    """

    def rule(recorder: Recorder, call: Call) -> tuple[Any, ...]:
        axis = call.arg(position, "dim", 0) % call.tensors[0].ndim
        on_channels = any(axis in varying_axes(face) for x in call.tensors for face in recorder.tag(x).faces)
        return () if on_channels else numbers_among(call.args, call.kwargs)

    return rule


def convolution_settings(_: Recorder, call: Call) -> tuple[Any, ...]:
    """Stride, padding, dilation, and whether a convolution is transposed; the number of groups follows the width."""
    return call.args[3:8]


def plane_padding(recorder: Recorder, call: Call) -> tuple[Any, ...]:
    """The amounts of padding on axes without channels, and the value that is padded with."""
    x = call.tensors[0]
    channels = {axis for face in recorder.tag(x).faces for axis in varying_axes(face)}
    amounts = [amount for place, amount in enumerate(call.args[1]) if x.ndim - 1 - place // 2 not in channels]
    return numbers_among((amounts, *call.args[2:]), call.kwargs)


def numbers_among(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """All numbers and lists of numbers among some arguments: the rule of an op that has none of its own."""
    values = (*args, *kwargs.values()) if kwargs else args
    return tuple([value for value in values if isinstance(value, NUMBERS) or is_list_of_numbers(value)])


def is_list_of_numbers(value: Any) -> bool:
    """Whether an argument is a list of numbers."""
    return isinstance(value, SEQUENCES) and bool(value) and isinstance(value[0], NUMBERS)
