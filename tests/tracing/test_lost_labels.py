"""No channel that the network uses is cut because its label was lost on the way."""

import numpy as np
import pytest
import torch
from torch import nn

import slimnet
from slimnet.modules.example_inputs import Inputs
from slimnet.pipeline import plan_and_apply
from slimnet.planning.dead_channels import dead_by_scale
from slimnet.tracing.accounting import whole
from slimnet.tracing.ops.registry import OPS
from slimnet.tracing.trace import trace

EXACT = 1e-12


def relative(left: torch.Tensor, right: torch.Tensor) -> float:
    with torch.no_grad():
        return float((left - right).abs().max() / right.abs().max())


class HeatMap(nn.Module):
    """One channel that meets a table with two axes."""

    def __init__(self, learned: bool):
        super().__init__()
        self.conv, self.bn, self.heat = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 1, 1)
        window = torch.rand(6, 6)
        self.window = nn.Parameter(window) if learned else nn.Buffer(window)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.heat(torch.relu(self.bn(self.conv(x)))) * self.window


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("dead", [0, 4])
def test_one_channel_that_meets_a_table_is_read(learned: bool, dead: int) -> None:
    net, x = HeatMap(learned).double().eval(), torch.randn(2, 3, 8, 8).double()
    net.bn.weight.data[:dead] = 0
    slimmed = slimnet.slim(net, x)
    assert slimmed.plan.removed_channels == dead
    assert relative(slimmed.model(x), net(x)) < EXACT


