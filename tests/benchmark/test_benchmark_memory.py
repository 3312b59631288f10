"""Peak activation memory against sums made by hand."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from slimnet.benchmark import peak_memory
from slimnet.modules.example_inputs import Inputs

FLOAT = 4
MAP = 3 * 8 * 8 * FLOAT
"""Bytes of one image `(3, 8, 8)` and of every feature map as large."""


class Branches(nn.Module):
    """The input is kept for an addition at the end."""

    def forward(self, x):
        return functional.relu(functional.relu(x + 1) * 2) + x


class Views(nn.Module):
    """Nothing here makes memory."""

    def forward(self, x):
        return x.flatten(1)[:, :5].t()


class Widening(nn.Module):
    """Ten maps at once, and in the end only one."""

    def forward(self, x):
        return torch.cat([x] * 10, 1).sum(1)


@pytest.mark.parametrize(
    ("model", "maps"),
    [
        pytest.param(nn.Identity(), 1, id="the input alone"),
        pytest.param(Views(), 1, id="views"),
        pytest.param(nn.ReLU(), 2, id="input and output"),
        pytest.param(nn.ReLU(inplace=True), 1, id="in place"),
        pytest.param(nn.Sequential(*[nn.ReLU() for _ in range(5)]), 3, id="the input and two of a chain"),
        pytest.param(nn.Conv2d(3, 3, 3, padding=1), 2, id="weights are not counted"),
        pytest.param(Branches(), 3, id="a kept input"),
        pytest.param(Widening(), 11 + 1 / 3, id="a wide middle"),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_peak_is_what_is_alive_at_once(model, maps, batch):
    """Oracle: counted by hand, in feature maps of the input's size."""
    inputs = Inputs.of(torch.randn(batch, 3, 8, 8))
    assert peak_memory(model, inputs) == pytest.approx(maps * batch * MAP)


def test_a_slim_network_needs_less():
    """Oracle: the widest pair of neighbours, by hand."""
    wide, narrow = (
        nn.Sequential(nn.Conv2d(3, width, 1), nn.Conv2d(width, width, 1), nn.Conv2d(width, 3, 1)) for width in (30, 12)
    )
    inputs = Inputs.of(torch.randn(2, 3, 8, 8))
    ratio = {width: 2 * MAP * (1 + 2 * width / 3) for width in (30, 12)}
    assert peak_memory(wide, inputs) == ratio[30]
    assert peak_memory(narrow, inputs) == ratio[12]


def test_it_leaves_the_network_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = copy.deepcopy(model.state_dict())
    peak_memory(model, Inputs.of(torch.randn(2, 3, 8, 8)))
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
