"""The share of pruned parameters, counted as in the paper."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from slimnet.errors import UsageError
from slimnet.training.analysis.metrics import DEAD_BELOW


@dataclass(frozen=True)
class Convolution:
    """A convolution in a chain: its outputs, the number kept (a fraction for means over runs), and its taps."""

    outputs: int
    kept: float
    taps: int


def share_pruned(convolutions: Iterable[Convolution], in_channels: int = 3) -> float:
    """The share, 0..1, of pruned convolution weights; the remaining ones are kept inputs × kept outputs × k².

    The convolutions form a chain; biases, BatchNorm and linear layers do not count, as in the paper.
    """
    chain = [Convolution(in_channels, in_channels, 0), *convolutions]
    before = sum(one.outputs * two.outputs * two.taps for one, two in pairwise(chain))
    after = sum(one.kept * two.kept * two.taps for one, two in pairwise(chain))
    return 1 - after / before


def convolutions_of(model: nn.Module) -> tuple[Convolution, ...]:
    """The convolutions of a chain, each followed by its BatchNorm, with the outputs that are not dead by γ.

    Raises:
        UsageError: the network is not such a chain.
    """
    layers = [each for each in model.modules() if isinstance(each, nn.Conv2d | nn.BatchNorm2d)]
    pairs = list(zip(layers[::2], layers[1::2], strict=False))
    if len(layers) % 2 or not all(isinstance(a, nn.Conv2d) and isinstance(b, nn.BatchNorm2d) for a, b in pairs):
        raise UsageError("the paper counts pruned parameters of chains alone: convolutions, each with its BatchNorm")
    return tuple(
        Convolution(norm.num_features, int((norm.weight.abs() >= DEAD_BELOW).sum()), _taps(convolution.kernel_size))
        for convolution, norm in pairs
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    )


def _taps(kernel: Sequence[int]) -> int:
    return int(torch.Size(kernel).numel())
