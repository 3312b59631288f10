"""torch-pruning as another engine: the same scores and the same budget, its own dependency graph and surgery."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from slimnet.benchmark import parameters
from slimnet.compat import torch_pruning
from slimnet.counting import count_network
from slimnet.errors import SlimnetError, UsageError, short_reason
from slimnet.methods import Budget, Ranking, Selection, mask_selected
from slimnet.methods.candidates import Channels
from slimnet.modules.example_inputs import check_inputs, tensors_in
from slimnet.torch_state import silence

TRIES = 12
"""The steps of the bisection of its pruning ratio."""
CLOSE = 0.005
"""How far below the budget, as a fraction of the dense network, the search ends."""
EXACT = 1e-3
"""The largest difference to the masked network, relative to the largest output, that rounding explains."""
UNITS = ("macs", "params")
"""The units of budgets that it can be brought to."""


class RivalError(SlimnetError):
    """torch-pruning made no network: it raised, its network does not run, or it cannot meet the budget."""


@dataclass(frozen=True)
class RivalCut:
    """A network that torch-pruning has cut.

    `removed` are the output channels by layer, `left` what is left in the unit of the budget, 0..1, `difference` the
    largest difference of an output to the masked network's, relative to its largest (None without a masked network),
    and `flaw` what is wrong with the network, in one line; "" if nothing is.
    """

    model: nn.Module
    removed: Mapping[str, tuple[int, ...]]
    left: float
    difference: float | None = None
    flaw: str = ""


def cut_to_budget(model: nn.Module, inputs: torch.Tensor, ranking: Ranking, budget: Budget) -> RivalCut:
    """The largest network within a budget of MACs or parameters that torch-pruning makes by these scores.

    Its pruner ranks channels over all layers, with the layers ignored whose outputs cannot be removed; its ratio is
    bisected, with a network for each step. Where that finds none, evenly spaced ratios are tried: it leaves a group as
    it is from which it would remove every channel, so that a higher ratio may leave more. `model` is not modified.

    Raises:
        RivalError: none of its networks runs and is within the budget; the message has the reason.
        UsageError: the budget is in another unit, or torch-pruning cannot be imported.
    """
    torch_pruning()
    dense, expected = cost(model, inputs, budget), output_shapes(model, inputs)
    channels = Channels.of(model, check_inputs(model, inputs))
    fixed = [layer for layer, sets in channels.layers.items() if channels.pinned[sets].any()]

    def cut_at(ratio: float) -> RivalCut:
        found = cut(model, inputs, ranking, fixed, ratio)
        check_shapes(found.model, inputs, expected)
        return RivalCut(found.model, found.removed, cost(found.model, inputs, budget) / dense)

    search = Search(cut_at, budget)
    search.bisect()
    if search.best is None:
        search.scan()
    if search.best is None:
        raise RivalError(search.reason)
    return compared(model, inputs, ranking, search.best)


@dataclass
class Search:
    """The search for a pruning ratio: the largest network within the budget so far, the size of the smallest of all,
    and what was raised last.
    """

    cut_at: Callable[[float], RivalCut]
    budget: Budget
    best: RivalCut | None = None
    smallest: float | None = None
    failure: str = ""

    def bisect(self) -> None:
        """Try ratios between one that leaves too much and one that does not, or fails."""
        low, high = 0.0, 1.0
        for _ in range(TRIES):
            ratio = (low + high) / 2
            left = self.attempt(ratio)
            low, high = (ratio, high) if left is not None and left > self.budget.left else (low, ratio)
            if self.best is not None and self.budget.left - self.best.left <= CLOSE:
                return

    def scan(self) -> None:
        """Try evenly spaced ratios, the highest first."""
        for step in reversed(range(1, TRIES)):
            self.attempt(step / TRIES)

    def attempt(self, ratio: float) -> float | None:
        """Try one ratio; returns what it leaves, None where it fails."""
        try:
            found = self.cut_at(ratio)
        except Exception as error:  # whatever it raises is a result
            self.failure = short_reason(error)
            return None
        self.smallest = found.left if self.smallest is None else min(self.smallest, found.left)
        if found.left <= self.budget.left and (self.best is None or found.left > self.best.left):
            self.best = found
        return found.left

    @property
    def reason(self) -> str:
        """Why no network was found."""
        if self.smallest is None:
            return self.failure
        return f"it leaves {self.smallest:.3g} of the {self.budget.unit} at least, not {self.budget.left:.3g}"


def cost(model: nn.Module, inputs: torch.Tensor, budget: Budget) -> int:
    """The size of a network in the unit of a budget.

    Raises:
        UsageError: it is another unit than MACs or parameters.
    """
    if budget.unit not in UNITS:
        raise UsageError(f"torch-pruning is brought to budgets of {' or '.join(UNITS)}, not of {budget.unit}")
    return count_network(model, inputs).macs if budget.unit == "macs" else parameters(model)


def cut(model: nn.Module, inputs: torch.Tensor, ranking: Ranking, fixed: list[str], ratio: float) -> RivalCut:
    """The network at one pruning ratio, of all channels that are ranked.

    Raises:
        Exception: whatever torch-pruning raises.
    """
    model = copy.deepcopy(model).eval()
    for parameter in model.parameters():
        # It follows gradients, and does not see what has none.
        parameter.requires_grad_(parameter.is_floating_point())
    paths = {module: path for path, module in model.named_modules()}
    with silence.silenced():
        pruner = torch_pruning().pruner.BasePruner(
            model,
            inputs[:1],
            Given(ranking, paths),
            global_pruning=True,
            pruning_ratio=ratio,
            ignored_layers=[model.get_submodule(path) for path in fixed],
            # Its defaults are dicts that all of its pruners share.
            **{name: {} for name in ("in_channel_groups", "out_channel_groups", "num_heads")},
        )
        removed = pruned(pruner, paths)
    return RivalCut(model, removed, 0.0)


@dataclass(frozen=True)
class Given:
    """An importance of torch-pruning: the mean score of the layers that write a channel, as in slimnet's selection."""

    ranking: Ranking
    paths: Mapping[nn.Module, str]

    def __call__(self, group: Any) -> torch.Tensor | None:
        """The scores of a group's channels; None, so that it stays, where a layer that writes them is not ranked."""
        total = np.zeros(len(group[0].idxs))
        count = np.zeros_like(total)
        for entry in group:
            if not is_output(entry.dep):
                continue
            scores = self.ranking.scores.get(self.paths[entry.dep.target.module])
            if scores is None:
                return None
            np.add.at(total, entry.root_idxs, np.asarray(scores)[entry.idxs])
            np.add.at(count, entry.root_idxs, 1)
        return torch.from_numpy(total / count) if count.all() else None


