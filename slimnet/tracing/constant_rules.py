"""What the constants of an op's operands become in its output."""

from collections.abc import Sequence

import torch

from slimnet.graph.channel_graph import Constants


def common_constant(values: Sequence[Constants]) -> Constants:
    """The common value of several constants, NaN where they differ or one is unknown."""
    first = values[0]
    agree = torch.ones_like(first, dtype=torch.bool)
    for other in values[1:]:
        agree &= first == other
    return torch.where(agree, first, torch.nan)


def unknown_constant(values: Sequence[Constants]) -> Constants:
    """Nothing is known of the result."""
    return torch.full_like(values[0], torch.nan)


def all_zero(values: Sequence[Constants]) -> Constants:
    """Zero where every operand is; nothing else is known of the result."""
    return torch.where((torch.stack(list(values)) == 0).all(0), 0.0, torch.nan)


def zero_only(values: Sequence[Constants]) -> Constants:
    """Zero stays zero; nothing else is known of the result."""
    return torch.where(values[0] == 0, values[0], torch.nan)
