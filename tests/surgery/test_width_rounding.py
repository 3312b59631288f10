"""Widths rounded up: round or whole, never wider than the dense network's, and the function is still the same."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from masking import THRESHOLD, difference, masked, outputs
from networks import BETAS, RATES, RECIPES, Recipe, build, images
from test_properties import EXACT, check_counts, check_round_trip, quickly, thoroughly
from torch import nn
from wiring import chain, norm, planes, reasons, slim, widths, wired
from zoo import images as zoo_images
from zoo import network, scatter_dead

import slimnet
from slimnet.errors import UsageError
from slimnet.graph.reasons import Kind, Reason
from slimnet.planning.removal import WidthConstraint
from slimnet.surgery.plan import SurgeryPlan
from slimnet.surgery.plan_data import LayerPlan

LOOSE = float("inf")


def check_round(recipe: Recipe, rate: float, beta: str, multiple: int) -> None:
    """Exact, round, between the widths as they fall and the dense ones; the plan is data as ever."""
    dense = build(recipe, rate, beta)
    rounded = slimnet.slim(dense, images(recipe), THRESHOLD, round_to=multiple, tolerance=LOOSE)
    fresh = images(recipe, batch=2, seed=7)
    assert difference(outputs(masked(dense, rounded.plan), fresh), outputs(rounded.model, fresh)) < EXACT
    check_counts(rounded, recipe)
    check_round_trip(dense, rounded)
    if not rounded.plan.groups:
        assert all(is_round(layer, multiple) for layer in rounded.plan.layers)
    fallen = slimnet.slim(dense, images(recipe), THRESHOLD, tolerance=LOOSE)
    if follows(fallen) and not fallen.plan.groups:
        pairs = zip(rounded.plan.layers, fallen.plan.layers, strict=True)
        assert all(wide.channels_after >= narrow.channels_after for wide, narrow in pairs)


def is_round(layer: LayerPlan, multiple: int) -> bool:
    """A multiple, or as it was, and never wider."""
    whole = layer.channels_after == layer.channels_before
    return whole or (layer.channels_after % multiple == 0 and layer.channels_after < layer.channels_before)


def follows(slimmed: slimnet.Slimmed) -> bool:
    """Whether the network's own code follows all widths as they fall: it may well follow round ones only."""
    return "hard-codes a width" not in reasons(slimmed)


@settings(quickly, max_examples=15)
@given(recipe=RECIPES, rate=RATES, beta=BETAS, multiple=st.sampled_from([2, 3, 4, 8, 1 << 30]))
def test_rounded_networks_compute_the_same_at_round_widths(recipe, rate, beta, multiple):
    check_round(recipe, rate, beta, multiple)


@pytest.mark.sweep
@thoroughly
@given(recipe=RECIPES, rate=RATES, beta=BETAS, multiple=st.integers(1, 16))
def test_every_drawn_network_is_rounded_exactly(recipe, rate, beta, multiple):
    check_round(recipe, rate, beta, multiple)


def conv(narrow: int, wide: int, **settings: int) -> nn.Conv2d:
    return nn.Conv2d(narrow, wide, 3, padding=1, bias=False, **settings)


def plain() -> nn.Module:
    """Seven of 16 and 15 of 24 channels are alive."""
    return chain(
        conv(2, 16), norm(16, range(9)), nn.ReLU(), conv(16, 24), norm(24, range(15, 24)), nn.ReLU(), conv(24, 3)
    )


@pytest.mark.parametrize(
    ("round_to", "expected"),
    [
        (None, [7, 15, 3]),
        (1, [7, 15, 3]),
        (4, [8, 16, 3]),
        (5, [10, 15, 3]),
        (16, [16, 16, 3]),
        (20, [16, 20, 3]),
        (64, [16, 24, 3]),
        ({"0": 4}, [8, 15, 3]),
        ({"3": 8, "6": 8}, [7, 16, 3]),
        ({}, [7, 15, 3]),
    ],
)
def test_widths_are_the_next_multiple_or_what_they_were(round_to, expected):
    assert widths(slim(plain(), planes(), round_to=round_to).model) == expected


