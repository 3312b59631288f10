"""Which γ the surgery changes, and which of several constants carries the others.

The oracle is arithmetic on the dense network, or the slim network itself, computed by torch alone.
"""

import copy
import warnings

import pytest
import torch
from masking import difference, masked, outputs
from torch import nn
from wiring import EXACT, chain, norm, planes, slim, wired

import slimnet
from slimnet.graph.channel_graph import SILENT

FAINT = 9e-4
"""A γ below the threshold that is far from zero."""


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def faint(module: nn.Module, channels: list[int], beta: float) -> nn.Module:
    """A BatchNorm of which some channels have a γ just below the threshold."""
    with torch.no_grad():
        module.weight[channels] = FAINT
        module.bias[channels] = beta
    return module


def relied(slimmed: slimnet.Slimmed) -> dict[str, tuple[int, ...]]:
    return {zeroed.tensor: zeroed.channels for zeroed in slimmed.plan.zeroed}


def slim_and_compare(model: nn.Module, x: torch.Tensor) -> slimnet.Slimmed:
    """Slim a network, and compare it with the dense one less what the plan relies on, on other inputs."""
    slimmed = slimnet.slim(model, x, tolerance=float("inf"))
    fresh = [torch.randn_like(x)]
    assert difference(outputs(masked(model, slimmed.plan), fresh), outputs(slimmed.model, fresh)) < EXACT
    return slimmed


# γ of channels that stay


def residual(dead_inside: bool) -> nn.Module:
    """A stem with dead channels into which a living block writes, so that they stay; the block may lose channels."""
    return wired(
        lambda m, x: m.out((y := m.stem_norm(m.stem(x)).relu()) + m.second_norm(m.second(m.first_norm(m.first(y))))),
        stem=nn.Conv2d(2, 8, 3, padding=1),
        stem_norm=faint(norm(8), [0, 1, 2, 3], 0.5),
        first=nn.Conv2d(8, 8, 3, padding=1),
        first_norm=faint(norm(8), [4, 5] if dead_inside else [], 0.0),
        second=nn.Conv2d(8, 8, 1),
        second_norm=norm(8),
        out=nn.Conv2d(8, 3, 1),
    )


def test_nothing_changes_where_nothing_is_removed():
    model = residual(dead_inside=False)
    slimmed = slimnet.slim(model, x := planes())
    assert relied(slimmed) == {}
    assert slimmed.certificate.max_abs_difference == 0.0
    assert torch.equal(slimmed.model(x), model(x))
    assert slimmed.plan.dead_channels == 4


def test_channels_that_stay_keep_their_scale_while_others_go():
    model = residual(dead_inside=True)
    slimmed = slim_and_compare(model, planes())
    assert relied(slimmed) == {"first_norm.weight": (4, 5)}
    assert torch.equal(slimmed.model.stem_norm.weight, model.stem_norm.weight)
    assert slimmed.model.first.out_channels == 6


def test_a_scale_that_hides_what_a_layer_lost_becomes_as_good_as_zero():
    """All outputs of `second` are dead, so that `first` goes but for one channel; its loss must not be seen."""
    model = wired(
        lambda m, x: m.out((y := m.stem(x)) + m.norm(m.second(m.first(y).relu()))),
        stem=nn.Conv2d(2, 6, 3),
        first=nn.Conv2d(6, 6, 3, padding=1),
        second=nn.Conv2d(6, 6, 3, padding=1),
        norm=faint(norm(6), list(range(6)), 0.3),
        out=nn.Conv2d(6, 3, 1),
    )
    slimmed = slim_and_compare(model, planes())
    assert slimmed.model.first.out_channels == 1
    assert relied(slimmed) == {"norm.weight": tuple(range(6))}
    assert (slimmed.model.norm.weight == SILENT).all()


