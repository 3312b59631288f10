"""find_dead: which channels are a constant for every input, by one of the `CRITERIA`."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from slimnet.arguments import check_limit
from slimnet.errors import DataError, UsageError, check_name
from slimnet.graph.channel_graph import SILENT, ActivationKey, ChannelGraph
from slimnet.modules.copying import shared_copy
from slimnet.modules.example_inputs import Inputs
from slimnet.modules.forward_path import module_paths
from slimnet.modules.loaders import batches_once
from slimnet.modules.network import Network
from slimnet.torch_state.devices import device_of
from slimnet.torch_state.eager_mode import EagerMode
from slimnet.torch_state.precision import as_array, float32_products, numbers
from slimnet.torch_state.random_state import loader_draws_kept, random_numbers_kept
from slimnet.tracing.ops.registry import spec_of
from slimnet.tracing.worker_threads import work_followed

ACTIVATION_LIMIT = 1e-12
"""A channel is dead by activation where max |a| over the planes and the data stays below this (paper, section 2.1)."""


@dataclass(frozen=True)
class DeadChannels:
    """The dead channels of a network.

    `scales` maps a BatchNorm's γ to the channels below the threshold; `outputs` are labels of activation outputs
    that were zero on every example; `criterion` says how they were found. Channels behind all-zero filters need no
    list: their constants follow from the weights. `keep` names layers that keep theirs all the same.
    """

    criterion: str
    threshold: float
    scales: dict[str, tuple[int, ...]]
    outputs: tuple[int, ...] = ()
    keep: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many channels are dead."""
        return sum(len(channels) for channels in self.scales.values()) + len(self.outputs)


def check_threshold(threshold: float) -> float:
    """A threshold of γ as a float.

    Raises:
        UsageError: it is no finite number ≥ 0.
    """
    return check_limit("threshold", threshold, "1e-3 (the paper's)")


def dead_by_scale(graph: ChannelGraph, threshold: float = 1e-3) -> DeadChannels:
    """Channels whose BatchNorm has |γ| < `threshold` (paper, section 2.1), or γ that is zero (at most `SILENT`)."""
    threshold = check_threshold(threshold)
    found = {}
    for name, gamma in graph.scales.items():
        scale = numbers(gamma())
        small = (scale > -threshold) & (scale < threshold) if threshold else (scale >= -SILENT) & (scale <= SILENT)
        dead = as_array(small).nonzero()[0]
        if dead.size:
            found[name] = tuple(dead.tolist())
    return DeadChannels(f"|γ| < {threshold:g}", threshold, found)


def dead_by_activation(graph: ChannelGraph, model: nn.Module, batches: Iterable[Inputs]) -> DeadChannels:
    """Channels whose activation is zero at every position of every example (paper, section 2.1).

    Raises:
        DataError: there are no batches.
    """
    examples = 0

    def counted() -> Iterator[Inputs]:
        nonlocal examples
        for batch in batches:
            examples += batch.batch
            yield batch

    peaks = activation_peaks(model, counted())
    dead: list[int] = []
    for activation in graph.activations:
        peak = peaks.get(activation.key)
        if peak is not None and peak.numel() == activation.labels.size:
            dead += activation.labels[(peak <= ACTIVATION_LIMIT).numpy()].tolist()
    return DeadChannels(f"max |a| ≤ {ACTIVATION_LIMIT:g} on {examples:,} examples", 0.0, {}, tuple(dead))


def activation_peaks(model: nn.Module, batches: Iterable[Inputs]) -> dict[ActivationKey, torch.Tensor]:
    """For every activation the largest |a| of each channel `(C,)` over planes, examples and batches, on the CPU.

    The batches are moved to the network's device.
    """
    reference = shared_copy(model).eval()
    place, meter = device_of(reference), PeakMeter()
    with torch.no_grad(), loader_draws_kept, module_paths(Network.of(reference).modules, meter.path):
        for batch in batches:
            meter.calls.clear()
            with random_numbers_kept(reference), work_followed(meter), float32_products(tf32=False):
                batch.to(place).call(reference)
    if not meter.peaks:
        raise DataError("no activation ran: the data loader gave no batches, or the network has no activations")
    return meter.peaks


class PeakMeter(EagerMode):
    """Records the largest |a| of every channel of every activation during forwards on real tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.path: list[str] = []
        self.calls: Counter[tuple[str, str]] = Counter()
        self.peaks: dict[ActivationKey, torch.Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.rstrip("_")
        if spec_of(name).activation and isinstance(out, torch.Tensor) and out.ndim > 1:
            module = self.path[-1] if self.path else ""
            key = (module, name, self.calls[module, name])
            self.calls[module, name] += 1
            self.note(key, out.detach())
        return out

    def note(self, key: ActivationKey, out: torch.Tensor) -> None:
        """Update the peaks with the output of an activation `(N, C, ...)`; N may be 0 behind a selection."""
        if not out.numel():
            return
        peak = out.abs().amax([axis for axis in range(out.ndim) if axis != 1]).cpu().double()
        self.peaks[key] = torch.maximum(self.peaks[key], peak) if key in self.peaks else peak


FindDead = Callable[[nn.Module, ChannelGraph, float, Iterable[Inputs]], DeadChannels]
"""Finds the dead channels of a network from its graph, a threshold, and batches (none for criteria without data)."""


@dataclass(frozen=True)
class Criterion:
    """A criterion for dead channels, and whether it needs data."""

    find: FindDead
    needs_data: bool = False


GAMMA = "gamma"
CRITERIA: Mapping[str, Criterion] = {
    GAMMA: Criterion(lambda _, graph, threshold, __: dead_by_scale(graph, threshold)),
    "activation": Criterion(
        lambda model, graph, _, batches: dead_by_activation(graph, model, batches), needs_data=True
    ),
}
"""Every criterion by its name, which `slim`, `inspect`, a `Selection` and the command line take."""


def require_criterion(name: str, *, with_data: bool) -> Criterion:
    """The criterion of this name.

    Raises:
        UsageError: there is none (the nearest name is suggested), or it needs data and there is none.
    """
    check_name("criterion", name, CRITERIA)
    if CRITERIA[name].needs_data and not with_data:
        raise UsageError(f"criterion {name} is measured on data; pass loader=")
    return CRITERIA[name]


def find_dead(
    model: nn.Module,
    graph: ChannelGraph,
    threshold: float,
    criterion: str = GAMMA,
    loader: Iterable[Any] | None = None,
    keep: Sequence[str] = (),
) -> DeadChannels:
    """The dead channels of a traced network by one of the `CRITERIA`, on the batches of a loader where it needs data.

    The layers in `keep` are to keep theirs.

    Raises:
        UsageError: the threshold is invalid, the criterion is unknown, or it needs data and there is none.
        DataError: the loader yields no batches.
    """
    threshold = check_threshold(threshold)
    chosen = require_criterion(criterion, with_data=loader is not None)
    batches = () if loader is None else batches_once(loader)
    found = chosen.find(model, graph, threshold, map(Inputs.of_batch, batches))
    return replace(found, keep=tuple(keep))
