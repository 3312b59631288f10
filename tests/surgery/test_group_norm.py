"""GroupNorm: whole groups of constant channels go, and nothing else does. InstanceNorm in a residual sum.

The oracle is the network itself in double precision, whose γ are exactly zero: `wiring.slim` compares both.
"""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from wiring import chain, norm, planes, reasons, slim, widths, wired

import slimnet


def group_norm(groups: int, channels: int, dead: Sequence[int] = ()) -> nn.GroupNorm:
    """A GroupNorm with random γ and β, some γ being zero."""
    norm = nn.GroupNorm(groups, channels)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_()
        norm.weight[list(dead)] = 0.0
    return norm


def filters(channels: int, constant: Sequence[int] = ()) -> nn.Conv2d:
    """A convolution of two channels, some of whose filters are zero and give their bias alone."""
    conv = nn.Conv2d(2, channels, 3, padding=1)
    with torch.no_grad():
        conv.weight[list(constant)] = 0.0
    return conv


def sizes(model: nn.Module) -> list[tuple[int, int]]:
    """The groups and channels of every GroupNorm."""
    return [(each.num_groups, each.num_channels) for each in model.modules() if isinstance(each, nn.GroupNorm)]


@pytest.mark.parametrize("padding", [0, 1])
def test_a_group_whose_gammas_are_all_zero_goes(padding):
    groups = group_norm(4, 8, [4, 5, 6, 7])
    with torch.no_grad():
        groups.bias.abs_()
    slimmed = slim(chain(filters(8), groups, nn.ReLU(), nn.Conv2d(8, 3, 3, padding=padding)), planes())
    # One channel stays to carry the constants where the reader is padded, and with it its group.
    assert sizes(slimmed.model) == ([(2, 4)] if padding == 0 else [(3, 6)])


def test_a_group_of_constant_filters_goes_with_what_it_is_normalised_to():
    """Different biases in a group are normalised to different constants, which are folded."""
    slimmed = slim(chain(filters(9, [0, 3, 4, 5]), group_norm(3, 9), nn.Tanh(), nn.Conv2d(9, 3, 1)), planes())
    assert widths(slimmed.model) == [6, 3]
    assert sizes(slimmed.model) == [(2, 6)]


def test_a_constant_filter_beside_others_that_vary_stays_and_says_why():
    slimmed = slim(chain(filters(8, [0, 2, 4, 6]), group_norm(4, 8), nn.ReLU(), nn.Conv2d(8, 3, 1)), planes())
    assert widths(slimmed.model) == [8, 3]
    assert "varies where 3 reads it" in reasons(slimmed)


def test_groups_of_one_channel_go_one_by_one():
    slimmed = slim(chain(filters(8), group_norm(8, 8, [1, 2, 7]), nn.ReLU(), nn.Conv2d(8, 3, 1)), planes())
    assert sizes(slimmed.model) == [(5, 5)]


def test_without_affine_parameters_groups_and_channels_are_attributes_of_the_plan():
    slimmed = slim(
        chain(filters(8, [0, 1, 4]), nn.GroupNorm(4, 8, affine=False), nn.ReLU(), nn.Conv2d(8, 3, 1)), planes()
    )
    assert sizes(slimmed.model) == [(3, 6)]
    cuts = {(cut.attribute, cut.before, cut.after) for cut in slimmed.plan.attributes}
    assert cuts == {("num_channels", 8, 6), ("num_groups", 4, 3)}


def test_a_single_group_is_normalised_over_all_channels_and_stays():
    slimmed = slim(chain(filters(8, [0, 1]), group_norm(1, 8), nn.ReLU(), nn.Conv2d(8, 3, 1)), planes())
    assert widths(slimmed.model) == [8, 3]
    assert "normalised over its channels at native_group_norm in 1" in reasons(slimmed)


def test_a_number_of_groups_in_the_code_keeps_them():
    """With four groups written down, six channels would be divided otherwise, or not at all."""
    model = wired(
        lambda self, x: self.last(functional.group_norm(self.first(x), 4).relu()),
        first=filters(8, [0, 1, 2, 3]),
        last=nn.Conv2d(8, 3, 1),
    )
    assert widths(slim(model, planes()).model) == [8, 3]


def test_norms_of_different_groups_on_one_sum_go_together():
    """A residual sum of a norm of four groups and of one of two: the halves go as a whole."""
    model = wired(
        lambda self, x: self.last((self.a(self.first(x)) + self.b(self.second(x))).relu()),
        first=filters(8),
        a=group_norm(4, 8, [0, 1, 2, 3, 6, 7]),
        second=filters(8),
        b=group_norm(2, 8, [0, 1, 2, 3, 7]),
        last=nn.Conv2d(8, 3, 1),
    )
    slimmed = slim(model, planes())
    assert sizes(slimmed.model) == [(2, 4), (1, 4)]