class Embedding(nn.Module):
    """Features in evaluation, of which training makes logits."""

    def __init__(self, dead_logits: bool):
        super().__init__()
        self.a, self.n = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.fc, self.m, self.classifier = nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)
        self.last = nn.BatchNorm1d(10)
        if dead_logits:
            nn.init.zeros_(self.last.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v = torch.relu(self.m(self.fc(torch.relu(self.n(self.a(x))).mean((2, 3)))))
        return self.last(self.classifier(v)) if self.training else v


@pytest.mark.parametrize("dead_logits", [False, True])
def test_what_evaluation_returns_stays_where_training_returns_something_else(dead_logits: bool) -> None:
    net, x = Embedding(dead_logits).double().eval(), torch.randn(2, 3, 8, 8).double()
    net.n.weight.data[::2] = 0
    net.m.weight.data[::2], net.m.bias.data[::2] = 0, 0
    net.m.bias.data[1::2] = 2.0  # or the ReLU may give nothing but zeros, of which there is no relative difference
    slimmed = slimnet.slim(net, x)
    assert slimmed.model.n.num_features == 8
    assert slimmed.model.m.num_features == 8
    assert slimmed.plan.removed_channels == 8
    assert relative(slimmed.model(x), net(x)) < EXACT
    assert slimmed.model.train()(x).shape == (2, 10)


def test_what_only_evaluation_computes_costs_as_much_as_without_training() -> None:
    net, x = Embedding(False).eval(), torch.randn(2, 3, 8, 8)
    assert trace(net, x).macs == 16 * 27 * 36 + 16 * 8


class TwoWeights(nn.Module):
    """Values with channels on two axes after a table that comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 1)
        self.first, self.second = nn.Parameter(torch.rand(6, 6, 6)), nn.Parameter(torch.rand(6, 6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(torch.relu(self.n(self.a(x))))
        return self.second * (self.first * y)


def test_what_a_table_meets_second_is_read_as_well() -> None:
    net, x = TwoWeights().double().eval(), torch.randn(2, 3, 6, 6).double()
    net.n.weight.data[:3] = 0
    slimmed = slimnet.slim(net, x)
    assert slimmed.plan.removed_channels == 3
    assert relative(slimmed.model(x), net(x)) < EXACT


@pytest.mark.parametrize("op", ["relu", "convolution", "mean", "view"])
def test_a_handler_that_loses_labels_keeps_their_channels(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPS, op, OPS[op]._replace(handler=lambda recorder, call: None))
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8),
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))  # fmt: skip
    net, x = net.double().eval(), torch.randn(2, 3, 8, 8).double()
    net[4].weight.data[:4] = 0
    slimmed = slimnet.slim(net, x)
    assert relative(slimmed.model(x), net(x)) < EXACT
    kinds = {kept.kind for kept in slimmed.plan.kept}
    assert kinds == ({"not_followed"} if op in ("mean", "view") else set())


class Halves(nn.Module):
    """Two halves of a plane, written by way of views that were made before."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b, self.m = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)
        self.o = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = torch.relu(self.n(self.a(x))), torch.relu(self.m(self.b(x)))
        both = x.new_zeros(x.shape[0], a.shape[1], 8, 8)
        left, right = both[..., :4], both[..., 4:]
        left.copy_(a[..., :4])
        right.copy_(b[..., 4:])
        return self.o(both)


@pytest.mark.parametrize("dead", [0, 3])
@torch.no_grad()
def test_what_is_written_by_way_of_several_views_is_read(dead: int) -> None:
    net, x = Halves().double().eval(), torch.randn(2, 3, 8, 8).double()
    net.n.weight.data[:dead] = 0
    net.m.weight.data[:dead] = 0
    slimmed = slimnet.slim(net, x)
    assert relative(slimmed.model(x), net(x)) < EXACT


class Written(nn.Module):
    """Channels of one layer, some of which are written elsewhere among them."""

    def __init__(self, how: str):
        super().__init__()
        self.how = how
        self.a, self.n = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.o = nn.Conv2d(8 if how == "twice" else 4, 3, 3, padding=1)
        self.table = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.n(self.a(x))
        y = x.clone()
        if self.how == "swap":
            y[:, 0], y[:, -1] = x[:, -1], x[:, 0]
        elif self.how == "views":
            first, last = y[:, 0], y[:, 3]
            first.copy_(x[:, 3])
            last.copy_(x[:, 1])
            y = y + first.unsqueeze(1)
        elif self.how == "nothing":
            y[:, :0].add_(1)
        else:
            y = x.repeat(1, 2, 1, 1)
            y[:, :].mul_(self.table)
        return self.o(y)


@pytest.mark.parametrize("how", ["swap", "views", "twice", "nothing"])
@pytest.mark.parametrize("dead", [[0, 2, 3], [1, 2]])
@torch.no_grad()
def test_a_channel_that_stands_at_several_places_is_renewed_only_where_it_was_written(
    dead: list[int], how: str
) -> None:
    net, x = Written(how).double().eval(), torch.randn(2, 3, 8, 8).double()
    net.n.weight.data[dead] = 0
    net.n.bias.data.normal_()
    graph = trace(net, x)
    narrow, _ = plan_and_apply(net, Inputs.of(x), lambda _: dead_by_scale(graph, 1e-3))
    assert relative(narrow(x), net(x)) < EXACT


class Moved(nn.Module):
    """Channels of which elements move into the planes of others, or over each other."""

    def __init__(self, how: str):
        super().__init__()
        self.how = how
        self.a, self.n, self.o = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 36, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.n(self.a(x))
        if self.how == "rolled":
            x = x.roll(5)
        elif self.how == "rolled flat":
            x = x.flatten(1).roll(5, 1)
        elif self.how == "over itself":
            x[:, 1:].copy_(x[:, :-1])
        elif self.how == "turned in place":
            x = x.contiguous().transpose(0, 1)[:, :, :, :3].transpose_(2, 3).transpose_(0, 1)
            x = torch.cat([x, x], 2)
        return self.o(x.flatten(1))


@pytest.mark.parametrize("how", ["rolled", "rolled flat", "over itself", "turned in place"])
@pytest.mark.parametrize("dead", [[0, 2, 3], [0, 2], [1, 2, 3]])
@torch.no_grad()
def test_elements_that_move_into_other_channels_keep_both(how: str, dead: list[int]) -> None:
    net, x = Moved(how).double().eval(), torch.randn(2, 3, 8, 8).double()
    net.n.weight.data[dead] = 0
    net.n.bias.data.normal_()
    graph = trace(net, x)
    narrow, _ = plan_and_apply(net, Inputs.of(x), lambda _: dead_by_scale(graph, 1e-3))
    assert relative(narrow(x), net(x)) < EXACT


@pytest.mark.parametrize(
    "view",
    [
        lambda base: base,
        lambda base: base.reshape(4, 6),
        lambda base: base.reshape(4, 6).T,
        lambda base: base.reshape(2, 3, 4).transpose(2, 1, 0),
        lambda base: base[::-1],
        lambda base: base[:12],
        lambda base: base[::2],
        lambda base: base.reshape(4, 6)[:, :3],
        lambda base: np.broadcast_to(base[:1], 24),
        lambda base: np.lib.stride_tricks.as_strided(base, (24,), (0,)),
        lambda base: np.lib.stride_tricks.as_strided(base, (4, 6), (8, 8)),
        lambda base: base[np.arange(24)[::-1]],
    ],
    ids=["itself", "reshaped", "turned", "permuted", "backwards", "first half", "every second", "columns", "broadcast",
         "one often", "overlapping", "copied"],
)  # fmt: skip
def test_a_view_stands_for_its_array_only_where_it_shows_all_of_it(view):
    """Oracle: the labels themselves."""
    base = np.arange(100, 124)
    shown = view(base)
    found = whole(shown)
    assert set(found.ravel()) == set(shown.ravel())
