"""Do two forms of one network agree: the same outputs on the same inputs, at more than one batch size."""

import math
from collections.abc import Sequence

import torch

BATCHES = (1, 5)
"""The batch sizes at which forms are compared: one example, and a number that no network hard-codes."""

TOLERANCES = {torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""How far outputs may lie from the network's, relative to the largest one, where its type is a short one."""

TOLERANCE = 1e-4
"""The same for float32 and float64, as for the certificate."""


def tolerance_for(outputs: Sequence[torch.Tensor]) -> float:
    """How far outputs of these types may be apart: that of the shortest type among them."""
    return max((TOLERANCES.get(tensor.dtype, TOLERANCE) for tensor in outputs), default=TOLERANCE)


def relative_difference(expected: Sequence[torch.Tensor], actual: Sequence[torch.Tensor]) -> float:
    """The largest difference over the largest expected value, the worst of all outputs.

    Infinite where number or shapes of the outputs differ, or where one holds NaN.
    """
    if [tuple(left.shape) for left in expected] != [tuple(right.shape) for right in actual]:
        return math.inf
    return max((_of_one_output(*pair) for pair in zip(expected, actual, strict=True)), default=0.0)


def _of_one_output(expected: torch.Tensor, actual: torch.Tensor) -> float:
    if not expected.numel():
        return 0.0
    left, right = expected.detach().cpu().double(), actual.detach().cpu().double()
    largest = (left - right).abs().max().item()
    if largest == 0:
        return 0.0
    scale = left.abs().max().item()
    relative = largest / scale if scale else math.inf
    return relative if math.isfinite(relative) else math.inf
