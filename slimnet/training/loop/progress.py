"""The reports of a training run."""

from dataclasses import dataclass, field

import torch
from torch import nn

from slimnet.storage.field_types import Amount, Count, Share, Size
from slimnet.training.analysis.metrics import batchnorm_scales


@dataclass(frozen=True)
class Progress:
    """The progress of a run after `iteration` of `total` steps.

    `loss` (cross-entropy, without regularisers) and `accuracy` (0..1) are means over the training batches since the
    last report; `sparsity` is the share of convolution channels dead by γ, 0..1; `seconds` is the wall time of
    training so far, without the caller's between reports; `epoch` counts passes over the training images. `macs` and
    `macs_if_slimmed` are the multiply-accumulates of one image in the current network, and without its dead channels;
    only some reports of a run in a folder have them. In a run that shrinks, `macs` are those of the initial network,
    `macs_left` those of the current one, and `channels_removed` counts the removed channels; all three are present from
    the first cut on. `projection_change` is the largest change of a layer's input when they were set to zero, relative
    to the layer's largest input, if it was measured. `revived` counts the removed channels that came back in its
    shadow, if there is one, and `revived_alive` those of them that are alive there at this report.
    `validation_accuracy` (0..1) is that of the network on the images that the run is validated on, and
    `validation_best` the highest so far; only the reports of evaluations have them.
    """

    iteration: Count
    total: Size
    loss: float
    accuracy: Share
    sparsity: Share
    seconds: Amount
    epoch: Amount = 0.0
    macs: Count | None = None
    macs_if_slimmed: Count | None = None
    macs_left: Count | None = None
    channels_removed: Count | None = None
    projection_change: Amount | None = None
    revived: Count | None = None
    revived_alive: Count | None = None
    validation_accuracy: Share | None = None
    validation_best: Share | None = None


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One point of a run's history: its progress, and γ and β `(channels,)` of every BatchNorm by module path."""

    progress: Progress
    scales: dict[str, torch.Tensor]
    shifts: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, progress: Progress) -> "Snapshot":
        """Copy the current γ and β of a network."""
        scales = batchnorm_scales(model)
        shifts = {name: model.get_submodule(name).bias for name in scales}
        copies = {name: shift.detach().cpu().clone() for name, shift in shifts.items() if torch.is_tensor(shift)}
        return cls(progress, scales, copies)
