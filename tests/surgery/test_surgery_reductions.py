"""The surgery on code that adds channels up: sums, norms, matrix products. Zeros add nothing, and may go.

Oracle: the dense network. Behind a ReLU, dead channels with a negative β are zero.
"""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from wiring import double, norm, planes, reasons, slim, wired

import slimnet

Code = Callable[[torch.Tensor], torch.Tensor]
DEAD = [1, 3, 5, 7, 9, 13]
"""Of sixteen channels, one or two in each of four heads."""


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def slimmed_around(code: Code, beta: float = -0.4, dead: list[int] = DEAD) -> slimnet.Slimmed:
    """Slim a network with some code between sixteen channels and a layer that reads what the code gives."""
    channels = code(torch.ones(1, 16, 4, 4)).shape[1]
    model = wired(
        lambda m, x: m.last(m.code(m.norm(m.first(x)).relu())),
        first=nn.Conv2d(2, 16, 3),
        norm=norm(16, dead, beta),
        last=nn.Conv2d(channels, 3, 1),
    )
    model.code = code
    return slim(model, planes())


def tokens(x: torch.Tensor) -> torch.Tensor:
    """`(N, H · W, C)`."""
    return x.flatten(2).transpose(1, 2)


def as_planes(x: torch.Tensor) -> torch.Tensor:
    """Tokens `(N, 16, C)` as planes `(N, C, 4, 4)`."""
    return x.transpose(1, 2).reshape(x.shape[0], -1, 4, 4)


def heads(x: torch.Tensor, scale: Callable[[torch.Tensor], float]) -> torch.Tensor:
    """Attention of four heads, with the scale that is asked for."""
    t = x.view(x.shape[0], 4, -1, 16).transpose(2, 3)
    shares = (t @ t.transpose(-1, -2) * scale(t)).softmax(-1)
    return (shares @ t).transpose(2, 3).reshape(x.shape)


SUMS: dict[str, tuple[Code, int]] = {
    "a sum": (lambda x: x * x.sum(1, keepdim=True), 10),
    "a sum of all": (lambda x: x * x.sum(), 10),
    "a sum that alone is read": (lambda x: x.sum(1).unsqueeze(1), 10),
    "unit length": (lambda x: functional.normalize(x, dim=1), 10),
    "unit length by hand": (lambda x: x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt(), 10),
    "lengths alone": (lambda x: x.norm(dim=1, keepdim=True).expand(-1, 3, -1, -1), 10),
    "the length of each plane": (lambda x: x / (x.norm(dim=(2, 3), keepdim=True) + 1), 10),
    "a norm of another order": (lambda x: x * x.norm(p=3, dim=1, keepdim=True), 10),
    "the smallest": (lambda x: x * x.norm(p=-1, dim=1, keepdim=True).nan_to_num(0.5), 16),
    "a mean": (lambda x: x * x.mean(1, keepdim=True), 16),
    "a mean by hand": (lambda x: x * (x.sum(1, keepdim=True) / x.shape[1]), 16),
    "positions by positions": (lambda x: as_planes((tokens(x) @ x.flatten(2)).softmax(-1) @ tokens(x)), 10),
    "channels by channels": (lambda x: ((x.flatten(2) @ tokens(x)).softmax(-1) @ x.flatten(2)).view(x.shape), 16),
    "an einsum": (lambda x: torch.einsum("nchw,nchv->nwv", x, x).unsqueeze(1), 10),
    "heads with a number for a scale": (lambda x: heads(x, lambda _: 0.5), 12),
    "heads with a scale from the width": (lambda x: heads(x, lambda t: t.shape[-1] ** -0.5), 16),
    "one head of torch's own": (lambda x: as_planes(functional.scaled_dot_product_attention(*[tokens(x)] * 3)), 16),
}


@pytest.mark.parametrize("name", SUMS)
def test_zeros_go_from_sums_where_the_code_counts_no_channels(name):
    code, expected = SUMS[name]
    assert slimmed_around(code).model.first.out_channels == expected


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("dead", [list(range(16)), list(range(15)), [4, 5, 6, 7]])
def test_sums_of_nothing_but_zeros_stay_exact(name, dead):
    slimmed_around(SUMS[name][0], dead=dead)


@pytest.mark.parametrize("name", SUMS)
def test_other_constants_stay_in_a_sum(name):
    """A sum has no bias that they could be folded into."""
    slimmed = slimmed_around(SUMS[name][0], beta=0.4)
    assert slimmed.model.first.out_channels == 16
    if name == "a sum that alone is read":
        assert "reduced over its channels at sum in the network itself (test_surgery_reductions.py:" in reasons(slimmed)