def test_the_plan_says_what_was_rounded_and_why():
    slimmed = slim(plain(), planes(), round_to=16)
    assert slimmed.plan.rounding == "multiples of 16"
    assert "rounded up to a multiple of 16" in reasons(slimmed)
    assert "rounded up to a multiple of 16" in str(slimmed.plan)
    assert "the whole width is kept" in reasons(slimmed)


def test_channels_that_are_kept_come_back_with_their_constants():
    """β ≠ 0 under zero padding: one carrier is among the channels that rounding keeps, no further one is needed."""
    model = chain(conv(2, 16), norm(16, range(9), beta=0.7), nn.ReLU(), conv(16, 8), norm(8), nn.ReLU())
    assert widths(slim(model, planes(), round_to=4).model) == [8, 8]


def test_a_residual_stream_is_rounded_once_for_all_layers_that_write_it():
    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = net.first(x)
        return net.last(x + net.second(x))

    dead = range(9)
    model = wired(
        forward,
        first=nn.Sequential(conv(2, 16), norm(16, dead)),
        second=nn.Sequential(conv(16, 16), norm(16, dead)),
        last=conv(16, 3),
    )
    assert widths(slim(model, planes(), round_to=4).model) == [8, 8, 3]
    by_layer = slim(model, planes(), round_to={"second.0": 16})
    assert widths(by_layer.model) == [16, 16, 3]
    assert by_layer.plan.rounding == "by layer"


def test_channels_that_make_two_widths_round_are_preferred():
    """The stream of four channels is padded to eight: its channels stand on both widths, the padding's on one."""

    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = net.narrow(x)
        wide = torch.cat([x, net.more(x)], 1)
        return net.last(wide + net.wide(wide))

    model = wired(
        forward,
        narrow=nn.Sequential(conv(2, 4), norm(4, [0])),
        more=nn.Sequential(conv(4, 4), norm(4, [0])),
        wide=nn.Sequential(conv(8, 8), norm(8, [0, 4])),
        last=conv(8, 3),
    )
    assert widths(slim(model, planes()).model) == [3, 3, 6, 3]
    slimmed = slim(model, planes(), round_to={"narrow.0": 4, "wide.0": 7})
    assert widths(slimmed.model) == [4, 3, 7, 3]


def test_a_width_that_is_neither_round_nor_whole_is_odd():
    width = WidthConstraint(np.array([1, 2, 3, 4]), np.array([1, 1, 1, 2]), np.arange(6) % 2 == 0, Reason(Kind.WHOLE))
    removed = np.zeros(5, dtype=bool)
    assert not width.is_odd(removed)
    removed[1] = True
    assert not width.is_odd(removed)
    removed[4] = True
    assert not width.is_odd(removed)
    removed[1] = False
    assert width.is_odd(removed)


@pytest.mark.parametrize("name", ["regnet_y_400mf", "shufflenet_v2_x1_0", "densenet121"])
def test_networks_with_groups_splits_and_concatenations_cost_little_more(name):
    """Eights cost under a fifth more MACs than the widths as they fall; nothing drifts back to the dense network."""
    model = network(name)
    scatter_dead(model, zoo_images(name, 2), 0.6, "negative")
    plans = [slimnet.inspect(model, zoo_images(name, 1), round_to=each).plan for each in (None, 8)]
    assert plans[0].macs_after < plans[1].macs_after < 1.2 * plans[0].macs_after


@pytest.mark.parametrize(
    ("round_to", "message"),
    [
        (0, "multiples of 0"),
        (-8, "multiples of -8"),
        (2.5, "multiples of 2.5"),
        (True, "multiples of True"),
        ({"0": 0}, "multiples of 0"),
        ({"conv9": 8}, "'conv9'"),
        ({"1": 8}, "'1', which is not a convolution"),
    ],
)
def test_a_rounding_that_cannot_be_is_refused(round_to, message):
    with pytest.raises(UsageError, match=message):
        slimnet.slim(plain(), planes(), round_to=round_to)


def test_a_plan_of_before_there_was_rounding_is_still_read():
    plan = slim(plain(), planes()).plan
    text = plan.to_json().replace('"rounding":"none",', "").replace('"trials":[],', "")
    assert text != plan.to_json()
    assert SurgeryPlan.from_json(text) == plan
