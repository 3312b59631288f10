"""A run of a forward on data, as far as a trace needs it to go on where the forward depends on data."""

from typing import Any, NamedTuple

import torch


class TensorForm(NamedTuple):
    """The shape and the type of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class Answer(NamedTuple):
    """What an op that may depend on data returned: numbers as they were, a `TensorForm` for each tensor."""

    op: str
    result: Any


class CallAnswer(NamedTuple):
    """What a call of a module returned, in the same way, and the number of the first answer behind the call."""

    result: Any
    end: int


class DataRun(NamedTuple):
    """What was seen in a run on data.

    `answers` are those of all ops that may depend on data, in order; `calls` those of each module in which such an op
    ran, by the number of the first answer in the call. `reading` are the paths of the modules in which such an op ran,
    or whose own numbers the forward has changed; `uses` are the parameters and buffers that ops took, in order.
    """

    answers: tuple[Answer, ...]
    calls: dict[str, dict[int, CallAnswer]]
    reading: frozenset[str]
    uses: tuple[str, ...]