def test_a_scale_that_shuts_a_gate_becomes_as_good_as_zero_where_what_it_shuts_has_gone():
    """The gate of a residual branch is 0 (β = 0), so that nothing needs what it multiplies; the sum itself stays."""
    model = wired(
        lambda m, x: m.out((y := m.stem(x)) + m.gate_norm(m.gate(y)).relu() * m.second(m.first(y).relu())),
        stem=nn.Conv2d(2, 6, 3),
        gate=nn.Conv2d(6, 6, 1),
        gate_norm=faint(norm(6), list(range(6)), -0.3),
        first=nn.Conv2d(6, 6, 1),
        second=nn.Conv2d(6, 6, 1),
        out=nn.Conv2d(6, 3, 1),
    )
    slimmed = slim_and_compare(model, planes())
    assert slimmed.model.first.out_channels == 1
    assert relied(slimmed) == {"gate_norm.weight": tuple(range(6))}


def test_a_constant_that_others_are_computed_from_is_relied_on_although_it_stays():
    """Channels of `second` are constant since all that their filters read is; that stays, as an output."""
    model = wired(
        lambda m, x: (y := m.norm(m.first(x)).relu(), m.out(m.second(y).relu())),
        first=nn.Conv2d(2, 6, 3),
        norm=faint(norm(6), [1, 4, 5], 0.5),
        second=nn.Conv2d(6, 4, 1),
        out=nn.Conv2d(4, 3, 1),
    )
    with torch.no_grad():
        model.second.weight[2] = 0.0
        model.second.weight[2, [1, 4]] = 1.0
    slimmed = slim_and_compare(model, planes())
    assert slimmed.model.second.out_channels == 3
    assert relied(slimmed) == {"norm.weight": (1, 4)}
    assert slimmed.model.norm.weight[5] == model.norm.weight[5]


def test_an_unpooled_map_keeps_the_scales_of_the_map_that_gives_its_places():
    """As SegNet: what stays may vary as it did, and with it where the largest values of a plane stand."""

    class SegNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.first_norm = nn.Conv2d(2, 8, 3, padding=1), faint(norm(8), [0, 1, 2], 0.5)
            self.second, self.third = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
            self.third_norm, self.out = faint(norm(6), [1, 2], -0.5), nn.Conv2d(6, 3, 1)
            self.pool, self.unpool = nn.MaxPool2d(2, 2, return_indices=True), nn.MaxUnpool2d(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pooled, places = self.pool(self.first_norm(self.first(x)).relu())
            return self.out(self.third_norm(self.third(self.unpool(self.second(pooled), places))).relu())

    model = SegNet().double().eval()
    slimmed = slim_and_compare(model, planes(side=8))
    assert slimmed.model.third.out_channels == 4
    assert relied(slimmed) == {"third_norm.weight": (1, 2)}
    assert torch.equal(slimmed.model.first_norm.weight, model.first_norm.weight)


def test_a_silent_scale_is_dead_at_any_threshold_and_changes_nothing_that_a_number_can_hold():
    model = chain(nn.Conv2d(2, 6, 3), norm(6, [0, 2, 5], 0.7), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1))
    narrow = slim(model, planes()).model
    silent = (narrow[1].weight == SILENT).nonzero().flatten()
    assert silent.numel() == 1
    values = narrow[1](1e3 * narrow[0](planes()))[:, silent]
    assert (values == narrow[1].bias[silent]).all()
    assert (narrow.half()[1].weight[silent] == 0).all()
    assert slim(model, planes(), threshold=0.0).plan.removed_channels == 2
    assert slimnet.inspect(narrow.double(), planes(), 0.0).dead_channels == 1


