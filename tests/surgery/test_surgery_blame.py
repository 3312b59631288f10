"""The surgery on code that does not follow a narrower width: what meets that code stays, all else goes.

Oracle: the dense network, also on inputs of other sizes; and the number of channels that do not meet the code.
"""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from wiring import norm, planes, reasons, slim, wired

import slimnet
from slimnet.planning import make_plan


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Block(nn.Module):
    """A convolution, a BatchNorm of which every other channel is dead, and an activation; perhaps a fixed view."""

    def __init__(self, inputs: int, act: Callable[[int], nn.Module], fixed: bool = False):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(inputs, 16, 3, padding=1), norm(16, range(0, 16, 2), 0.0), act(16)
        self.fixed = fixed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x))
        if self.fixed:
            x = x.view(x.shape[0], 16, *x.shape[2:])
        return self.act(x)


@pytest.mark.parametrize("act", [lambda c: nn.ReLU(), nn.PReLU], ids=["ReLU", "PReLU"])
def test_code_that_does_not_follow_keeps_what_meets_it_and_not_what_the_same_line_touches_elsewhere(act):
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = m.blocks[0](x)
        y = y * (m.scale if y.shape[1] == 16 else m.missing)
        return m.head(m.blocks[1:](y))

    model = wired(
        forward, blocks=nn.Sequential(Block(2, act), *(Block(16, act) for _ in range(4))), head=nn.Conv2d(16, 3, 1)
    )
    model.scale = nn.Parameter(torch.rand(16, 1, 1, dtype=torch.float64))
    assert slim(model, planes()).plan.removed_channels == 32


@pytest.mark.parametrize("count", [2, 9])
def test_a_line_that_does_not_follow_wherever_it_runs_is_found_in_a_few_traces(count, monkeypatch):
    traces = []
    trace_slim = make_plan.trace_slim
    monkeypatch.setattr(make_plan, "trace_slim", lambda *given: traces.append(0) or trace_slim(*given))
    relu = lambda _: nn.ReLU()  # noqa: E731
    fixed = [Block(16, relu, fixed=True) for _ in range(count)]
    model = wired(
        lambda m, x: m.head(m.blocks(x)),
        blocks=nn.Sequential(Block(2, relu), *fixed, Block(16, relu)),
        head=nn.Conv2d(16, 3, 1),
    )
    assert slim(model, planes()).plan.removed_channels == 16
    assert len(traces) <= 4


@pytest.mark.parametrize("times", [1, 2])
def test_a_depthwise_convolution_may_read_one_channel_several_times(times):
    """A convolution along the channel axis returns channels that have no labels of their own."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = m.middle(m.norm(m.stem(x)).relu())
        y = m.along(y.unsqueeze(1)).view(y.shape)
        return m.head(m.last(m.mix(m.deep(y))).relu())

    model = wired(
        forward,
        stem=nn.Conv2d(2, 8, 3),
        norm=norm(8, range(0, 8, 2), 0.0),
        middle=nn.Conv2d(8, 16, 1),
        along=nn.Conv3d(1, 2, (8, 1, 1), stride=(2, 1, 1), padding=(3, 0, 0), bias=False),
        deep=nn.Conv2d(16, 16 * times, 3, padding=1, groups=16),
        mix=nn.Conv2d(16 * times, 16, 1),
        last=norm(16, range(0, 16, 2), 0.0),
        head=nn.Conv2d(16, 3, 1),
    )
    assert slim(model, planes()).plan.removed_channels == 12


def test_repeated_channels_of_a_depthwise_convolution_go_together():
    model = wired(
        lambda m, x: m.head(m.deep(m.norm(m.stem(x)).relu().repeat(1, 2, 1, 1))),
        stem=nn.Conv2d(2, 8, 3),
        norm=norm(8, [0, 2, 3], 0.0),
        deep=nn.Conv2d(16, 16, 3, groups=16),
        head=nn.Conv2d(16, 3, 1),
    )
    assert slim(model, planes()).model.stem.out_channels == 5


UNREAD: dict[str, Callable[[torch.Tensor], object]] = {
    "view": lambda x: x.view(x.shape[0], 4, -1),
    "reshape": lambda x: x.reshape(x.shape[0], 4, -1),
    "unflatten": lambda x: x.flatten(1).unflatten(1, (4, -1)),
    "view in parts": lambda x: x.view(x.shape[0], 2, 2, -1),
    "permuted": lambda x: x.view(x.shape[0], 4, -1).transpose(1, 2).sigmoid(),
}


@pytest.mark.parametrize("name", UNREAD)
@pytest.mark.parametrize("dead", [[0, 2], [0, 1, 2, 4, 6]])
def test_a_branch_that_nothing_reads_runs_on_every_size_that_the_dense_network_takes(name, dead):
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = m.norm(m.stem(x)).relu()
        UNREAD[name](m.unread(y))
        return m.head(y)

    model = wired(
        forward,
        stem=nn.Conv2d(2, 8, 1),
        norm=norm(8, dead, 0.0),
        unread=nn.Conv2d(8, 4, 1),
        head=nn.Conv2d(8, 5, 1),
    )
    slimmed = slim(model, planes(side=8))
    assert slimmed.model.stem.out_channels == 8 - len(dead)
    for side in (7, 9, 12):
        x = planes(side=side)
        torch.testing.assert_close(slimmed.model(x), model(x))


@pytest.mark.parametrize(("fixed", "removed"), [(True, 0), (False, 8)])
def test_a_split_by_numbers_says_so_rather_than_ask_for_equal_parts(fixed, removed):
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = m.norm(m.stem(x)).relu()
        left, right = y.split((8, 8), 1) if fixed else y.chunk(2, 1)
        return m.left(left) + m.right(right)

    model = wired(
        forward,
        stem=nn.Conv2d(2, 16, 3),
        norm=norm(16, [0, 1, 2, 3, 10, 11, 12, 13], 0.0),
        left=nn.Conv2d(8, 3, 3),
        right=nn.Conv2d(8, 3, 3),
    )
    slimmed = slim(model, planes())
    assert slimmed.plan.removed_channels == removed
    assert ("split into parts of fixed sizes at split_with_sizes" in reasons(slimmed)) is fixed
    assert "equal parts" not in reasons(slimmed)


def test_a_network_that_follows_no_narrower_width_is_left_as_it_is():
    model = wired(
        lambda m, x: m.head(m.norm(m.stem(x))) if m.stem.out_channels == 8 else m.missing,
        stem=nn.Conv2d(2, 8, 3),
        norm=norm(8, [0, 2], 0.0),
        head=nn.Conv2d(8, 3, 1),
    )
    slimmed: slimnet.Slimmed = slim(model, planes())
    assert slimmed.plan.removed_channels == 0
    assert "hard-codes a width" in reasons(slimmed)
