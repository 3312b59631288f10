"""strengths: the importance of every set of channels for its readers, from weights and BatchNorms alone."""

import numpy as np
from torch import nn

from slimnet.methods.candidates import Channels, can_be_silenced
from slimnet.methods.filter_norms import filter_norms, relative
from slimnet.methods.moments import energies, moments

QUIET = 0.01
"""Below this share of the mean variance of a layer's inputs, a channel is nearly dead."""


def strengths(model: nn.Module, channels: Channels) -> np.ndarray:
    """A number for every set, comparable between all layers of a network; NaN where nothing reads it.

    The importance of channel i for one reader is (nᵢ · ‖W[:, i]‖₂)² · vᵢ / (vᵢ + v̄/100).

    * ‖W[:, i]‖₂: the norm of the reader's weight for it.
    * nᵢ: the size of the filter that computes it, |F| over its layer's mean. Before a BatchNorm this has no effect on
      the output, but it reflects the training: L2 shrinks all filters equally, and those with large gradients stay
      large.
    * vᵢ: its variance where it is read, by the BatchNorms (see `moments`), v̄ the mean over the reader's channels.
      A channel that hardly varies, since γ is almost dead, has no importance however large the weights. Beyond that
      the variance is not counted: deep in a network a few images cause most of it, which BatchNorms do not show.

    This over the sum of those of all the reader's channels of no less importance is the share of the remaining input
    that is lost with channel i: it grows to 1 as a layer is emptied, whatever its width. A channel that n layers read
    counts n times the sum over all of them, since a loss in a residual stream affects all its readers.
    """
    graph, count = channels.graph, channels.pinned.size
    variance, own = moments(graph).variance, filter_sizes(model, channels)
    total, readers = np.zeros(count), np.zeros(count)
    for reader in graph.readers:
        members, places = np.unique(channels.sets[reader.inputs], return_inverse=True)
        heard = energies(reader).sum(1).reshape(-1) * audible(variance[reader.inputs])
        total[members] += share_of_rest(np.bincount(places, heard) * own[members] ** 2)
        readers[members] += 1
    return np.where(readers > 0, readers * total, np.nan)


def audible(variance: np.ndarray) -> np.ndarray:
    """0 for a variance of 0, 1/2 for a hundredth of the mean, and nearly 1 for values well above it."""
    whole = variance + QUIET * variance.mean()
    return np.divide(variance, whole, out=np.zeros_like(variance), where=whole > 0)


def share_of_rest(energies: np.ndarray) -> np.ndarray:
    """Each of some energies over the sum of those that are not smaller; 0 where it is 0."""
    order = np.argsort(-energies, kind="stable")
    rest = np.cumsum(energies[order])
    shares = np.empty_like(energies)
    shares[order] = np.divide(energies[order], rest, out=np.zeros_like(rest), where=rest > 0)
    return shares


def filter_sizes(model: nn.Module, channels: Channels) -> np.ndarray:
    """The mean, over the filters that write to each set, of |F| over the mean of its layer; 1 where there are none."""
    total, writers = np.zeros(channels.pinned.size), channels.writers
    for layer, sets in channels.layers.items():
        known = can_be_silenced(channels.steps[layer])
        sizes = relative(filter_norms(model, channels, layer)) if known else np.ones(sets.size)
        np.add.at(total, sets, sizes)
    return np.where(writers > 0, total / np.maximum(writers, 1), 1.0)
