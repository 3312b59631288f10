"""strengths: the importance of every channel set for its readers, from weights and BatchNorms alone."""

import numpy as np
from torch import nn

from slimnet.methods.candidates import Channels, can_be_masked
from slimnet.methods.filter_norms import filter_norms, relative
from slimnet.methods.moments import energies, moments

QUIET = 0.01
"""A channel with less than this fraction of the mean variance of a layer's inputs is nearly dead."""


def strengths(model: nn.Module, channels: Channels) -> np.ndarray:
    """The importance of every set, comparable between all layers of a network; NaN for sets without readers.

    The importance of channel i for one reader is (nᵢ · ‖W[:, i]‖₂)² · vᵢ / (vᵢ + v̄/100).

    * ‖W[:, i]‖₂: the norm of the reader's weight for the channel.
    * nᵢ: the norm |F| of the filter that computes it, divided by its layer's mean. Before a BatchNorm this has no
      effect on the output, but it reflects the training: L2 shrinks all filters equally, and those with large gradients
      remain large.
    * vᵢ: its variance at the reader, from the BatchNorms (see `moments`); v̄ is the mean over the reader's channels.
      A channel with almost no variance, because γ is almost dead, has no importance even with large weights. Otherwise
      the variance is not used: deep in a network a few images cause most of it, which BatchNorms do not show.

    This is divided by the sum over all channels of the reader that are at least as important. The quotient is the share
    of the remaining input that is lost with channel i: it approaches 1 as a layer loses its channels, for any width.
    For a channel with n readers the sum over them is multiplied by n, since a loss in a residual stream affects all.
    """
    graph, count = channels.graph, channels.pinned.size
    variance, own = moments(graph).variance, filter_sizes(model, channels)
    total, readers = np.zeros(count), np.zeros(count)
    for reader in graph.readers:
        members, positions = np.unique(channels.sets[reader.inputs], return_inverse=True)
        weighted = energies(reader).sum(1).reshape(-1) * variance_factor(variance[reader.inputs])
        total[members] += share_of_rest(np.bincount(positions, weighted) * own[members] ** 2)
        readers[members] += 1
    return np.where(readers > 0, readers * total, np.nan)


def variance_factor(variance: np.ndarray) -> np.ndarray:
    """0 for a variance of 0, 1/2 for a hundredth of the mean, and nearly 1 for values well above it."""
    whole = variance + QUIET * variance.mean()
    return np.divide(variance, whole, out=np.zeros_like(variance), where=whole > 0)


def share_of_rest(energies: np.ndarray) -> np.ndarray:
    """Each energy divided by the sum of those that are not smaller; 0 for 0."""
    order = np.argsort(-energies, kind="stable")
    rest = np.cumsum(energies[order])
    shares = np.empty_like(energies)
    shares[order] = np.divide(energies[order], rest, out=np.zeros_like(rest), where=rest > 0)
    return shares


def filter_sizes(model: nn.Module, channels: Channels) -> np.ndarray:
    """For each set the mean of |F| relative to its layer's mean, over the filters that write it; 1 without filters."""
    total, writers = np.zeros(channels.pinned.size), channels.writers
    for layer, sets in channels.layers.items():
        known = can_be_masked(channels.steps[layer])
        sizes = relative(filter_norms(model, channels, layer)) if known else np.ones(sets.size)
        np.add.at(total, sets, sizes)
    return np.where(writers > 0, total / np.maximum(writers, 1), 1.0)
