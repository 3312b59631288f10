"""take_census: how much of trained networks is dead weight, one row for each checkpoint."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from slimnet.counting import count_or_take
from slimnet.inspection import inspect
from slimnet.modules.example_inputs import ExampleInputs
from slimnet.storage.folder_names import is_bundle, is_run

SUFFIXES = (".pt", ".pth", ".th", ".ckpt", ".bin", ".tar", ".safetensors")
"""The suffixes of the files that are checkpoints by the look of them."""

HASH = re.compile(r"[-_.][0-9a-f]{7,64}$")
"""The hash that model hubs append to the name of a network: resnet18-f37072fd."""


@dataclass(frozen=True)
class CensusRow:
    """One checkpoint: the channels of its BatchNorms, and what exact slimming removes.

    `channels` counts the scales γ of all BatchNorms, `dead` those with |γ| below the threshold. The pairs are before
    and after exact slimming, MACs for one input; they are None, like `removable`, where the network is not known or
    cannot be traced: `note` says why. `removable` counts output channels of convolutions and linear layers.
    `counted_macs` are the MACs of the network as it is by another counter, `counted_by` (see `count_network`).
    `assumed_shape` is the shape `(C, H, W)` of the inputs where nobody has said it and the usual one was taken.
    """

    name: str
    arch: str = ""
    channels: int = 0
    dead: int = 0
    removable: int | None = None
    macs: tuple[int, int] | None = None
    params: tuple[int, int] | None = None
    note: str = ""
    counted_macs: int | None = None
    counted_by: str = ""
    assumed_shape: tuple[int, ...] | None = None

    @property
    def dead_share(self) -> float:
        """Dead channels as a fraction of all with a BatchNorm; 0 without any."""
        return self.dead / self.channels if self.channels else 0.0


@dataclass(frozen=True)
class Totals:
    """The sums over the rows of a census: of all with BatchNorm, and of those that were traced."""

    checkpoints: int
    channels: int
    dead: int
    traced: int
    macs: tuple[int, int]
    params: tuple[int, int]


def take_census(
    name: str, model: nn.Module, example_inputs: ExampleInputs, threshold: float = 1e-3, *, arch: str = ""
) -> CensusRow:
    """Count the dead channels of a network, and what exact slimming would remove. Nothing is changed.

    Raises:
        TraceError, InputError, UsageError: as `slimnet.inspect` does.
    """
    channels, dead = count_scales(model.state_dict(), threshold)
    plan = inspect(model, example_inputs, threshold).plan
    counts = count_or_take(model, example_inputs, plan.macs_before)
    return CensusRow(
        name,
        arch,
        channels,
        dead,
        removable=plan.removed_channels,
        macs=(plan.macs_before, plan.macs_after),
        params=(plan.params_before, plan.params_after),
        counted_macs=counts.macs,
        counted_by=counts.counted_by,
    )


def count_scales(state: Mapping[str, torch.Tensor], threshold: float = 1e-3) -> tuple[int, int]:
    """The number of scales γ of all BatchNorms in a state dict, and of those with |γ| below the threshold.

    A BatchNorm is recognised by its running variance beside a weight of the same shape `(C,)`.
    """
    scales = [
        state[gamma].abs()
        for name, variance in state.items()
        if (gamma := _beside(name)) in state and state[gamma].shape == variance.shape
    ]
    return sum(each.numel() for each in scales), sum(int((each < threshold).sum()) for each in scales)


def _beside(name: str) -> str:
    """The name of the scale beside a running variance; "" for the name of another tensor."""
    module, _, tensor = name.rpartition(".")
    return f"{module}.weight" if module and tensor == "running_var" else ""


def count_totals(rows: Sequence[CensusRow]) -> Totals:
    """The sums over all rows."""
    traced = [row for row in rows if row.macs and row.params]
    macs = [row.macs for row in traced if row.macs]
    params = [row.params for row in traced if row.params]
    return Totals(
        checkpoints=len(rows),
        channels=sum(row.channels for row in rows),
        dead=sum(row.dead for row in rows),
        traced=len(traced),
        macs=(sum(before for before, _ in macs), sum(after for _, after in macs)),
        params=(sum(before for before, _ in params), sum(after for _, after in params)),
    )


def find_checkpoints(place: Path) -> Iterator[Path]:
    """The checkpoints, runs and bundles in a folder and its subfolders, in the order of their names; or a file itself.

    What is in a run or a bundle belongs to it. Links to folders are not followed, so that there is an end.
    """
    if not place.is_dir() or is_run(place) or is_bundle(place):
        yield place
        return
    for path in sorted(place.iterdir()):
        if path.is_dir():
            if not path.is_symlink():
                yield from find_checkpoints(path)
        elif path.suffix in SUFFIXES:
            yield path


def names_in(path: Path) -> tuple[str, ...]:
    """The names of a network that the path of a checkpoint may contain, the likeliest first.

    They are the file's name, without the hash of a model hub and without suffixes, and that of its folder.
    """
    stem = path.name
    while Path(stem).suffix in SUFFIXES:
        stem = Path(stem).stem
    bare = HASH.sub("", stem)
    return tuple(dict.fromkeys([bare, stem, path.parent.name]))
