"""torch-pruning's own pruners, which choose and cut by themselves, brought to a given number of MACs.

It cannot follow the shortcut of a CIFAR ResNet that pads with zero channels (option A): it cuts the stages apart, and
its network does not run. For it the padding is written as what it is, a 1×1 convolution of stride 2 whose weight is the
identity over rows of zeros: the same function, to the bit in exact arithmetic. That convolution is never trained, and
its MACs, which the padding does not have, are not counted.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from slimnet.benchmark import macs
from slimnet.models.cifar_resnet import PadShortcut

PRUNERS = ("BNScalePruner", "MagnitudePruner")
GROUP_PRUNER = "GroupNormPruner"
"""The pruner of DepGraph's own tables (Fang et al. 2023), without the sparse training that they put before it."""
CLOSE = 0.005
"""How far under the MACs asked for a network may be, as a share of the dense one's, before the search ends."""
TRIES = 10


@dataclass(frozen=True)
class Cut:
    """A network that torch-pruning has cut: the network, its MACs without the shortcuts', and the ratio asked for."""

    model: nn.Module
    macs: int
    ratio: float


def with_projections(model: nn.Module) -> nn.Module:
    """A copy of a CIFAR ResNet whose padding shortcuts are convolutions with fixed weights."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        shortcut = getattr(module, "shortcut", None)
        if isinstance(shortcut, PadShortcut):
            module.shortcut = projection(shortcut, module.conv1.in_channels)
    return model


def projection(shortcut: PadShortcut, channels: int) -> nn.Conv2d:
    """The convolution that does what a padding shortcut does."""
    width = shortcut.before + channels + shortcut.after
    found = nn.Conv2d(channels, width, 1, shortcut.stride, bias=False)
    with torch.no_grad():
        found.weight.zero_()
        found.weight[shortcut.before : shortcut.before + channels, :, 0, 0] = torch.eye(channels)
    return found.requires_grad_(False)


def counted(model: nn.Module, inputs: torch.Tensor) -> int:
    """The MACs of a network without those of its fixed shortcuts."""
    extra = 0

    def count(module: nn.Conv2d, _: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal extra
        extra += module.in_channels * output[0].numel()

    shortcuts = [
        module.register_forward_hook(count)
        for name, module in model.named_modules()
        if name.endswith("shortcut") and isinstance(module, nn.Conv2d)
    ]
    total = macs(model, inputs)
    for shortcut in shortcuts:
        shortcut.remove()
    # torch-pruning leaves the widths of what it has cut as tensors.
    return int(total - extra)


def pruned(name: str, model: nn.Module, inputs: torch.Tensor, ratio: float) -> nn.Module:
    """A copy of a network that one of torch-pruning's pruners has cut, over all layers alike, with its own settings.

    Raises:
        Exception: whatever it raises.
    """
    import torch_pruning as tp

    model = copy.deepcopy(model).eval()
    for parameter in model.parameters():
        # It does not see what has no gradient.
        parameter.requires_grad_(True)
    importances = {
        "BNScalePruner": tp.importance.BNScaleImportance,
        "MagnitudePruner": tp.importance.MagnitudeImportance,
        GROUP_PRUNER: tp.importance.GroupMagnitudeImportance,
    }
    pruner = getattr(tp.pruner, name)(
        model,
        inputs,
        importances[name](),
        global_pruning=True,
        pruning_ratio=ratio,
        ignored_layers=[module for module in model.modules() if isinstance(module, nn.Linear)],
    )
    pruner.step()
    for path, parameter in model.named_parameters():
        parameter.requires_grad_("shortcut" not in path)
    return model


def brought_to(name: str, model: nn.Module, inputs: torch.Tensor, most: float) -> Cut:
    """The largest network within `most` MACs that bisection of the pruning ratio finds.

    Raises:
        RuntimeError: none of those that run is within them.
    """
    dense = counted(model, inputs)
    best = bisected(lambda ratio: tried(name, model, inputs, ratio), most, CLOSE * dense)
    if best is None:
        raise RuntimeError(f"no network of {name} within {most:,.0f} MACs runs")
    return best


def tried(name: str, model: nn.Module, inputs: torch.Tensor, ratio: float) -> Cut:
    """The network at one pruning ratio."""
    cut = pruned(name, model, inputs, ratio)
    return Cut(cut, counted(cut, inputs), ratio)


def bisected(cut_at: Callable[[float], Cut], most: float, close: float) -> Cut | None:
    """The largest cut within `most` MACs; a ratio at which it crashes counts as too high."""
    low, high, best = 0.0, 1.0, None
    for _ in range(TRIES):
        middle = (low + high) / 2
        try:
            cut = cut_at(middle)
        except Exception:  # the rival's crashes are a result
            high = middle
            continue
        if cut.macs > most:
            low = middle
            continue
        high = middle
        if best is None or cut.macs > best.macs:
            best = cut
        if most - cut.macs <= close:
            break
    return best


def crash(name: str, model: nn.Module, inputs: torch.Tensor) -> str | None:
    """What goes wrong with a network as it is; None where nothing does."""
    try:
        cut = pruned(name, model, inputs, 0.3)
        with torch.no_grad():
            cut(inputs)
    except Exception as error:  # the rival's crashes are a result
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return None
