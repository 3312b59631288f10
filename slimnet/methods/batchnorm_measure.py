"""measured: BatchNorm statistics of a masked network, measured on some images, without labels or training."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from slimnet.errors import UsageError
from slimnet.methods.batchnorm_updates import RUNNING, Changes, Statistics, owned
from slimnet.modules.copying import eval_copy, shared_copy
from slimnet.modules.example_inputs import Inputs
from slimnet.modules.network import Network
from slimnet.planning.constants import as_float64
from slimnet.torch_state.devices import device_of, uncompiled
from slimnet.torch_state.random_state import random_numbers_kept

MEASURABLE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

ENOUGH = 256
"""The number of images that commands measure on by default."""


def measured(dense: nn.Module, quiet: nn.Module, images: Iterable[Any], threshold: float = 0.0) -> nn.Module:
    """A copy of a masked network whose BatchNorm statistics are measured without the removed channels.

    The difference of the means on the images between both networks is added to each running mean of the dense network,
    and each running variance is multiplied by the ratio of the variances. Sampling errors of the images cancel between
    the two networks, so that a hundred images suffice. Channels with |γ| below `threshold` are not changed.

    Raises:
        UsageError: there are no images, or too few in a batch for a BatchNorm.
    """
    place = device_of(dense)
    batches = [Inputs.of_batch(batch).to(place) for batch in images]
    if not batches:
        raise UsageError("no images to measure BatchNorms on: the loader gave none")
    before, after = statistics(dense, batches), statistics(quiet, batches)
    tensors = Network.of(dense).named
    changes = Changes(tensors)
    for name, found in after.items():
        gamma = tensors.get(owned(name, "weight"))
        alive = np.ones(found.mean.size, dtype=bool) if gamma is None else np.abs(as_float64(gamma)) >= threshold
        changes.update_norm(name, alive, before[name], found)
    return shared_copy(quiet, changes.tensors)


def statistics(model: nn.Module, batches: Sequence[Inputs]) -> dict[str, Statistics]:
    """The statistics of every BatchNorm's input on these batches, normalised by batch statistics as in training.

    Raises:
        UsageError: a BatchNorm gets a single value per channel.
    """
    copied = eval_copy(model)
    norms = {
        name: module
        for name, module in copied.named_modules()
        if isinstance(module, MEASURABLE) and module.running_mean is not None
    }
    for norm in norms.values():
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        with torch.no_grad(), uncompiled(), random_numbers_kept(copied):
            for batch in batches:
                batch.call(copied)
    except ValueError as error:
        raise UsageError(f"BatchNorms cannot be measured: {error}; give several images at a time") from error
    buffers = dict(copied.named_buffers())
    return {name: Statistics(*(as_float64(buffers[owned(name, each)]) for each in RUNNING)) for name in norms}
