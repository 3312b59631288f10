"""Tables with strides, parts cut by the unsafe ops, and maxima over tensors joined along a new axis."""

import pytest
import torch
from torch import nn

import slimnet


class Network(nn.Module):
    """Half of the channels of `norm` may be dead; `between` comes before the last layer, and `after` behind it."""

    def __init__(self, between=nn.Identity(), width: int = 8, after=nn.Identity()) -> None:  # noqa: B008
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(width, 4, 1)
        self.between, self.after = between, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.last(self.between(torch.relu(self.norm(self.conv(x))))))


def offset(y: torch.Tensor) -> torch.Tensor:
    """One coordinate of a grid, which lies in memory with every other number in between."""
    rows = torch.stack(torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij"), -1).view(-1, 2)
    return y.flatten(2) + rows.transpose(0, 1)[0]


def halves(y: torch.Tensor) -> torch.Tensor:
    first, second = torch.unsafe_chunk(y, 2, 1)
    return first + second


NETWORKS = {"a strided table": {"after": offset}, "unsafe_chunk": {"between": halves, "width": 4}}


@pytest.mark.parametrize("what", NETWORKS)
@pytest.mark.parametrize("dead", [0, 2])
def test_they_are_followed(what, dead):
    """Channels that are dead in both halves go: two of each, or as many of the whole."""
    torch.manual_seed(0)
    network, x = Network(**NETWORKS[what]).double().eval(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for half in (0, 4):
        network.norm.weight.data[half : half + dead] = 0
    slimmed = slimnet.slim(network, x)
    assert slimmed.plan.removed_channels == 2 * dead
    torch.testing.assert_close(slimmed.model(x), network(x), rtol=1e-12, atol=1e-12)


class Competing(nn.Module):
    """FastSurfer's competitive block: the maximum of two tensors that are joined along a new axis."""

    def __init__(self, join) -> None:
        super().__init__()
        self.first, self.one = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.second, self.other = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.join, self.last = join, nn.Conv2d(16, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.max(self.join(self.one(self.first(x)), self.other(self.second(x))), 4)[0])


JOINS = {
    "stack": lambda a, b: torch.stack([a, b], 4),
    "cat": lambda a, b: torch.cat((a.unsqueeze(4), b.unsqueeze(4)), 4),
}


@pytest.mark.parametrize("join", JOINS.values(), ids=JOINS)
def test_the_maximum_of_two_constants_is_one_however_they_were_joined(join):
    torch.manual_seed(0)
    network, x = Competing(join).double().eval(), torch.randn(2, 3, 12, 12, dtype=torch.float64)
    for norm in (network.one, network.other):
        norm.weight.data[:8] = 0
        norm.bias.data.normal_()
    slimmed = slimnet.slim(network, x)
    assert slimmed.plan.removed_channels == 16
    torch.testing.assert_close(slimmed.model(x), network(x), rtol=1e-12, atol=1e-12)
