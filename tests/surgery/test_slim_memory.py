"""What slimming a network takes, in tensors that are alive at once, and that what was borrowed is given back."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import slimnet
from slimnet.benchmark.memory import Follower
from slimnet.modules.network import Network
from slimnet.surgery.apply_plan import apply_plan, independent, largest_first
from slimnet.torch_state import process

IMAGES = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))


class Tied(nn.Module):
    """Two layers with one weight, a buffer, a plain tensor and a list of tensors; a channel in front of all is dead."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1)
        self.left, self.right = nn.Linear(6, 6), nn.Linear(6, 6)
        self.right.weight = self.left.weight
        self.right.bias.requires_grad_(False)
        self.register_buffer("shift", torch.ones(1, 6, 1, 1))
        self.scale, self.more = torch.full((1, 6), 0.5), [torch.ones(1, 6)]
        with torch.no_grad():
            self.norm.weight[1] = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (self.second(self.norm(self.first(x)).relu()) + self.shift).mean((2, 3))
        return self.right(self.left(x) * self.scale + self.more[0])


def tied() -> nn.Module:
    torch.manual_seed(0)
    return Tied().eval()


def alive() -> nn.Module:
    """A network whose feature maps are as large as its weights, with nothing to remove."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 64, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(64, 2000)).eval()


def tensors_of(model: nn.Module) -> list[torch.Tensor]:
    """Every tensor that a network holds, in whatever."""
    attributes = [value for module in model.modules() for value in vars(module).values()]
    return [leaf for leaf in pytree.tree_leaves(attributes) if isinstance(leaf, torch.Tensor)]


def memory_of(model: nn.Module) -> set[int]:
    return {tensor.untyped_storage()._cdata for tensor in tensors_of(model)}


class Counting(Follower):
    """Adds up the memory of tensors other than those that only have shapes."""

    def note(self, made: torch.UntypedStorage) -> None:
        if made.device.type != "meta":
            super().note(made)


def test_the_copy_of_the_weights_and_the_feature_maps_of_the_certificate_are_not_there_at_once():
    """Oracle: what the copy takes, or else two feature maps, whichever is more; a tenth for small things."""
    model = alive()
    copy = sum(tensor.nbytes for tensor in model.state_dict().values())
    maps = 2 * 64 * 32 * 32 * 4
    with Counting(memory_of(model), 0) as counting:
        slimmed = slimnet.slim(model, IMAGES)
    assert slimmed.plan.removed_channels == 0
    assert max(copy, maps) <= counting.peak < 1.1 * max(copy, maps) < 0.6 * (copy + maps)


def kind_of(tensor: torch.Tensor) -> tuple[type, bool, tuple[int, ...]]:
    return type(tensor), tensor.requires_grad, tensor.stride()


def applied(dense: nn.Module) -> nn.Module:
    return apply_plan(dense, slimnet.slim(dense, IMAGES).plan)


@pytest.mark.parametrize("make", [alive, tied])
@pytest.mark.parametrize("slim", [lambda dense: slimnet.slim(dense, IMAGES).model, applied], ids=["slim", "apply_plan"])
def test_a_slim_network_has_tensors_of_its_own(make: Callable[[], nn.Module], slim: Callable[[nn.Module], nn.Module]):
    dense = make()
    assert memory_of(slim(dense)).isdisjoint(memory_of(dense))


def test_what_does_not_change_is_borrowed_and_given_back_as_it_was():
    """Oracle: the network that has borrowed nothing."""
    dense = tied()
    plan = slimnet.slim(dense, IMAGES).plan
    borrower, owner = apply_plan(dense, plan, borrow=True), apply_plan(dense, plan)
    lender = Network.of(dense).named
    own = {name for name, tensor in Network.of(borrower).named.items() if tensor is not lender[name]}
    norm = {f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
    assert own == {"first.weight", "first.bias", "second.weight", *norm}
    settled = independent(borrower, dense)
    assert settled.left.weight is settled.right.weight
    mine, expected = Network.of(settled).named, Network.of(owner).named
    assert list(mine) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(mine[name], tensor)
        assert kind_of(mine[name]) == kind_of(tensor)
    assert memory_of(settled).isdisjoint(memory_of(dense))


@pytest.mark.parametrize(
    ("platform", "library", "expected"),
    [("linux", {"malloc_trim": True}, [0]), ("linux", {}, []), ("darwin", {"malloc_trim": True}, [])],
    ids=["glibc", "another C library", "another system"],
)
def test_memory_is_returned_where_the_c_library_can(monkeypatch, platform, library, expected):
    calls: list[int] = []
    functions = SimpleNamespace(**dict.fromkeys(library, calls.append))
    monkeypatch.setattr(process.sys, "platform", platform)
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: functions)
    process.return_memory()
    assert calls == expected


def test_the_largest_tensors_come_first_and_equal_ones_as_they_were():
    """Oracle: by hand; of two names of one tensor the first decides what becomes of it."""
    small, large, other = torch.zeros(2), torch.zeros(5), torch.zeros(5)
    tensors = {"a": small, "b": large, "c": other, "d": large, "e": small}
    assert list(largest_first(tensors)) == ["b", "c", "d", "a", "e"]
