"""Tensors that do not depend on the input: grids, sizes, and what stands beside channels."""

import re

import pytest
import torch
from torch import nn

import slimnet

EXACT = 1e-12


def check(net: nn.Module, removed: int) -> None:
    """The slim network computes what the dense one does, with this many channels fewer."""
    net, x = net.double().eval(), torch.randn(2, 3, 12, 12).double()
    slimmed = slimnet.slim(net, x)
    with torch.no_grad():
        expected = net(x)
        assert float((slimmed.model(x) - expected).abs().max() / expected.abs().max()) < EXACT
    assert slimmed.plan.removed_channels == removed


class Head(nn.Module):
    """A convolution with four dead channels, and a head that reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)
        self.bn.weight.data[::2] = 0

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.bn(self.conv(x))))


class Grid(Head):
    """One row of a transposed grid, which is not stored side by side."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.features(x)
        rows, columns = torch.arange(y.shape[2]), torch.arange(y.shape[3])
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).view(-1, 2).transpose(0, 1)
        return y.flatten(2) + grid[0]


class Sizes(Head):
    """Sizes written into a tensor one by one, then computed with and compared."""

    def __init__(self, made: str):
        super().__init__()
        self.made = made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.features(x)
        sizes = getattr(torch, self.made)((2, 2), dtype=torch.long)
        sizes[0, 0], sizes[0, 1] = y.shape[2], y.shape[3]
        sizes[1] = torch.tensor([2, 3])
        sizes[:, 1] += 1
        if (sizes[:, 0] * sizes[:, 1]).sum() != 118 or sizes[1, 1] != 4:
            raise ValueError("sizes do not fit")
        return y * sizes[0, 0]


class Listed(Head):
    """Sizes in a tensor, read as a list."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.features(x)
        sizes = torch.tensor([list(y.shape[2:]), [1, 1]])
        (rows, columns), ones = (sizes * 2).tolist()
        start = sizes.prod(1).cumsum(0).tolist()
        return (y + start[1]).flatten(2)[..., : rows * columns // 8] * ones[0]


class ListedChannels(Head):
    """Values of channels, read as a list."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.features(x)
        return y * sum(y.mean((0, 2, 3)).tolist())


class Maxout(nn.Module):
    """The larger of two channels."""

    def __init__(self, stacked: bool):
        super().__init__()
        self.stacked = stacked
        self.a, self.p, self.b, self.q = (
            nn.Conv2d(3, 16, 3),
            nn.BatchNorm2d(16),
            nn.Conv2d(3, 16, 3),
            nn.BatchNorm2d(16),
        )
        self.c = nn.Conv2d(16, 4, 3)
        for norm in (self.p, self.q):
            norm.weight.data[:8] = 0
            nn.init.normal_(norm.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.p(self.a(x)), self.q(self.b(x))
        y = torch.stack([a, b], 4) if self.stacked else torch.cat((a.unsqueeze(4), b.unsqueeze(4)), 4)
        return self.c(torch.max(y, 4)[0])


class Chunked(nn.Module):
    """Halves by an op that gives no views."""

    def __init__(self, how: str):
        super().__init__()
        self.how = how
        self.conv, self.bn, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(4, 4, 1)
        self.bn.weight.data[[0, 1, 4, 5]] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn(self.conv(x)))
        left, right = torch.unsafe_chunk(y, 2, 1) if self.how == "chunk" else torch.unsafe_split(y, y.shape[1] // 2, 1)
        return self.head(left + right)


class Unpooled(nn.Module):
    """SegNet's way up: planes filled at the positions of an earlier maximum."""

    def __init__(self, gamma: float):
        super().__init__()
        self.a, self.b, self.c, self.o = block(3, 16), block(16, 16), block(16, 12), nn.Conv2d(12, 3, 1)
        for each in (self.a, self.b, self.c):
            nn.init.normal_(each[1].bias)
        self.a[1].weight.data[:8], self.a[1].bias.data[:8], self.c[1].weight.data[:6] = gamma, 0.5, gamma
        self.p, self.u = nn.MaxPool2d(2, 2, return_indices=True), nn.MaxUnpool2d(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, positions = self.p(self.a(x))
        return self.o(self.c(self.u(self.b(y), positions)))


def block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def test_a_row_of_a_transposed_grid_stops_nothing() -> None:
    check(Grid(), 4)


@pytest.mark.parametrize("made", ["empty", "zeros", "ones"])
def test_sizes_written_one_by_one_are_known(made: str) -> None:
    check(Sizes(made), 4)


def test_sizes_in_a_tensor_can_be_read_as_a_list() -> None:
    check(Listed(), 4)


def test_what_depends_on_the_input_is_no_list() -> None:
    """What is computed from there on is not followed."""
    plan = slimnet.slim(ListedChannels().eval(), torch.randn(2, 3, 12, 12)).plan
    assert re.fullmatch(r"item in .*:\d+\)", plan.stop.place)
    assert "tolist" not in vars(torch.Tensor)
    assert torch.arange(3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("stacked", [False, True])
def test_the_larger_of_two_constants_is_constant(stacked: bool) -> None:
    check(Maxout(stacked), 16)


@pytest.mark.parametrize("how", ["chunk", "split"])
def test_halves_that_are_no_views_go_as_others_do(how: str) -> None:
    check(Chunked(how), 4)


def test_what_is_filled_by_positions_varies_and_what_follows_it_goes() -> None:
    check(Unpooled(0.0), 6)
