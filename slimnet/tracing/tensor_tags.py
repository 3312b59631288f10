"""What a trace knows about one tensor."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from slimnet.graph.labels import Labels


class Tag(NamedTuple):
    """The channels of one tensor.

    A feature map has one face: one label array. A weight has one face for each of its axes, since each of its
    elements belongs to an output channel and to an input channel. `parameter` and `axes` are set where the
    tensor is a parameter, or a permutation of one: axis `i` is the parameter's axis `axes[i]`. `blank` marks
    tensors filled with one value, whose size may follow the network's width, and `empty` those among them that
    hold nothing yet. `value` computes the real tensor where it does not depend on the input.
    """

    faces: tuple[Labels, ...] = ()
    parameter: str | None = None
    axes: tuple[int, ...] = ()
    blank: bool = False
    empty: bool = False
    value: Callable[[], torch.Tensor] | None = None


PLAIN = Tag()