def test_tokens_and_one_dimension():
    """GroupNorm over `(N, C)` and `(N, C, L)`."""
    flat = chain(nn.Linear(5, 8), group_norm(4, 8, [0, 1, 3]), nn.ReLU(), nn.Linear(8, 2))
    assert widths(slim(flat, torch.randn(3, 5, dtype=torch.float64)).model) == [6, 2]
    line = chain(nn.Conv1d(2, 8, 3), group_norm(2, 8, [4, 5, 6, 7]), nn.ReLU(), nn.Conv1d(8, 2, 1))
    assert widths(slim(line, torch.randn(3, 2, 9, dtype=torch.float64)).model) == [4, 2]


@settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(
    groups=st.sampled_from([2, 3, 4]),
    size=st.integers(1, 3),
    dead=st.sets(st.integers(0, 11)),
    constant=st.sets(st.integers(0, 11)),
    padding=st.integers(0, 1),
)
def test_any_channels_may_be_dead(groups, size, dead, constant, padding):
    """Every group that goes is whole, and at least those of which all γ are zero go, but for one."""
    channels = groups * size
    dead, constant = ({each for each in found if each < channels} for found in (dead, constant))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(groups + size)
        model = chain(
            filters(channels, sorted(constant)),
            group_norm(groups, channels, sorted(dead)),
            nn.ReLU(),
            nn.Conv2d(channels, 3, 3, padding=padding),
        )
        slimmed = slim(model, planes())
    whole = sum(set(range(g * size, (g + 1) * size)) <= dead for g in range(groups))
    (left, width), *_ = sizes(slimmed.model)
    assert width == left * size
    assert left <= max(1, groups - whole + padding)


def test_a_network_with_group_norm_is_saved_verified_and_loaded(tmp_path):
    """Oracle: the bundle's own checks, which run every exported form, and the slim network in memory."""
    model = chain(filters(8), group_norm(4, 8, [0, 1, 6, 7]), nn.ReLU(), nn.Conv2d(8, 3, 1)).float()
    images = torch.randn(2, 2, 6, 6)
    slimmed = slimnet.slim(model, images)
    slimnet.save(slimmed, tmp_path / "bundle")
    loaded = slimnet.load(tmp_path / "bundle", model)
    assert sizes(loaded) == [(2, 4)]
    with torch.no_grad():
        assert torch.equal(loaded(images), slimmed.model(images))
    slimnet.verify_bundle(tmp_path / "bundle", dense=model)


def test_plans_that_cut_groups_compose():
    """Oracle: the two plans applied in turn."""
    dense = chain(filters(8), group_norm(4, 8, [0, 1]), nn.ReLU(), nn.Conv2d(8, 3, 1))
    first = slimnet.slim(dense, planes())
    with torch.no_grad():
        first.model[1].weight[2:4] = 0.0
    second = slimnet.slim(first.model, planes())
    once = slimnet.apply_plan(dense, first.plan.then(second.plan))
    assert sizes(once) == [(2, 4)]
    images = planes()
    with torch.no_grad():
        dense[1].weight[4:6] = 0.0
        torch.testing.assert_close(once(images), dense(images), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_an_instance_norm_is_added_to_other_channels(affine, tracked):
    """It lays the examples of a batch behind each other, whose channels are the same ones."""
    model = wired(
        lambda self, x: self.last((self.normed(self.second(x)) + self.norm(self.first(x))).relu()),
        first=nn.Conv2d(2, 4, 1),
        norm=norm(4, [0, 1]),
        second=filters(4, [0, 1]),
        normed=nn.InstanceNorm2d(4, affine=affine, track_running_stats=tracked),
        last=nn.Conv2d(4, 3, 1),
    )
    with torch.no_grad():
        model.second.bias[:2] = 0.0
        for each in (model.normed.weight, model.normed.bias) if affine else ():
            each[:2] = 0.0
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [2, 2, 3]
    assert slimmed.model.normed.num_features == 2


def test_a_norm_over_the_same_channels_twice_has_a_gamma_for_each():
    """`cat([x, x])` repeats its channels as an InstanceNorm does, but they are scaled and shifted differently."""
    model = wired(
        lambda self, x: self.last(self.norm(torch.cat([self.first(x)] * 2, 1)).relu()),
        first=nn.Conv2d(2, 4, 1),
        norm=norm(8, [0, 2, 4, 7], beta=0.3),
        last=nn.Conv2d(8, 3, 1),
    )
    assert widths(slim(model, planes()).model) == [3, 3]
