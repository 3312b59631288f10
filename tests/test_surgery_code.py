"""The surgery on code as people write it: the slim network computes the same, whatever the forward does to a tensor.

Every network here has two dead BatchNorms around the code, first with some dead channels and then with nothing but
dead ones: only then does a constant that is wrong reach the outputs.
"""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from wiring import norm, planes, slim, wired

Code = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def around(code: Code, dead: list[int]) -> nn.Module:
    """A dead BatchNorm of 8 channels, some code, and two layers behind it."""
    return wired(
        lambda m, x: m.last(functional.leaky_relu(m.mixed(m.code(m.norm(m.first(x)))))),
        first=nn.Conv2d(2, 8, 3),
        norm=norm(8, dead, 0.6),
        code=Coded(code),
        mixed=nn.Conv2d(8, 8, 1),
        last=nn.Conv2d(8, 3, 3, padding=1),
    )


class Coded(nn.Module):
    def __init__(self, code: Code):
        super().__init__()
        self.code = code

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.code(x)


def check(code: Code) -> list[int]:
    """Slim the code's network with some and with all channels dead; how many channels stay in front of the code."""
    models = [around(code, dead) for dead in ([1, 2, 6], list(range(8)))]
    return [slim(model, planes()).model.first.out_channels for model in models]


def changed(change: Callable[[torch.Tensor], object]) -> Code:
    """The code that changes a tensor in place and hands it on."""

    def code(x: torch.Tensor) -> torch.Tensor:
        change(x)
        return x

    return code


ZERO = torch.tensor([0])

OVERWRITES: dict[str, Callable[[torch.Tensor], object]] = {
    "some elements": lambda x: x.__setitem__(x < 0.3, 0.25),
    "one position": lambda x: x[:, :, 0, 0].copy_(3 * x[:, :, 1, 1]),
    "rows by number": lambda x: x.index_fill_(3, ZERO, 2.0),
    "an example by number": lambda x: x.index_put_((ZERO,), torch.zeros_like(x[:1])),
    "a copy of ones": lambda x: x.index_copy_(0, ZERO, torch.ones_like(x[:1])),
    "scattered": lambda x: x.scatter_add_(3, torch.zeros(x.shape, dtype=torch.long), torch.ones_like(x)),
    "masked by a tensor": lambda x: x.masked_fill_(x > 0, torch.tensor(0.7)),
    "one column of fives": lambda x: x[..., 0].fill_(5.0),
    "everything": lambda x: x.fill_(0.3),
    "nothing left": lambda x: x.zero_(),
    "through its data": lambda x: x.data.fill_(0.3),
    "by an out argument": lambda x: torch.add(x.clone(), 1, out=x),
    "through a view, by an op of its own": lambda x: x.view(-1).index_fill_(0, ZERO, 9.0),
    "turned twice": lambda x: x.transpose_(2, 3).unsqueeze_(0).squeeze_(0).mul_(torch.arange(4.0)).transpose_(2, 3),
}


@pytest.mark.parametrize("name", OVERWRITES)
def test_what_is_overwritten_in_place_is_no_constant_any_more(name):
    check(changed(OVERWRITES[name]))


NUMBERS: dict[str, Code] = {
    "a plane of numbers": lambda x: x * torch.linspace(0, 1, 4).view(1, 1, 1, 4).expand(1, x.shape[1], 4, 4),
    "zeros beside ones": lambda x: x * torch.cat([torch.zeros(1, 1, 2, 1), torch.ones(1, 1, 2, 1)], 2),
    "a slope": lambda x: torch.where(x > 0, x, 0.1 * x),
    "at least zero": lambda x: torch.max(x, torch.zeros_like(x)),
    "another number where positive": lambda x: torch.where(x > 0, torch.full_like(x, 0.3), x),
    "a new number for each example": lambda x: x + x.new_full((x.shape[0], 1, 1, 1), 0.3),
    "written into an empty tensor": lambda x: torch.empty_like(x).copy_(x),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_tensors_filled_by_the_code_are_taken_for_what_they_hold(name):
    kept = check(NUMBERS[name])
    assert kept == ([8, 8] if name in ("a plane of numbers", "zeros beside ones") else [5, 1])
