"""The surgery on code that divides channels: into parts that stand side by side or inside each other, or by position.

Oracle: the dense network. Every network has a BatchNorm with some dead channels in front of the code; how many channels
are left there tells what the code allows. The code treats its parts differently, so that a channel in the wrong part
changes the output.
"""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from wiring import norm, planes, reasons, slim, wired

Code = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def left(code: Code, dead: list[int], width: int = 16, beta: float = 0.4) -> int:
    """How many of the channels in front of some code stay."""
    return slim(around(code, dead, width, beta), planes()).model.first.out_channels


def around(code: Code, dead: list[int], width: int = 16, beta: float = 0.4) -> nn.Module:
    """A BatchNorm with dead channels, some code, and a layer that reads what it gives."""
    channels = code(torch.zeros(1, width, 4, 4)).shape[1]
    model = wired(
        lambda m, x: m.last(m.code(m.norm(m.first(x)))),
        first=nn.Conv2d(2, width, 3),
        norm=norm(width, dead, beta),
        last=nn.Conv2d(channels, 3, 1),
    )
    model.code = code
    return model


def different(*parts: torch.Tensor) -> torch.Tensor:
    """Parts that are treated each in its own way, behind each other."""
    return torch.cat([part * (1 + place) - 0.1 * place for place, part in enumerate(parts)], 1)


def inner(x: torch.Tensor, size: int) -> torch.Tensor:
    """Channels in groups of some size: `(N, C / size, size, H, W)`."""
    return x.view(x.shape[0], x.shape[1] // size, size, *x.shape[2:])


HALF = 8
DIVIDED: dict[str, tuple[Code, list[int], int]] = {
    "every other one": (lambda x: different(x[:, ::2], x[:, 1::2]), [0, 2, 3, 7, 9], 12),
    "only the even ones": (lambda x: x[:, ::2], [0, 2, 3, 7, 9], 12),
    "every fourth one": (lambda x: different(*(x[:, place::4] for place in range(4))), [0, 1, 6, 11, 4, 5], 12),
    "columns of a view": (lambda x: different(*inner(x, 4).unbind(2)), [0, 1, 6, 11, 4, 5], 12),
    "rows of a view": (lambda x: different(*x.view(x.shape[0], 4, -1, *x.shape[2:]).unbind(1)), [0, 5, 9, 15, 14], 12),
    "shares of a group": (
        lambda x: (inner((-x).relu(), 4) * inner(x, 4).softmax(2)).flatten(1, 2),
        [4, 5, 6, 7, 9],
        12,
    ),
    "the largest of a group": (lambda x: inner(x, 4).amax(2), [4, 5, 6, 7, 9], 12),
    "planes of a group": (lambda x: functional.pixel_shuffle(x, 2), [4, 5, 6, 7, 9], 16),
    "halves by the width": (lambda x: different(x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]), [0, 1, 9], 14),
    "halves by a number": (lambda x: different(x[:, :HALF], x[:, HALF:]), [0, 1, 9, 10, 15], 13),
    "a quarter by the width": (
        lambda x: different(*x.split([x.shape[1] // 4, x.shape[1] - x.shape[1] // 4], 1)),
        [0, 5, 9, 15, 14],
        12,
    ),
    "a quarter by a number": (lambda x: different(*x.split([4, 12], 1)), [0, 5, 9, 15, 14], 16),
    "the first by a number": (lambda x: different(x[:, :3], x[:, 3:]), [0, 5, 9, 15], 13),
    "the last by a number": (lambda x: different(x[:, :-3], x[:, -3:]), [0, 5, 9, 15], 13),
    "some in between": (lambda x: different(x[:, 2:5], x[:, 5:]), [0, 5, 9, 15], 13),
    "one gate": (lambda x: (-x[:, 1:]).relu() * x[:, :1].sigmoid(), [5, 9, 15], 13),
    "a dead gate": (lambda x: x[:, 1:] * x[:, 0].unsqueeze(1), [0, 5, 9, 15], 13),
    "the last one": (lambda x: x[:, :-1] + x[:, -1].unsqueeze(1), [0, 5, 9, 15], 13),
    "a third by the width": (lambda x: different(x[:, : x.shape[1] // 3], x[:, x.shape[1] // 3 :]), [0, 5, 9, 15], 16),
    "the middle by the width": (lambda x: x[:, x.shape[1] // 2].unsqueeze(1) + x, [9, 15], 16),
    "a part of the even ones, the others for nothing": (
        lambda x: different(x[:, ::2][:, :3], x[:, 1::2]),
        [0, 2, 3, 7, 9],
        10,
    ),
}


@pytest.mark.parametrize("name", DIVIDED)
def test_parts_lose_channels_where_the_code_follows(name):
    code, dead, expected = DIVIDED[name]
    assert left(code, dead) == expected


@pytest.mark.parametrize("name", DIVIDED)
@pytest.mark.parametrize("dead", [list(range(16)), list(range(8)), list(range(0, 16, 2)), list(range(1, 16))])
def test_parts_that_are_all_dead_stay_exact(name, dead):
    left(DIVIDED[name][0], dead)


MOVED: dict[str, Code] = {
    "rolled copies": lambda x: torch.cat([x, 0.5 * x + 0.1], 1).roll(4, 1),
    "what is left of a sum, by position": lambda x: different(*(x * x.sum(1, keepdim=True)).split([4, 12], 1)),
    "unit length, by halves": lambda x: different(*functional.normalize(x, dim=1, eps=0.1).split(8, 1)),
    "turned and taken": lambda x: different(x.flip(1)[:, :5], x.flip(1)[:, 5:]),
}


@pytest.mark.parametrize("name", MOVED)
@pytest.mark.parametrize("dead", [[0, 2, 3, 6], [1, 9, 14], list(range(15)), list(range(8))])
def test_copies_of_a_channel_are_distinguished_wherever_they_are_moved(name, dead):
    left(lambda x: MOVED[name](x.relu()), dead, beta=-0.4)
    left(MOVED[name], dead)


def test_what_is_taken_by_position_is_kept_with_a_reason():
    slimmed = slim(around(lambda x: different(x[:, :1], x[:, 1:]), [0, 5]), planes())
    assert "taken by position at slice in the network itself (test_surgery_split_axes.py:" in reasons(slimmed)


def test_two_divisions_of_the_same_channels_that_disagree_stay_exact():
    """Halves first, every other one next: no order of what is left suits both, unless it takes from all quarters."""

    def code(x: torch.Tensor) -> torch.Tensor:
        return different(*x.chunk(2, 1), x[:, ::2], x[:, 1::2])

    assert left(code, [0, 1, 8, 9]) in (12, 16)
    left(code, [0, 1, 2, 11])


def test_channels_change_places_in_a_layer_and_in_what_else_is_cut_with_it():
    """Dead even channels come first, so that what is left stands in another order: shortcut, scale, reader."""
    model = wired(
        lambda m, x: m.last(m.code(m.norm(m.first(x)) + m.other(x) * m.scale)),
        first=nn.Conv2d(2, 8, 3),
        norm=norm(8, [0, 2, 5, 7], 0.4),
        other=nn.Sequential(nn.Conv2d(2, 8, 3), norm(8, [0, 2, 5, 7], 0.0)),
        last=nn.Conv2d(8, 3, 1),
    )
    model.scale = nn.Parameter(torch.randn(8, 1, 1, dtype=torch.float64))
    model.code = lambda x: different(x[:, ::2], x[:, 1::2])
    slimmed = slim(model, planes())
    assert torch.equal(slimmed.model.scale, model.scale[[4, 1, 6, 3]])
