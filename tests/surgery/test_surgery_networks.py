"""The surgery on pieces of networks as people publish them, on inputs of other sizes than the plan was made with.

Oracle: the dense network, whose dead γ are exactly 0.
"""

import copy
from collections.abc import Callable

import pytest
import torch
from masking import difference, outputs
from torch import nn
from torch.nn import functional
from wiring import EXACT, double, norm, planes, slim, wired

import slimnet


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def slim_and_compare(model: nn.Module, *inputs: torch.Tensor, fresh: torch.Tensor) -> slimnet.Slimmed:
    """Slim a network on some inputs, and compare it with the dense one on others as well."""
    slimmed = slim(model, *inputs)
    assert difference(outputs(model, [fresh]), outputs(slimmed.model, [fresh])) < EXACT
    return slimmed


def meet(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A U-Net's skip connection: what was made smaller and larger again is padded until it fits."""
    skip = m.norm(m.first(x)).relu()
    deep = m.up(m.deep_norm(m.deep(functional.max_pool2d(skip, 2))).relu())
    rows, columns = skip.size(2) - deep.size(2), skip.size(3) - deep.size(3)
    deep = functional.pad(deep, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
    return m.last(torch.cat([skip, deep], 1))


@pytest.mark.parametrize("side", [8, 11])
def test_a_padding_computed_from_the_sizes_may_be_another_for_other_inputs(side):
    """At 8 pixels it is none at all, at 11 one row and column: what is behind it is no constant, unless it is 0."""
    model = wired(
        meet,
        first=nn.Conv2d(2, 8, 3, padding=1),
        norm=norm(8, [1, 2], 0.6),
        deep=nn.Conv2d(8, 8, 3, padding=1),
        deep_norm=nn.Sequential(norm(8, [0, 3, 5], 0.6), norm(8, [0, 3], -0.6)),
        up=nn.Upsample(scale_factor=2),
        last=nn.Conv2d(16, 3, 1),
    )
    slimmed = slim_and_compare(model, planes(side=side), fresh=planes(side=19 - side))
    assert slimmed.model.deep.out_channels == 6


@pytest.mark.parametrize("beta", [0.6, -0.6])
def test_a_sum_over_planes_is_as_large_as_they_are(beta):
    """Only zeros go from it; of a mean, whatever the input's size, all dead channels do."""
    code = {"sum": 8 if beta > 0 else 5, "mean": 5}
    for name, left in code.items():
        model = wired(
            lambda m, x, name=name: m.last(getattr(m.norm(m.first(x)).relu(), name)((2, 3))),
            first=nn.Conv2d(2, 8, 3),
            norm=norm(8, [1, 2, 6], beta),
            last=nn.Linear(8, 3),
        )
        assert slim_and_compare(model, planes(), fresh=planes(side=9)).model.first.out_channels == left


class Anchored(nn.Module):
    """The head of a detector: boxes at each position, in the sizes of a table that is taken row by row."""

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("anchors", torch.rand(2, 3, 2))
        self.layers = nn.ModuleList(nn.Conv2d(width, 3 * 4, 1) for _ in range(2))

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        found = []
        for level, (layer, x) in enumerate(zip(self.layers, maps, strict=True)):
            n, _, rows, columns = x.shape
            y = layer(x).view(n, 3, 4, rows, columns).permute(0, 1, 3, 4, 2).sigmoid()
            places, sizes = y.split((2, 2), 4)
            sizes = (2 * sizes) ** 2 * self.anchors[level].view(1, 3, 1, 1, 2)
            found.append(torch.cat((places, sizes), 4).view(n, -1, 4))
        return found


def pyramid(x: torch.Tensor) -> torch.Tensor:
    """Pooled once and twice, side by side: where one channel is left, three times the same one."""
    once = functional.max_pool2d(x, 3, 1, 1)
    return torch.cat([x, once, functional.max_pool2d(once, 3, 1, 1)], 1)


def test_a_detector_whose_layers_keep_one_channel_is_cut_beside_its_table_of_anchors():
    """The table's last row is taken by its number; layers with one channel left hold nothing else up."""
    model = wired(
        lambda m, x: m.head([(y := m.norm(m.first(x)).relu()), m.pooled(pyramid(m.deep_norm(m.deep(y)).relu()))]),
        first=nn.Conv2d(2, 4, 3),
        norm=norm(4, [0, 1, 2], -0.5),
        deep=nn.Conv2d(4, 6, 3, padding=1),
        deep_norm=norm(6, [0, 1, 2, 4, 5], -0.5),
        pooled=nn.Conv2d(18, 6, 1),
        head=Anchored(4),
    )
    model.head.layers[1] = double(nn.Conv2d(6, 12, 1))
    slimmed = slim_and_compare(model, planes(), fresh=planes(side=9))
    assert [slimmed.model.first.out_channels, slimmed.model.deep.out_channels] == [1, 1]
    assert slimmed.model.head.anchors.shape == (2, 3, 2)


def coordinates(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Coordinate attention: means of rows and of columns go through a narrow layer side by side."""
    rows, columns = x.shape[2:]
    both = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)], 2)
    of_rows, of_columns = m.narrow(both).split([rows, columns], 2)
    return x * m.by_row(of_rows).sigmoid() * m.by_column(of_columns.transpose(2, 3)).sigmoid()


def one_gate(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Attention with a gate for each position beside one for each channel, as in BAM."""
    channels = m.by_row(m.narrow(x.mean((2, 3), keepdim=True))).expand_as(x)
    return x * (1 + (channels * m.gate(x).expand_as(x)).sigmoid())


def experts(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Each expert's channels times its share, which the code takes by number."""
    shares = m.shares(x.mean((2, 3))).sigmoid()
    return m.after(sum(shares[:, place, None, None, None] * m.by_row(m.narrow(x)) for place in range(2))).relu()


@pytest.mark.parametrize("attention", [coordinates, one_gate, experts])
def test_attention_over_what_is_left_with_one_channel_holds_nothing_up(attention: Callable[..., torch.Tensor]):
    """One channel would be taken for what meets them all: two stay, and all the others go."""
    model = wired(
        lambda m, x: m.last(attention(m, m.norm(m.first(x)).relu())),
        first=nn.Conv2d(2, 8, 3),
        norm=norm(8, [0, 1, 2, 4, 5, 6, 7], -0.5),
        narrow=nn.Sequential(nn.Conv2d(8, 4, 1), norm(4, [0, 1, 3], -0.5), nn.ReLU()),
        by_row=nn.Conv2d(4, 8, 1),
        by_column=nn.Conv2d(4, 8, 1),
        gate=nn.Conv2d(8, 1, 1),
        shares=nn.Linear(8, 2),
        after=norm(8, [0, 1, 3, 4, 5, 6, 7], -0.5),
        last=nn.Conv2d(8, 3, 3),
    )
    slimmed = slim_and_compare(model, planes(), fresh=planes(side=9))
    assert slimmed.model.first.out_channels <= 2
    assert slimmed.model.narrow[0].out_channels <= 2


class WithAverage(nn.Module):
    """A network that carries the moving average of itself, which answers in evaluation."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.average = copy.deepcopy(network).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x) if self.training else self.average(x)


def test_the_twin_that_answers_in_evaluation_is_the_one_that_is_cut():
    network = nn.Sequential(nn.Conv2d(2, 8, 3), norm(8, [1, 2, 6], -0.5), nn.ReLU(), nn.Conv2d(8, 3, 1))
    slimmed = slim(double(WithAverage(network)), planes())
    assert slimmed.model.average[0].out_channels == 5
    assert slimmed.model.network[0].out_channels == 8


class Remembers(nn.Module):
    """A head that makes a grid of positions anew where the shape of what it reads has changed, its width included."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(8, 3, 1)
        self.shape: torch.Size | None = None
        self.grid = torch.zeros(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        if self.shape != x.shape:
            self.shape = x.shape
            self.grid = torch.stack(torch.meshgrid(*map(torch.arange, y.shape[2:]), indexing="ij")).to(y)
        return torch.cat([self.grid + y[:, :2], y[:, 2:].sigmoid()], 1)


class Lambda(nn.Module):
    """Attention whose outputs are as many as its inputs, which the code reads off the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, channels, rows, columns = x.shape
        query = self.query(x).reshape(n, -1, rows * columns).transpose(1, 2)
        value = self.value(x).reshape(n, -1, rows * columns).softmax(2)
        return (
            (query @ (query.transpose(1, 2) @ value.transpose(1, 2)))
            .transpose(1, 2)
            .reshape(n, channels, rows, columns)
        )


def around(part: nn.Module) -> nn.Module:
    """A network with dead channels in front of a module, and before them."""
    return wired(
        lambda m, x: m.part(m.norm(m.second(m.first(x))).relu()),
        first=nn.Sequential(nn.Conv2d(2, 8, 3), norm(8, [1, 2, 6], -0.5), nn.ReLU()),
        second=nn.Conv2d(8, 8, 3),
        norm=norm(8, [0, 3], -0.5),
        part=part,
    )


def test_code_that_does_not_follow_holds_up_what_is_around_it_alone():
    """The channels that go into the module stay, those before it go."""
    slimmed = slim_and_compare(around(Lambda()), planes(), fresh=planes(side=9))
    assert [slimmed.model.first[0].out_channels, slimmed.model.second.out_channels] == [5, 8]
    assert all("part" in kept.reason for kept in slimmed.plan.kept)


@pytest.mark.parametrize("seen", [None, 1, 3, 4])
def test_what_a_forward_keeps_for_a_shape_holds_nothing_up(seen: int | None):
    """Whatever number of examples the network saw last: three are those that it is slimmed with."""
    model = around(Remembers())
    if seen is not None:
        model(planes(batch=seen))
    slimmed = slim_and_compare(model, planes(batch=3), fresh=planes(side=9))
    assert [slimmed.model.first[0].out_channels, slimmed.model.second.out_channels] == [5, 6]


class TwoHeads(nn.Module):
    """Both heads run, and a loss reads them both; the network's answer is that of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 8, 3), norm(8, [1, 2, 6], -0.5), nn.ReLU())
        self.answer, self.other = (
            nn.Sequential(nn.Conv2d(8, 6, 3), norm(6, dead, 0.5), nn.ReLU(), nn.Conv2d(6, 4, 1))
            for dead in ([0, 5], [2, 3, 4])
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        features = self.first(x)
        answer, other = self.answer(features), self.other(features)
        return [answer, other] if self.training else answer


def test_a_head_that_only_a_loss_reads_can_go_on_training():
    """Of it goes what is dead, and no more. Oracle: the masked network in training."""
    model = double(TwoHeads())
    slimmed = slim_and_compare(model, planes(), fresh=planes(side=9))
    assert [slimmed.model.answer[0].out_channels, slimmed.model.other[0].out_channels] == [4, 3]
    assert slimmed.model.other[3].out_channels == 4
    x = planes(side=7)
    for expected, found in zip(model.train()(x), slimmed.model.train()(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_channels_of_an_image_beside_those_of_a_layer_are_no_copies_of_each_other():
    """As in ENet, whose first layer is half a convolution and half the image; a decoder puts values back in place."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = m.norm(torch.cat([m.first(x), functional.max_pool2d(x, 2)], 1)).relu()
        smaller, places = functional.max_pool2d(y, 2, return_indices=True)
        return m.last(functional.max_unpool2d(m.inner(smaller), places, 2))

    model = wired(
        forward,
        first=nn.Conv2d(2, 6, 3, stride=2, padding=1),
        norm=norm(8, [0, 1, 4, 6], -0.5),
        inner=nn.Sequential(nn.Conv2d(8, 8, 1), norm(8, [0, 1, 6], -0.5), nn.ReLU()),
        last=nn.Conv2d(8, 3, 1),
    )
    slimmed = slim_and_compare(model, planes(side=8), fresh=planes(side=12))
    assert [slimmed.model.first.out_channels, slimmed.model.norm.num_features] == [4, 6]


@pytest.mark.parametrize("beta", [0.6, -0.6])
def test_what_is_constant_over_time_does_not_deviate_from_its_mean(beta):
    """Statistics pooling, as in x-vectors: the mean and the deviation of each channel."""
    model = wired(
        lambda m, x: m.last(torch.cat([(y := m.norm(m.first(x).relu())).mean(2), y.std(2), y.var(2) + 1], 1)),
        first=nn.Conv1d(2, 8, 3),
        norm=norm(8, [1, 2, 6], beta, nn.BatchNorm1d),
        last=nn.Linear(24, 3),
    )
    slimmed = slim_and_compare(model, planes().flatten(2), fresh=planes(side=9).flatten(2))
    assert slimmed.model.first.out_channels == 5


def test_padded_layers_that_run_on_several_maps_have_one_carrier():
    """As the towers of a detector, or of a Siamese network: every call reads the same constants."""

    def forward(m: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        return [m.last(m.tower(level)) for level in (x, functional.avg_pool2d(x, 2))]

    model = wired(
        forward,
        tower=nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), norm(8, [1, 2, 6], 0.6), nn.ReLU()),
        last=nn.Conv2d(8, 3, 3, padding=1),
    )
    slimmed = slim_and_compare(model, planes(), fresh=planes(side=9))
    assert slimmed.model.tower[0].out_channels == 6


@pytest.mark.parametrize("second", [[0, 1, 2], [0, 1, 4, 5, 6], [2, 3]])
def test_what_is_another_constant_in_another_call_is_neither_carried_nor_carries(second: list[int]):
    """One padded layer reads two maps: a channel that is dead in both goes only where it is the same constant."""
    model = wired(
        lambda m, x: m.last(m.one(m.first(x)).relu()) + m.last(m.two(m.first(x)).relu()),
        first=nn.Conv2d(2, 8, 3),
        one=norm(8, [0, 1, 2, 4, 5, 6], 0.6),
        two=norm(8, second, 0.6),
        last=nn.Conv2d(8, 3, 3, padding=1),
    )
    with torch.no_grad():
        model.two.bias[[1, 4, 5]] = model.one.bias[[1, 4, 5]]
    slimmed = slim_and_compare(model, planes(), fresh=planes(side=9))
    same = [channel for channel in second if model.one.bias[channel] == model.two.bias[channel]]
    assert slimmed.model.first.out_channels == 8 - max(0, len(same) - 1)


def test_the_weights_of_one_module_are_layers_of_their_own():
    """A network of functions and a dictionary of weights, as ONNX converters and meta-learning write them."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = m.one(functional.conv2d(x, m.weights["first"])).relu()
        y = m.two(functional.conv2d(y, m.weights["second"])).relu()
        return functional.linear(y.mean((2, 3)), m.weights["last"])

    model = wired(
        forward,
        weights=nn.ParameterDict(
            {
                "first": nn.Parameter(torch.randn(8, 2, 3, 3)),
                "second": nn.Parameter(torch.randn(6, 8, 3, 3)),
                "last": nn.Parameter(torch.randn(3, 6)),
            }
        ),
        one=norm(8, [1, 2, 6], -0.5),
        two=norm(6, [0, 1], -0.5),
    )
    plan = slim_and_compare(model, planes(), fresh=planes(side=9)).plan
    found = [(layer.name, layer.channels_before, layer.channels_after, layer.dead) for layer in plan.layers]
    assert found == [("weights.first", 8, 5, 3), ("weights.second", 6, 4, 2), ("weights.last", 3, 3, 0)]
    assert plan.macs_after == 5 * 18 * 16 + 4 * 45 * 4 + 3 * 4


def test_a_position_embedding_is_cut_with_the_channels_that_it_is_added_to():
    """Its positions stay; behind a dead BatchNorm neither the channel nor its embedding is read."""

    model = wired(
        lambda m, x: m.last(m.norm(m.first(x) + m.places).relu()),
        first=nn.Conv2d(2, 8, 3),
        norm=norm(8, [1, 2, 6], -0.5),
        last=nn.Conv2d(8, 3, 1),
    )
    model.places = nn.Parameter(torch.randn(1, 8, 4, 4, dtype=torch.float64))
    slimmed = slim(model, planes())
    assert slimmed.model.first.out_channels == 5
    assert torch.equal(slimmed.model.places, model.places[:, [0, 3, 4, 5, 7]])
