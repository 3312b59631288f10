"""Do two forms of one network agree: the same outputs on the same inputs, at several batch sizes."""

import math
from collections.abc import Sequence

import torch

from slimnet.inputs import Inputs

BATCHES = (1, 5)
"""The batch sizes at which exported forms are compared: one example, and a number that no network hard-codes."""

TOLERANCE = 1e-4
"""How far an exported form's outputs may lie from the module's, relative to the largest one (float32)."""


def is_batched(tensor: torch.Tensor, inputs: Inputs) -> bool:
    """Whether a tensor's first axis is the batch: it is as long as the first input's."""
    return tensor.ndim > 0 and tensor.shape[0] == inputs.batch


def resized(inputs: Inputs, batch: int) -> Inputs:
    """The same inputs with another number of examples.

    Further examples are the given ones with their numbers rolled along: other examples, of the same range.
    """

    def resize(tensor: torch.Tensor) -> torch.Tensor:
        if not is_batched(tensor, inputs):
            return tensor
        size = tensor.shape[0]
        rows = [torch.roll(tensor[i % size], i // size) for i in range(batch)]
        return torch.stack(rows)

    return inputs.map(resize)


def relative_difference(expected: Sequence[torch.Tensor], actual: Sequence[torch.Tensor]) -> float:
    """The largest difference over the largest expected output, the worst of all outputs.

    Infinite where number or shapes of the outputs differ, or where one has NaN.
    """
    if [tuple(left.shape) for left in expected] != [tuple(right.shape) for right in actual]:
        return math.inf
    return max((_one_difference(*pair) for pair in zip(expected, actual, strict=True)), default=0.0)


def _one_difference(expected: torch.Tensor, actual: torch.Tensor) -> float:
    if not expected.numel():
        return 0.0
    left, right = expected.detach().double().cpu(), actual.detach().double().cpu()
    largest = (left - right).abs().max().item()
    if largest == 0:
        return 0.0
    scale = left.abs().max().item()
    relative = largest / scale if scale else math.inf
    return relative if math.isfinite(relative) else math.inf
