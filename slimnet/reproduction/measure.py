"""Measurements of a trained network: all readings of the paper's tables and figures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from slimnet.accuracy import Hits
from slimnet.data import Batches, ImageData, Split
from slimnet.pipeline import slim
from slimnet.reproduction.pruned import convolutions_of, share_pruned
from slimnet.training.analysis.metrics import DEAD_BELOW, device_of, evaluating
from slimnet.training.analysis.universality import Analysis, LayerAnalysis, ProgressCallback, analyse

TOLERANCE = 1.0
"""The tolerance of outputs when channels are cut, relative to the largest one: γ just below 1e-3 is not 0.

The paper removes such channels and prints the error before and after; so do we, and also measure the difference.
"""

CERTIFIED = 256
"""The number of test images on which the difference is measured."""

BINS = 20
"""The number of bins of universality, from 0 to 1, in the histogram of a layer's features."""


@dataclass(frozen=True)
class Scores:
    """Mean cross-entropy, top-1 error and top-5 error, 0..1."""

    loss: float
    error: float
    top5_error: float


@dataclass(frozen=True)
class Measured:
    """The measurements of one trained network.

    Attributes:
        readings: by the names of `slimnet.reproduction.catalogue.READINGS`; shares and errors in per cent.
        layers: each convolution's name, features, the share that is dead by activation, the mean universality of the
            responding features (0..1, None if there are none), and the histogram of universality.
        macs: multiply-accumulates before and after pruning.
        removed: the number of channels that the surgery removed.
        difference: the largest change of an output by pruning, relative to the largest output.
    """

    readings: Mapping[str, Any]
    layers: tuple[Mapping[str, Any], ...]
    macs: tuple[int, int]
    removed: int
    difference: float


def no_progress(_: str) -> None:
    """Ignore progress."""


def measure(
    model: nn.Module,
    data: ImageData,
    *,
    batch_size: int = 256,
    progress: Callable[[str], ProgressCallback | None] = no_progress,
) -> Measured:
    """Measure a trained network, prune its dead channels physically, and measure again.

    Training images are those of `data`, without augmentation. The network is not changed. `progress` is called with the
    name of each measurement, and returns the callback for its number of images.

    Raises:
        DataError: the network does not take the images.
        UsageError: it is no chain of convolutions with BatchNorm.
        SlimnetError: it cannot be traced, or has diverged.
    """
    found = analyse(model, data, batch_size=batch_size, progress=progress("features"))
    images = next(data.batches("test", CERTIFIED, device_of(model)))[0]
    slimmed = slim(model.eval(), images, DEAD_BELOW, tolerance=TOLERANCE)
    train = scores(model, data, "train", batch_size, progress("training error"))
    test = scores(model, data, "test", batch_size, progress("test error"))
    pruned = scores(slimmed.model, data, "test", batch_size, progress("test error after pruning"))
    chain = convolutions_of(model)
    dead = [100 * (1 - each.kept / each.outputs) for each in chain]
    return Measured(
        readings={
            "gamma": 100 * (1 - sum(each.kept for each in chain) / sum(each.outputs for each in chain)),
            "activation": 100 * (found.sparsity_by_activation or 0.0),
            "layers": [round(each, 2) for each in dead],
            "train_loss": train.loss,
            "test_loss": test.loss,
            "error": 100 * test.error,
            "top5_error": 100 * test.top5_error,
            "features_pruned": sum(int(each.outputs - each.kept) for each in chain),
            "pruned_params": 100 * share_pruned(chain, data.channels),
            "pruned_error": 100 * pruned.error,
            "pruned_top5_error": 100 * pruned.top5_error,
        },
        layers=universality(found),
        macs=(slimmed.plan.macs_before, slimmed.plan.macs_after),
        removed=slimmed.plan.removed_channels,
        difference=slimmed.certificate.max_rel_difference,
    )


def scores(
    model: nn.Module, data: ImageData, split: Split, batch_size: int, progress: ProgressCallback | None = None
) -> Scores:
    """Loss and errors in eval mode on the images as they are; `progress` gets how many are done, and of how many."""
    loss = torch.zeros((), dtype=torch.float64, device="cpu")
    hits = Hits()
    with evaluating(model), torch.no_grad():
        for images, labels in Batches(data, split, batch_size, device_of(model), progress):
            answers = model(images).float()
            loss += functional.cross_entropy(answers, labels, reduction="sum").cpu().double()
            hits.add(answers, labels)
    found = hits.accuracy
    assert found is not None, "a split holds at least one image"
    return Scores(float(loss) / found.n, 1 - found.top1, 1 - found.top5)


def universality(found: Analysis) -> tuple[Mapping[str, Any], ...]:
    """The data of figures 3 and 5 for every layer."""
    return tuple(_layer(layer) for layer in found.layers)


def _layer(layer: LayerAnalysis) -> Mapping[str, Any]:
    values = np.asarray(layer.universalities or ())
    counts, _ = np.histogram(values[values > 0], np.linspace(0, 1, BINS + 1))
    return {
        "layer": layer.layer,
        "features": layer.features,
        "dead_by_activation": layer.dead_by_activation,
        "universality": layer.universality,
        "bins": counts.tolist(),
    }