def test_queries_and_keys_go_in_pairs():
    """A query that is zero needs no key, whatever it is; what varies on both sides stays."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        queries, keys = m.queries(x).flatten(2), m.keys(x).flatten(2)
        shares = (queries.transpose(1, 2) @ keys).softmax(-1)
        return m.last((x.flatten(2) @ shares.transpose(1, 2)).view(x.shape))

    model = wired(
        forward,
        stem=nn.Conv2d(2, 6, 1),
        queries=nn.Sequential(nn.Conv2d(6, 5, 1), norm(5, [0, 3], -0.5), nn.ReLU()),
        keys=nn.Sequential(nn.Conv2d(6, 5, 1), norm(5, [3, 4], -0.5), nn.ReLU()),
        last=nn.Conv2d(6, 3, 1),
    )
    slimmed = slim(model, planes())
    assert [slimmed.model.queries[0].out_channels, slimmed.model.keys[0].out_channels] == [2, 2]
    assert torch.equal(slimmed.model.keys[0].weight, model.keys[0].weight[[1, 2]])


def spatial_attention(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The gate of CBAM: the largest and the mean of all channels at each position, read by one convolution."""
    return x * m.gate(torch.cat([x.max(1, keepdim=True).values, x.mean(1, keepdim=True)], 1)).sigmoid()


def with_gate(way: Callable[[nn.Module, torch.Tensor], torch.Tensor], beta: float, gate: nn.Module) -> nn.Module:
    """A network with some code that has a layer of its own."""
    return wired(
        lambda m, x: m.last(way(m, m.norm(m.first(x)).relu())),
        first=nn.Conv2d(2, 16, 3),
        norm=norm(16, DEAD, beta),
        gate=gate,
        last=nn.Conv2d(16, 3, 1),
    )


def test_zeros_go_from_the_means_and_maxima_that_one_layer_reads():
    """One zero stays for the maximum; for what the mean has lost, the layer's weight makes up."""
    model = with_gate(spatial_attention, -0.4, nn.Conv2d(2, 1, 3, padding=1))
    slimmed = slim(model, planes())
    assert slimmed.model.first.out_channels == 11
    torch.testing.assert_close(slimmed.model.gate.weight[:, 1], model.gate.weight[:, 1] * 11 / 16)
    assert torch.equal(slimmed.model.gate.weight[:, 0], model.gate.weight[:, 0])
    assert "1 mean over fewer channels scaled in gate.weight" in str(slimmed.plan)
    assert "kept as the maximum constant, reduced over its channels at max" in reasons(slimmed)


def test_of_a_maximum_the_largest_constant_stays():
    model = with_gate(
        lambda m, x: torch.cat([x, m.gate(x.amax(1, keepdim=True))], 1), 0.4, nn.Conv2d(1, 1, 3, padding=1)
    )
    model.last = double(nn.Conv2d(17, 3, 1))
    slimmed = slim(model, planes())
    assert slimmed.model.first.out_channels == 11
    assert slimmed.model.norm.bias.max() == model.norm.bias.max()
    assert model.norm.bias[DEAD].max() in slimmed.model.norm.bias


COUNTED: dict[str, Callable[[nn.Module, torch.Tensor], torch.Tensor]] = {
    "a mean that another op takes as well": lambda m, x: x * m.gate(mean := x.mean(1, keepdim=True)) + mean,
    "a mean of a mean": lambda m, x: x * m.gate((x.mean(1, keepdim=True) + x.mean(1, keepdim=True)).relu()),
    "a mean that two layers with one weight read": lambda m, x: (
        x * m.gate(x.mean(1, keepdim=True)) + m.gate(x[:, :1] + 1)
    ),
    "a mean seen from outside": lambda m, x: x * m.gate(m.seen(x.mean(1, keepdim=True))),
    "the place of the largest": lambda m, x: x * m.gate(x.max(1, keepdim=True).values) + x.max(1, keepdim=True).indices,
    "the place of the largest as a number": lambda m, x: x * m.gate(x.max(1, keepdim=True).indices.double()),
    "the smallest": lambda m, x: x * m.gate(x.amin(1, keepdim=True)),
}


@pytest.mark.parametrize("name", COUNTED)
def test_where_something_else_depends_on_how_many_channels_there_are_all_stay(name):
    model = with_gate(COUNTED[name], -0.4, nn.Conv2d(1, 1, 3, padding=1))
    model.seen = nn.BatchNorm2d(1).double().eval()
    assert slim(model, planes()).model.first.out_channels == 16


@pytest.mark.parametrize("beta", [-0.4, 0.4])
@pytest.mark.parametrize("dead", [list(range(16)), list(range(15)), [3], []])
def test_means_and_maxima_of_nothing_but_constants_stay_exact(dead, beta):
    model = with_gate(spatial_attention, beta, nn.Conv2d(2, 1, 3, padding=1))
    model.norm = norm(16, dead, beta).double().eval()
    slim(model, planes())
