"""The surgery on channels that are divided in several ways at once: grouped convolutions around channel shuffles.

Oracles: the dense network for what is computed, and for how much must go a search over all widths that repeats the
shuffle on plain numbers. Dead channels are drawn at random, so that every cell has another number of them.
"""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from wiring import norm, planes, slim, wired

Move = Callable[[torch.Tensor], torch.Tensor]
Divisions = Sequence[Sequence[int]]


def shuffled(groups: int) -> Move:
    """ShuffleNet's own shuffle: the channels of all groups in turn."""

    def move(x: torch.Tensor) -> torch.Tensor:
        count, channels, *plane = x.shape
        return x.view(count, groups, channels // groups, *plane).transpose(1, 2).reshape(count, channels, *plane)

    return move


def places(move: Move, channels: int) -> list[int]:
    """Which channel stands where after some code."""
    return move(torch.arange(channels).view(1, channels, 1, 1)).flatten().tolist()


def cells(divisions: Divisions, moves: Sequence[Move], channels: int) -> list[tuple[int, ...]]:
    """For each channel its part in every division, by convolutions and views, before and after each move."""
    order = list(range(channels))
    found: list[list[int]] = [[] for _ in order]
    for place, numbers in enumerate(divisions):
        for position, channel in enumerate(order):
            found[channel] += [position * parts // channels for parts in numbers]
        if place < len(moves):
            order = [order[position] for position in places(moves[place], channels)]
    return [tuple(each) for each in found]


def most(divisions: Divisions, moves: Sequence[Move], dead: list[bool]) -> int:
    """How many dead channels can go: the narrowest width whose cells, in turn, the channels that stay can be."""
    channels = len(dead)
    step = math.lcm(*(parts for numbers in divisions for parts in numbers))
    before = cells(divisions, moves, channels)
    widths = range(step, channels + 1, step)
    return channels - next(width for width in widths if can_stay(before, dead, cells(divisions, moves, width)))


def can_stay(before: list[tuple[int, ...]], dead: list[bool], after: list[tuple[int, ...]]) -> bool:
    """Whether all live channels and some dead ones, in their order, stand in these cells."""
    reached = {0}
    for cell, is_dead in zip(before, dead, strict=True):
        taken = {place + 1 for place in reached if place < len(after) and after[place] == cell}
        reached = taken | (reached if is_dead else set())
    return len(after) in reached


def grouped(groups: Sequence[int], moves: Sequence[Move], dead: list[bool]) -> nn.Module:
    """A grouped convolution with a BatchNorm; then a move and a depthwise convolution, again and again, a grouped one.

    All grouped convolutions divide the same channels.
    """
    channels = len(dead)
    layers: list[nn.Module] = [nn.Conv2d(channels, channels, 1, groups=channels, padding=0) for _ in moves]
    model = wired(
        forward_through(len(moves)),
        stem=nn.Conv2d(2, 4 * groups[0], 3),
        first=nn.Conv2d(4 * groups[0], channels, 1, groups=groups[0]),
        norm=norm(channels, [place for place, is_dead in enumerate(dead) if is_dead], 0.4),
        between=nn.ModuleList(layers),
        last=nn.Conv2d(channels, 2 * groups[-1], 1, groups=groups[-1]),
        head=nn.Conv2d(2 * groups[-1], 3, 1),
    )
    model.moves = moves
    return model


def forward_through(count: int) -> Callable[[nn.Module, torch.Tensor], torch.Tensor]:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = m.norm(m.first(m.stem(x)))
        for place in range(count):
            x = m.between[place](m.moves[place](x)).relu()
        return m.head(m.last(x))

    return forward


def drawn(channels: int, density: float, seed: int = 0) -> list[bool]:
    return (torch.rand(channels, generator=torch.Generator().manual_seed(seed)) < density).tolist()


def removed(model: nn.Module) -> int:
    return model.norm.num_features - slim(model, planes()).model.norm.num_features


SHUFFLES = [(2, 36), (2, 64), (4, 64), (4, 128), (3, 36), (3, 60), (3, 90), (6, 72), (8, 192)]


@pytest.mark.parametrize("density", [0.5, 0.7, 0.9])
@pytest.mark.parametrize(("groups", "channels"), SHUFFLES)
def test_a_shuffle_between_groups_lets_as_many_channels_go_as_any_width_allows(groups, channels, density):
    torch.manual_seed(0)
    dead = drawn(channels, density)
    both, move = [[groups], [groups]], shuffled(groups)
    found = removed(grouped((groups, groups), [move], dead))
    assert found == most(both, [move], dead)
    own = cells(both, [move], channels)
    least = min(sum(d for d, cell in zip(dead, own, strict=True) if cell == each) for each in set(own))
    if channels % groups**2 == 0:
        assert found >= groups**2 * min(least, channels // groups**2 - 1)


MOVES: dict[str, tuple[tuple[int, int], list[Move], Divisions, int]] = {
    "torch's own shuffle": ((4, 4), [lambda x: functional.channel_shuffle(x, 4)], [[4], [4]], 64),
    "two shuffles in turn": ((2, 2), [shuffled(2), shuffled(2)], [[2], [2], [2]], 64),
    "shuffles of three and two": ((3, 2), [shuffled(3), shuffled(2)], [[3], [2], [2]], 72),
    "shuffled by six for groups of two": ((2, 2), [shuffled(6)], [[2, 6], [2]], 72),
    "groups within groups": ((4, 2), [lambda x: x], [[4], [2]], 64),
    "groups of two and of three": ((2, 3), [lambda x: x], [[2], [3]], 72),
}
"""Groups of the first and the last convolution, what is in between, and all that divides the channels on the way."""


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("density", [0.5, 0.8])
def test_channels_go_however_grouped_convolutions_and_shuffles_follow_each_other(name, density):
    torch.manual_seed(0)
    groups, moves, divisions, channels = MOVES[name]
    dead = drawn(channels, density)
    found = removed(grouped(groups, moves, dead))
    assert 0 < found == most(divisions, moves, dead)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(
    groups=st.sampled_from([2, 3, 4, 6]),
    size=st.integers(2, 12),
    density=st.floats(0.2, 0.95),
    seed=st.integers(0, 10_000),
)
def test_whatever_the_width_of_a_shuffle_as_many_go_as_can(groups, size, density, seed):
    torch.manual_seed(seed)
    dead = drawn(groups * size, density, seed)
    both, move = [[groups], [groups]], shuffled(groups)
    assert removed(grouped((groups, groups), [move], dead)) == most(both, [move], dead)
