"""Small networks in training, some of whose channels die on purpose, and the same run without any cut."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from slimnet.surgery.plan import SurgeryPlan


class Mixed(nn.Module):
    """A plain layer, a residual block, a depthwise and a grouped layer, and a linear one, each with a BatchNorm.

    None has a bias in front of it: the gradient of such a bias is rounding alone, which Adam without L2 makes steps of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(6, 5, 3, padding=1, bias=False),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.Conv2d(5, 6, 1, bias=False),
            nn.BatchNorm2d(6),
        )
        self.wide = nn.Sequential(nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.depth = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.grouped = nn.Sequential(nn.Conv2d(8, 6, 1, groups=2, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(6, 7, bias=False), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.body(x))
        return self.head(self.grouped(self.depth(self.wide(x))).mean((2, 3)))


class Plain(nn.Module):
    """Two layers and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(6, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU())
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x)).flatten(1))


DYING: Sequence[Mapping[str, Sequence[int]]] = (
    {"body.1": [0, 3], "wide.1": [1, 6], "head.1": [2]},
    {"body.1": [4], "depth.1": [0, 7], "grouped.1": [1, 5], "head.1": [0, 6]},
)
"""The channels of each BatchNorm that die, one time after the other; not all of the first can go before the second."""

DYING_PLAIN: Sequence[Mapping[str, Sequence[int]]] = ({"first.1": [0, 3, 4], "second.1": [1]},)
"""The same of the plain network, which is cut once."""


def network(kind: Callable[[], nn.Module] = Mixed, seed: int = 0) -> nn.Module:
    """A network in double precision, in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind().double().train()


def batches(count: int, seed: int = 1) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Images `(8, 2, 5, 5)` with labels `(8,)`."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield (
            torch.randn(8, 2, 5, 5, dtype=torch.float64, generator=generator),
            torch.randint(3, (8,), generator=generator),
        )


def one_step(model: nn.Module, optimiser: Optimizer, images: torch.Tensor, labels: torch.Tensor) -> float:
    """A step of training; returns its loss."""
    loss = nn.functional.cross_entropy(model(images), labels)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def let_die(model: nn.Module, channels: Mapping[str, Sequence[int]]) -> None:
    """Give channels a small γ and β ≤ 0, as training with L2 does in the end."""
    with torch.no_grad():
        for path, places in channels.items():
            norm = model.get_submodule(path)
            norm.weight[list(places)] = 5e-4
            norm.bias[list(places)] = -1e-4


class Positions:
    """Where the channels of each γ were in the dense network; the oracle's own record of the cuts."""

    def __init__(self, model: nn.Module) -> None:
        self.of = {name: list(range(p.numel())) for name, p in model.named_parameters() if p.ndim == 1}

    def dense(self, name: str, channels: Sequence[int]) -> list[int]:
        return [self.of[name][channel] for channel in channels]

    def now(self, path: str, dense: Sequence[int]) -> list[int]:
        return [self.of[f"{path}.weight"].index(channel) for channel in dense]

    def follow(self, plan: SurgeryPlan) -> None:
        for cut in plan.cuts:
            if cut.tensor in self.of:
                self.of[cut.tensor] = [self.of[cut.tensor][place] for place in cut.keep]


def set_to_zero(model: nn.Module, optimiser: Optimizer, name: str, channels: Sequence[int]) -> None:
    """Project channels of a dense network by hand: γ, β, and whatever the optimiser keeps of them."""
    with torch.no_grad():
        for own in (name, name.replace("weight", "bias")):
            parameter = model.get_parameter(own)
            parameter[list(channels)] = 0
            for kept in optimiser.state[parameter].values():
                if torch.is_tensor(kept) and kept.shape == parameter.shape:
                    kept[list(channels)] = 0


def dense_twin(model: nn.Module) -> nn.Module:
    """The same network with the same values, to be trained without cuts."""
    return copy.deepcopy(model)