def test_a_scale_and_shift_of_zero_stay_zero():
    """Then not even the sign of the channel may change: rounding has nothing to lose γ · x̂ in."""
    model = wired(
        lambda m, x: m.out((y := m.stem(x)) + m.norm(m.second(m.first(y).relu())).sign()),
        stem=nn.Conv2d(2, 6, 3),
        first=nn.Conv2d(6, 6, 1),
        second=nn.Conv2d(6, 6, 1),
        norm=norm(6, list(range(6)), 0.0),
        out=nn.Conv2d(6, 3, 1),
    )
    slimmed = slim(model, planes())
    assert slimmed.model.first.out_channels == 1
    assert (slimmed.model.norm.weight == 0).all()


def test_quantisation_aware_training_of_a_network_with_a_carrier_is_finite():
    """torch divides by γ there; the carrier's may not be zero, and its gradients must be numbers too."""
    quantization = pytest.importorskip("torch.ao.quantization")
    prepare = pytest.importorskip("torch.ao.quantization.quantize_fx").prepare_qat_fx
    model = chain(nn.Conv2d(2, 6, 3), norm(6, [0, 2, 5], 0.7), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1)).float()
    x = planes().float()
    narrow = slimnet.slim(model, x).model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mapping = quantization.get_default_qat_qconfig_mapping("fbgemm")
        trained = prepare(copy.deepcopy(narrow).train(), mapping, (x,))
        step = torch.optim.SGD(trained.parameters(), lr=1e-3)
        for _ in range(3):
            step.zero_grad()
            trained(x).square().mean().backward()
            step.step()
            assert all(parameter.isfinite().all() for parameter in trained.parameters())


# Carriers


@pytest.mark.parametrize("betas", [[1.0, 0.5, 0.3, 0.02], [0.02, 0.3, 0.5, 1.0], [0.001, 0.3, 1.0, 0.5]])
def test_the_largest_constant_carries_the_others(betas):
    model = chain(nn.Conv2d(2, 8, 3), norm(8, [0, 1, 2, 3]), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    with torch.no_grad():
        model[1].bias[:4] = torch.tensor(betas)
    (merge,) = slim(model, planes()).plan.merges
    assert set(merge.carriers) == {betas.index(1.0)}
    assert sorted(merge.ratios) == pytest.approx(sorted(set(betas) - {1.0}))


def test_a_kept_constant_that_is_small_does_not_carry_large_ones():
    """Channel 0 stays, as the output of the network; what it emits is a fiftieth of the others."""
    model = wired(
        lambda m, x: (y[:, :1], m.out(y)) if (y := m.norm(m.first(x)).relu()) is not None else None,
        first=nn.Conv2d(2, 8, 3),
        norm=norm(8, [0, 1, 2, 3]),
        out=nn.Conv2d(8, 3, 3, padding=1),
    )
    with torch.no_grad():
        model.norm.bias[:4] = torch.tensor([0.02, 0.5, 1.0, 0.3])
    slimmed = slim(model, planes())
    assert max(slimmed.plan.merges[0].ratios) <= 1.0
    assert slimmed.model.first.out_channels == 6


def test_one_carrier_serves_two_layers_if_it_can_and_the_largest_ratio_is_the_smallest():
    """The second layer reads the square of what the first reads. Oracle: every possible choice, by hand."""
    model = wired(
        lambda m, x: m.one(y := m.norm(m.first(x)).relu()) + m.two((1.2 - y).square()),
        first=nn.Conv2d(2, 8, 3),
        norm=norm(8, [0, 1, 2, 3]),
        one=nn.Conv2d(8, 3, 3, padding=1),
        two=nn.Conv2d(8, 3, 3, padding=1),
    )
    betas = [1.0, 0.7, 0.5, 0.1]
    with torch.no_grad():
        model.norm.bias[:4] = torch.tensor(betas)
    slimmed = slim(model, planes())
    read = {"one.weight": betas, "two.weight": [(1.2 - beta) ** 2 for beta in betas]}
    growth = [max(max(values) / values[place] for values in read.values()) for place in range(4)]
    assert slimmed.model.first.out_channels == 5
    for merge in slimmed.plan.merges:
        assert set(merge.carriers) == {growth.index(min(growth))}
