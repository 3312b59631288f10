"""moments: the mean and variance of every channel from the statistics of the BatchNorms, without data.

A BatchNorm's output has the mean β and the standard deviation |γ|. If it is normally distributed, its mean after a
ReLU is β Φ(β/|γ|) + |γ| φ(β/|γ|). Here elementwise ops are applied to a few samples of their operands instead, so that
any sequence of ops between two layers is covered.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from slimnet.graph.channel_graph import ChannelGraph, Depthwise, Norm, Pointwise, Reader
from slimnet.planning.constants import as_float64
from slimnet.torch_state.precision import double_sum

SAMPLES = 64
"""The number of samples that represent the distribution of a channel."""


@dataclass(frozen=True)
class Moments:
    """The mean and the variance of every label of a channel graph, over images and positions."""

    mean: np.ndarray
    variance: np.ndarray


MeanOf = Callable[[Reader, np.ndarray], np.ndarray]
"""Returns the means of a layer's outputs `(O,)` for inputs with these means `(K,)`."""


def weighted_mean(step: Reader, means: np.ndarray) -> np.ndarray:
    """The weighted sums of the means, as without padding."""
    return (over_taps(step, step.taps()) @ means.reshape(step.groups, -1, 1)).reshape(-1) + biases(step)[:, 0]


def moments(graph: ChannelGraph, masked: np.ndarray | None = None, mean_of: MeanOf = weighted_mean) -> Moments:
    """Propagate samples of every channel through the steps of the graph, from BatchNorm to BatchNorm.

    Values that do not depend on a BatchNorm, such as the network's input, are assumed to be normal with variance 1. The
    outputs of layers without BatchNorm are computed from their weights, assuming independent inputs. Labels with
    `masked[label]` are 0.
    """
    noise = Noise()
    samples = noise(graph.size)
    for known in graph.known:
        samples[known.labels] = as_float64(known.tensor)[:, None]
    for step in graph.steps:
        if isinstance(step, Pointwise):
            out, values = step.out, elementwise(step, [samples[operand] for operand in step.operands])
        elif isinstance(step, Norm):
            out, values = step.out, normed(step, samples[step.inputs])
        elif isinstance(step, Reader):
            mean = mean_of(step, samples[step.inputs].mean(1))
            out, values = step.outputs, mixed(step, samples[step.inputs], mean, noise(step.outputs.size))
        else:
            out, values = step.outputs, filtered(step, samples[step.inputs])
        samples[out] = values if masked is None else np.where(masked[out, None], 0, values)
    return Moments(samples.mean(1), samples.var(1))


class Noise:
    """Returns the quantiles of the standard normal distribution, in a different order for every channel."""

    def __init__(self) -> None:
        middles = (torch.arange(SAMPLES, dtype=torch.float64, device="cpu") + 0.5) / SAMPLES
        self.quantiles = torch.special.ndtri(middles).numpy()
        self.quantiles /= self.quantiles.std()
        self.random = np.random.default_rng(0)

    def __call__(self, count: int) -> np.ndarray:
        """Samples `(count, SAMPLES)`."""
        return self.random.permuted(np.tile(self.quantiles, (count, 1)), axis=1)


def elementwise(step: Pointwise, operands: Sequence[np.ndarray]) -> np.ndarray:
    """The op applied to the samples; where its rule returns NaN for values that vary, the operand is kept."""
    flat = [torch.from_numpy(operand.reshape(-1)) for operand in operands]
    out = step.constant(flat).numpy().reshape(operands[0].shape)
    known = np.isfinite(out).all(1, keepdims=True)
    return np.where(known, out, operands[0])


def normed(step: Norm, inputs: np.ndarray) -> np.ndarray:
    """The samples normalised to the mean and variance of the BatchNorm's output."""
    gamma, beta, _, variance = step.vectors
    spread = inputs.std(1, keepdims=True)
    standard = (inputs - inputs.mean(1, keepdims=True)) / np.where(spread > 0, spread, 1)
    scale = np.ones(step.out.size) if gamma is None else as_float64(gamma())
    if variance is not None:
        scale = scale * np.sqrt(as_float64(variance()) / (as_float64(variance()) + step.eps))
    shift = np.zeros(step.out.size) if beta is None else as_float64(beta())
    return standard * scale[:, None] + shift[:, None]


def mixed(step: Reader, inputs: np.ndarray, mean: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """A layer's outputs with mean `mean` `(O,)` and the summed variances of its inputs, assumed to be independent."""
    spread = np.sqrt((energies(step) @ inputs.var(1).reshape(step.groups, -1, 1)).reshape(-1, 1))
    return mean[:, None] + spread * noise


def filtered(step: Depthwise, inputs: np.ndarray) -> np.ndarray:
    """A depthwise convolution's outputs: the mean is multiplied by the sum of the taps, the deviation by their norm."""
    taps = step.value().detach().reshape(step.outputs.size, -1).to("cpu", torch.float64).numpy()
    read = inputs.repeat(step.outputs.size // step.inputs.size, axis=0)
    mean = read.mean(1, keepdims=True)
    return mean * taps.sum(1, keepdims=True) + biases(step) + np.sqrt((taps**2).sum(1, keepdims=True)) * (read - mean)


def energies(step: Reader) -> np.ndarray:
    """The sums of squares over the taps of a weight, as `over_taps`."""
    return over_taps(step, step.taps().square())


def over_taps(step: Reader, values: torch.Tensor) -> np.ndarray:
    """The sums over the taps of `(O, K / groups, taps)`, float64 `(groups, O / groups, K / groups)`."""
    return double_sum(values, 2).cpu().numpy().reshape(step.groups, -1, values.shape[1])


def biases(step: Reader | Depthwise) -> np.ndarray:
    """The bias of a layer as a column, 0 if it has none."""
    return np.zeros((1, 1)) if step.bias is None else as_float64(step.bias())[:, None]