def is_output(dependency: Any) -> bool:
    """Whether a dependency of torch-pruning cuts the outputs of a convolution or linear layer."""
    package = torch_pruning()
    cuts = (
        package.prune_conv_out_channels,
        package.prune_linear_out_channels,
        package.prune_depthwise_conv_out_channels,
    )
    return isinstance(dependency.target.module, nn.modules.conv._ConvNd | nn.Linear) and dependency.handler in cuts


def pruned(pruner: Any, paths: Mapping[nn.Module, str]) -> dict[str, tuple[int, ...]]:
    """Let torch-pruning cut every group that it chooses; returns the removed outputs of each layer."""
    removed: dict[str, tuple[int, ...]] = {}
    for group in pruner.step(interactive=True):
        for entry in group:
            if is_output(entry.dep):
                path = paths[entry.dep.target.module]
                removed[path] = tuple(sorted({*removed.get(path, ()), *map(int, entry.idxs)}))
        group.prune()
    return removed


def compared(model: nn.Module, inputs: torch.Tensor, ranking: Ranking, found: RivalCut) -> RivalCut:
    """The cut with its difference to the masked network: the dense one in which the same channels are zero."""
    try:
        masked = mask_selected(model, inputs, Selection(ranking.method, found.removed), recalibrate=False)
    except SlimnetError as error:
        return RivalCut(found.model, found.removed, found.left, None, f"there is no masked network: {error}")
    with torch.no_grad():
        pairs = list(zip(tensors_in(found.model(inputs)), tensors_in(masked.eval()(inputs)), strict=True))
    largest = max(float(expected.abs().max()) for _, expected in pairs)
    difference = max(float((given - expected).abs().max()) for given, expected in pairs) / max(largest, 1e-30)
    flaw = ""
    if not difference <= EXACT:
        flaw = f"its outputs differ from the masked network's by {difference:.2g} of the largest"
    return RivalCut(found.model, found.removed, found.left, difference, flaw)


def remeasured(model: nn.Module, images: Iterable[torch.Tensor], device: torch.device) -> nn.Module:
    """The network with the statistics of its BatchNorms measured on images, by torch's own `update_bn`."""
    torch.optim.swa_utils.update_bn(images, model, device)
    return model.eval()


def output_shapes(model: nn.Module, inputs: torch.Tensor) -> list[tuple[int, ...]]:
    """The shapes of all tensors that a network returns."""
    with torch.no_grad():
        return [tuple(tensor.shape) for tensor in tensors_in(model(inputs))]


def check_shapes(model: nn.Module, inputs: torch.Tensor, expected: list[tuple[int, ...]]) -> None:
    """Refuse a network that returns outputs of other shapes.

    Raises:
        RivalError: naming both.
        Exception: whatever the network raises.
    """
    found = output_shapes(model, inputs)
    if found != expected:
        raise RivalError(f"its network returns {in_words(found)}, not {in_words(expected)}")


def in_words(found: list[tuple[int, ...]]) -> str:
    """Shapes in words."""
    return ", ".join(" × ".join(map(str, shape)) for shape in found) or "no tensor"
