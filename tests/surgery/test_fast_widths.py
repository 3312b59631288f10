"""Widths that are fast by times of kernels: made-up times, and brute force over all widths as the oracle."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_prices import blocks_of, made_up
from masking import THRESHOLD, difference, masked, outputs
from networks import BETAS, RATES, RECIPES, build, images
from test_properties import EXACT, check_counts, check_round_trip, quickly
from test_width_rounding import LOOSE, conv, follows, plain
from torch import nn
from wiring import chain, norm, planes, reasons, slim, widths, wired

import slimnet
from slimnet.errors import UsageError
from slimnet.methods import Budget, plan_for, score_channels, select_within_budget
from slimnet.planning.width_prices import NEAR, PriceCurve, WidthPrices, allowed_widths
from slimnet.planning.width_rounding import Rounding
from slimnet.surgery.plan import SurgeryPlan


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def fast(*prices) -> Rounding:
    """The rounding by prices of spatial, pointwise and depthwise kernels, or of one formula for all."""
    spatial, *others = [made_up(each).spatial for each in prices]
    pointwise, depthwise = others or (spatial, spatial)
    return Rounding(prices=WidthPrices("onnxruntime", spatial, pointwise, depthwise))


def brute_force(times: list[float], width: int, near: float = NEAR) -> int:
    """The smallest width, of those not below this one, whose time is at most near the least of all of them."""
    rest = times[width:]
    return next(width + more for more, time in enumerate(rest) if time <= (1 + near) * min(rest))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40), st.sampled_from([0.0, 0.01, 0.1]))
def test_the_next_allowed_width_is_the_one_that_brute_force_finds(times, error):
    """Restoring channels one by one must stop there, and not before. Twice the standard error counts as equal."""
    times = [0.0, *times]
    allowed = allowed_widths(np.array(times), error)
    for width in range(len(times)):
        reached = next(each for each in range(width, len(times)) if allowed[each])
        assert reached == brute_force(times, width, max(NEAR, 2 * error))


def test_prices_between_measured_widths_are_those_of_the_same_remainder():
    """Oracle: by hand. 36 lies in the middle between 20 and 64.8 in logarithms; beyond the ends nothing changes."""
    known = (*range(1, 17), 20, 68)
    prices = tuple(1.0 if width < 17 else {20: 2.0, 68: 4.0}[width] for width in known)
    found = PriceCurve(known, prices).up_to(100)
    assert found[0] == 0
    assert found[4] == found[16] == found[32] == found[100 - 1] == 1.0
    assert found[20] == 2.0
    assert found[36] == pytest.approx(2 + 2 * np.log(36 / 20) / np.log(68 / 20))
    assert found[68] == found[84] == found[100] == 4.0


@pytest.mark.parametrize(
    ("widths", "prices", "message"),
    [
        ((1, 2), (1.0,), "another number of widths"),
        ((2, 1), (1.0, 1.0), "not in ascending order"),
        ((1, 1), (1.0, 1.0), "not in ascending order"),
        (tuple(range(1, 16)), (1.0,) * 15, "lacks widths of some remainder by 16"),
    ],
)
def test_a_curve_that_leaves_widths_without_a_price_is_refused(widths, prices, message):
    with pytest.raises(UsageError, match=message):
        PriceCurve(widths, prices)


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        (lambda _: 1.0, [7, 15, 3]),
        (blocks_of(4), [8, 16, 3]),
        (blocks_of(8, odd=1.0), [7, 15, 3]),
        (blocks_of(16), [16, 16, 3]),
        (blocks_of(24), [7, 24, 3]),
        (lambda width: 1 / width**3, [16, 24, 3]),
        (lambda width: 1 / width, [7, 15, 3]),
    ],
)
def test_removable_channels_stay_only_where_their_removal_brings_no_time(price, expected):
    """7 of 16 and 15 of 24 channels are alive. Oracle: brute force over the widths of each of the two sets.

    Where whole blocks of 8 are all that counts, 7 are as fast as 8, and so they are taken.
    """
    times = [0.0] + [width * price(width) for width in range(1, 25)]
    assert [brute_force(times[: dense + 1], alive) for alive, dense in ((7, 16), (15, 24))] == expected[:2]
    assert widths(slim(plain(), planes(), round_to=fast(price)).model) == expected


def test_a_difference_within_the_error_of_the_times_keeps_nothing():
    """Odd widths take a tenth longer: that is sure with an error of 1 %, and not with one of 10 %."""
    for error, expected in ((0.01, [8, 16, 3]), (0.1, [7, 15, 3])):
        curve = replace(made_up(lambda width: 1.1 if width % 4 else 0.9).spatial, error=error)
        rounding = Rounding(prices=WidthPrices("onnxruntime", curve, curve, curve))
        assert widths(slim(plain(), planes(), round_to=rounding).model) == expected


def test_the_plan_says_what_was_kept_for_speed_and_can_be_read_back():
    plan = slim(plain(), planes(), round_to=fast(blocks_of(4))).plan
    assert plan.rounding == "fast under onnxruntime"
    assert plan.kept_for_speed == 2
    assert {each.kind for each in plan.kept} == {"no_faster"}
    text = "kept 2 removable channels: removing them saves no time under onnxruntime; round_to=None removes them"
    assert text in str(plan)
    assert SurgeryPlan.from_json(plan.to_json()) == plan
    exact = slim(plain(), planes(), round_to=fast(lambda _: 1.0)).plan
    assert exact.kept_for_speed == 0
    assert "kept" not in str(exact)


def residual() -> nn.Module:
    """A stream of 16 channels that two 3×3 convolutions and a 1×1 one write or read: 7 channels are alive in all."""

    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = net.first(x)
        return net.last(x + net.second(x).relu())

    return wired(
        forward,
        first=nn.Sequential(conv(2, 16), norm(16, range(9))),
        second=nn.Sequential(nn.Conv2d(16, 16, 1, bias=False), norm(16, range(9))),
        last=nn.Conv2d(16, 3, 1),
    )


def test_layers_that_share_channels_decide_together_by_their_work():
    """Oracle: MACs of one channel by hand, on 6×6 pixels, with brute force over the sums of times.

    3×3: the first layer, 2 · 9. 1×1: the second layer twice, 16 each, and the last one, 3.
    """
    for spatial, pointwise in itertools.permutations((blocks_of(4, 4.0), blocks_of(12, 4.0)), 2):
        times = [width * (18 * spatial(width) + 35 * pointwise(width)) if width else 0.0 for width in range(17)]
        slimmed = slim(residual(), planes(), round_to=fast(spatial, pointwise, lambda _: 1.0))
        assert widths(slimmed.model) == [brute_force(times, 7)] * 2 + [3]
        assert brute_force(times, 7) in (8, 12)


def test_a_block_with_a_depthwise_convolution_has_the_price_of_such_a_block():
    model = chain(
        nn.Conv2d(2, 16, 1, bias=False),
        norm(16, range(9)),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
        norm(16, range(9)),
        nn.ReLU(),
        nn.Conv2d(16, 3, 1),
    )
    slimmed = slim(model, planes(), round_to=fast(lambda _: 1.0, lambda _: 1.0, blocks_of(12, 4.0)))
    assert widths(slimmed.model) == [12, 12, 3]


def test_the_parts_of_a_concatenation_are_priced_by_their_own_widths():
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return net.last(torch.cat([net.one(x), net.two(x)], 1).relu())

    model = wired(
        forward,
        one=nn.Sequential(conv(2, 8), norm(8, range(3))),
        two=nn.Sequential(conv(2, 12), norm(12, range(3))),
        last=conv(20, 3),
    )
    assert widths(slim(model, planes(), round_to=fast(blocks_of(4, 3.0))).model) == [8, 12, 3]


def test_a_network_to_a_budget_has_fast_widths_within_it():
    """Oracle: brute force over the widths of each layer, and the plan's own MACs, which are counted anew."""
    torch.manual_seed(0)
    model = chain(conv(2, 32), norm(32), nn.ReLU(), conv(32, 32), norm(32), nn.ReLU(), conv(32, 3))
    inputs, rounding = planes(), fast(blocks_of(8, 2.0))
    selection = select_within_budget(
        model, inputs, score_channels("implicit", model, inputs), Budget("macs", 0.6), round_to=rounding
    )
    plan = plan_for(model, inputs, selection, round_to=rounding)
    assert plan.rounding == "fast under onnxruntime"
    assert plan.macs_after <= 0.6 * plan.macs_before
    assert {layer.channels_after % 8 for layer in plan.layers[:2]} == {0}


def test_grouped_convolutions_and_splits_stay_exact_with_fast_widths():
    """A grouped convolution whose groups are packed, between two plain ones."""
    model = chain(
        conv(2, 16),
        norm(16, [0, 1, 2, 5, 9]),
        nn.ReLU(),
        conv(16, 16, groups=4),
        norm(16, [0, 1, 2, 5, 9]),
        nn.ReLU(),
        conv(16, 3),
    )
    for size in (4, 8, 16):
        slimmed = slim(model, planes(), round_to=fast(blocks_of(size, 3.0)))
        assert max(widths(slimmed.model)) <= 16
        assert "equal parts" not in reasons(slimmed)


@settings(quickly, max_examples=4)
@given(recipe=RECIPES, rate=RATES, beta=BETAS, size=st.sampled_from([4, 8, 16]))
def test_drawn_networks_with_fast_widths_compute_the_same(recipe, rate, beta, size):
    """Exact, never wider than dense, and no more is removed than with exact widths."""
    dense = build(recipe, rate, beta)
    rounded = slimnet.slim(dense, images(recipe), THRESHOLD, round_to=fast(blocks_of(size, 3.0)), tolerance=LOOSE)
    fresh = images(recipe, batch=2, seed=7)
    assert difference(outputs(masked(dense, rounded.plan), fresh), outputs(rounded.model, fresh)) < EXACT
    check_counts(rounded, recipe)
    check_round_trip(dense, rounded)
    assert all(layer.channels_after <= layer.channels_before for layer in rounded.plan.layers)
    exact = slimnet.slim(dense, images(recipe), THRESHOLD, tolerance=LOOSE)
    if follows(exact) and not exact.plan.groups:
        assert rounded.plan.removed_channels <= exact.plan.removed_channels


def test_the_library_removes_every_removable_channel_unless_asked_otherwise():
    assert slimnet.slim(plain(), planes()).plan.rounding == "none"
    plan = slimnet.slim(plain(), planes(), round_to="fast").plan
    assert plan.rounding == "fast under onnxruntime"
    assert plan.cuts == slimnet.slim(plain(), planes()).plan.cuts
    assert slimnet.inspect(plain(), planes(), round_to="fast:torch").plan.rounding == "fast under torch"


@pytest.mark.parametrize("words", ["fastest", "fast:", "auto:torch", ":fast"])
def test_other_words_are_refused(words):
    with pytest.raises(UsageError, match=f"round_to is {words!r}"):
        slimnet.slim(plain(), planes(), round_to=words)


def test_a_runtime_that_there_is_not_is_refused():
    with pytest.raises(UsageError, match="there is no runtime 'onyx'"):
        slimnet.slim(plain(), planes(), round_to="fast:onyx")
