"""Small networks, one for each rule of the surgery: what goes, what stays, and that the function is the same."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from wiring import chain, norm, planes, reasons, slim, widths, wired


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# Folding


def test_the_constant_of_a_removed_channel_goes_into_the_readers_bias():
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1, 3], 0.7), nn.ReLU(), nn.Conv2d(5, 3, 3))
    narrow = slim(model, planes()).model
    constants = model[1].bias.detach()[[1, 3]]
    expected = model[3].bias + torch.einsum("oikl,i->o", model[3].weight[:, [1, 3]], constants)
    torch.testing.assert_close(narrow[3].bias, expected)
    assert torch.equal(narrow[3].weight, model[3].weight[:, [0, 2, 4]])
    assert torch.equal(narrow[0].weight, model[0].weight[[0, 2, 4]])


@pytest.mark.parametrize("frozen", [False, True])
def test_a_reader_without_bias_is_given_one_that_is_trained_if_its_weight_is(frozen):
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [2], 0.7), nn.ReLU(), nn.Conv2d(5, 3, 3, bias=False))
    model[3].weight.requires_grad_(not frozen)
    slimmed = slim(model, planes())
    torch.testing.assert_close(slimmed.model[3].bias, model[3].weight[:, 2].sum((1, 2)) * model[1].bias[2])
    assert slimmed.model[3].bias.requires_grad is not frozen
    assert slimmed.plan.params_after == sum(p.numel() for p in slimmed.model.parameters())
    assert model[3].bias is None


def test_a_linear_reader_folds_what_flattening_repeats():
    model = chain(nn.Conv2d(2, 4, 3), norm(4, [0, 3], 0.5), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3, bias=False))
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [2, 3]
    assert torch.equal(slimmed.model[4].weight, model[4].weight[:, 16:48])


def test_a_dead_channel_with_negative_beta_leaves_nothing_behind_a_relu():
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1, 3], -0.7), nn.ReLU(), nn.Conv2d(5, 3, 3, padding=1))
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [3, 3]
    assert slimmed.plan.folds == slimmed.plan.merges == ()


# Carriers


def test_a_zero_padded_reader_keeps_exactly_one_carrier_of_the_constants():
    model = chain(nn.Conv2d(2, 6, 3), norm(6, [0, 2, 5], 0.7), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1))
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [4, 3]
    (merge,) = slimmed.plan.merges
    kept = [channel for channel in range(6) if channel in (1, 3, 4, *merge.carriers)]
    expected = model[3].weight.detach().clone()
    constants = model[1].bias.detach()
    for lost in {0, 2, 5} - set(merge.carriers):
        expected[:, merge.carriers[0]] += expected[:, lost] * constants[lost] / constants[merge.carriers[0]]
    torch.testing.assert_close(slimmed.model[3].weight, expected[:, kept])
    assert "carrier of constants for 3" in reasons(slimmed)


def test_a_carried_constant_is_exact_at_the_borders_and_a_folded_one_would_not_be():
    model = chain(nn.Conv2d(2, 4, 3), norm(4, [0, 1], 0.7), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    x = planes()
    dense, narrow = model(x), slim(model, x).model(x)
    torch.testing.assert_close(narrow[:, :, 0, 0], dense[:, :, 0, 0], rtol=1e-12, atol=1e-12)
    constant = model[1].bias.detach()[:2]
    inside, corner = model[3].weight[:, :2].sum((2, 3)), model[3].weight[:, :2, 1:, 1:].sum((2, 3))
    assert ((inside - corner) @ constant).abs().max() > 1e-3


def test_every_group_of_a_padded_grouped_convolution_keeps_a_carrier_of_its_own():
    model = chain(nn.Conv2d(2, 8, 3), norm(8, [0, 1, 4, 5], 0.7), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1, groups=2))
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [6, 4]
    assert len(set(slimmed.plan.merges[0].carriers)) == 2


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_padding_with_the_planes_own_values_needs_no_carrier(mode):
    reader = nn.Conv2d(6, 3, 3, padding=1, padding_mode=mode)
    slimmed = slim(chain(nn.Conv2d(2, 6, 3), norm(6, [0, 2], 0.7), nn.ReLU(), reader), planes())
    assert widths(slimmed.model) == [4, 3]
    assert slimmed.plan.merges == ()


def test_padding_by_a_layer_in_front_is_seen_too():
    modules = [nn.Conv2d(2, 6, 3), norm(6, [0, 2, 3], 0.7), nn.ReLU(), nn.ZeroPad2d(1), nn.Conv2d(6, 3, 3)]
    slim(chain(*modules), planes())
    modules[3] = nn.ConstantPad2d(1, modules[1].bias[0].item())
    slim(chain(*modules), planes())


# Channels that belong together


def test_a_residual_channel_goes_only_where_every_summand_is_constant():
    model = wired(
        lambda m, x: m.out(functional.relu(m.n1(m.c1(x)) + m.n2(m.c2(x)))),
        c1=nn.Conv2d(2, 5, 3),
        n1=norm(5, [0, 1], 0.3),
        c2=nn.Conv2d(2, 5, 3),
        n2=norm(5, [1, 2], 0.4),
        out=nn.Conv2d(5, 3, 3),
    )
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [4, 4, 3]
    assert torch.equal(slimmed.model.c1.weight, model.c1.weight[[0, 2, 3, 4]])
    assert "varies where out reads it" in reasons(slimmed)


def test_a_grouped_convolution_loses_each_groups_own_channels():
    model = chain(nn.Conv2d(2, 6, 3), norm(6, [0, 4]), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2), nn.Conv2d(4, 3, 1))
    slimmed = slim(model, planes())
    assert (slimmed.model[3].in_channels, slimmed.model[3].groups) == (4, 2)
    assert torch.equal(slimmed.model[0].weight, model[0].weight[[1, 2, 3, 5]])
    expected = torch.cat([model[3].weight[:2, [1, 2]], model[3].weight[2:, [0, 2]]])
    assert torch.equal(slimmed.model[3].weight, expected)


def test_a_group_that_is_all_dead_vanishes():
    model = chain(
        nn.Conv2d(2, 9, 3),
        norm(9, [3, 4, 5], 0.4),
        nn.ReLU(),
        nn.Conv2d(9, 6, 3, groups=3),
        norm(6, [2, 3], 0.2),
        nn.ReLU(),
        nn.Conv2d(6, 3, 1),
    )
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [6, 4, 3]
    assert slimmed.model[3].groups == 2


def test_uneven_groups_stay_exact_and_lose_something():
    model = chain(
        nn.Conv2d(2, 12, 3),
        norm(12, [0, 1, 4, 5, 8], 0.4),
        nn.ReLU(),
        nn.Conv2d(12, 6, 3, groups=3, bias=False),
        norm(6, [0], 0.2),
        nn.ReLU(),
        nn.Conv2d(6, 3, 1),
    )
    assert slim(model, planes()).plan.removed_channels > 0


def test_the_halves_of_a_chunk_stay_equally_wide():
    model = wired(
        lambda m, x: m.out(torch.cat(m.norm(m.first(x)).chunk(2, 1)[::-1], 1)),
        first=nn.Conv2d(2, 8, 3),
        norm=norm(8, [0, 1, 4], 0.5),
        out=nn.Conv2d(8, 3, 3),
    )
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [6, 3]
    assert "equal parts" in reasons(slimmed)


def test_a_channel_shuffle_takes_the_same_number_from_every_group():
    def shuffled(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = m.norm(m.first(x))
        n, c, h, w = x.shape
        return m.out(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))

    model = wired(shuffled, first=nn.Conv2d(2, 8, 3), norm=norm(8, [0, 6], 0.5), out=nn.Conv2d(8, 3, 3))
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [6, 3]
    assert torch.equal(slimmed.model.first.weight, model.first.weight[[1, 2, 3, 4, 5, 7]])
    assert torch.equal(slimmed.model.out.weight, model.out.weight[:, [2, 1, 4, 3, 6, 7]])


def test_a_dead_depthwise_filter_frees_the_expansion_in_front_of_it():
    model = chain(
        nn.Conv2d(2, 6, 1),
        norm(6),
        nn.ReLU6(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        norm(6, [1, 4], -0.5),
        nn.ReLU6(),
        nn.Conv2d(6, 3, 1),
    )
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [4, 4, 3]
    assert slimmed.model[3].groups == 4


def test_a_depthwise_convolution_left_with_one_channel_is_still_right():
    model = chain(
        nn.Conv2d(2, 4, 1),
        norm(4),
        nn.Conv2d(4, 8, 3, padding=1, groups=4),
        norm(8, range(2, 8), -0.5),
        nn.ReLU6(),
        nn.Conv2d(8, 3, 1),
    )
    assert widths(slim(model, planes()).model) == [1, 2, 3]


@pytest.mark.parametrize("parts", [2, -1])
def test_parts_of_one_depthwise_set_each_go_as_a_whole_only_where_the_code_follows(parts):
    """Four outputs of each of two depthwise inputs, shuffled: two parts in any case, or parts of four."""

    def shuffled(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = m.wide(m.norm(m.first(x)))
        count, channels, *plane = x.shape
        x = x.view(count, parts, channels // 2 if parts == 2 else 4, *plane)
        return m.out(x.transpose(1, 2).reshape(count, channels, *plane))

    model = wired(
        shuffled,
        first=nn.Conv2d(2, 2, 3),
        norm=norm(2, [1]),
        wide=nn.Conv2d(2, 8, 3, groups=2, bias=False),
        out=nn.Conv2d(8, 3, 1),
    )
    assert widths(slim(model, planes()).model) == ([2, 8, 3] if parts == 2 else [1, 4, 3])


def test_squeeze_and_excite_is_cut_with_the_channels_it_scales():
    model = wired(
        lambda m, x: m.out((y := functional.relu(m.norm(m.first(x)))) * m.up(m.down(y.mean((2, 3), True))).sigmoid()),
        first=nn.Conv2d(2, 6, 3),
        norm=norm(6, [0, 5], -0.5),
        down=nn.Conv2d(6, 2, 1),
        up=nn.Conv2d(2, 6, 1),
        out=nn.Conv2d(6, 3, 3, padding=1),
    )
    assert widths(slim(model, planes()).model) == [4, 2, 4, 3]


def test_a_branch_that_nobody_reads_collapses_to_one_channel_a_layer():
    model = wired(
        lambda m, x: m.out((y := m.stem(x)) + m.branch(y)),
        stem=nn.Conv2d(2, 5, 3),
        branch=nn.Sequential(
            nn.Conv2d(5, 7, 3, padding=1), norm(7), nn.ReLU(), nn.Conv2d(7, 5, 3, padding=1), norm(5, range(5), 0.0)
        ),
        out=nn.Conv2d(5, 3, 3),
    )
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [5, 1, 5, 3]
    assert "last channel of branch.0" in reasons(slimmed)


@pytest.mark.parametrize("beta", [0.0, -0.5, 0.5])
@pytest.mark.parametrize("padding", [0, 1])
def test_a_layer_that_is_all_dead_keeps_one_channel(beta, padding):
    model = chain(nn.Conv2d(2, 5, 3), norm(5, range(5), beta), nn.ReLU(), nn.Conv2d(5, 3, 3, padding=padding))
    assert widths(slim(model, planes()).model) == [1, 3]


@pytest.mark.parametrize("beta", [0.0, -0.5, 0.5])
def test_a_network_that_is_all_dead_returns_the_same_constants(beta):
    model = chain(
        nn.Conv2d(2, 5, 3, padding=1),
        norm(5, range(5), beta),
        nn.ReLU(),
        nn.Conv2d(5, 6, 3, padding=1),
        norm(6, range(6), beta),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    assert widths(slim(model, planes()).model) == [1, 1, 3]


def test_constants_that_make_a_kept_channel_zero_are_folded_and_not_forgotten():
    """The last layer reads relu(5 − 10 · (0.4 + 0.44 + 0.48)) = 0; without its constants that would be relu(1)."""
    model = chain(nn.Conv2d(2, 3, 1), norm(3, range(3), 0.4), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    with torch.no_grad():
        model[2].weight.fill_(-10.0)
        model[2].bias.fill_(5.0)
    assert widths(slim(model, planes()).model) == [1, 1, 3]


def test_a_layer_with_one_shared_scale_for_two_calls_is_cut_once():
    conv, shared = nn.Conv2d(4, 4, 3, padding=1), norm(4, [1], 0.3)
    model = wired(
        lambda m, x: m.out(m.norm(m.conv(m.norm(m.conv(m.stem(x)))))),
        stem=nn.Conv2d(2, 4, 1),
        conv=conv,
        norm=shared,
        out=nn.Conv2d(4, 3, 1),
    )
    slim(model, planes())


def test_a_reader_called_twice_folds_equal_constants_once():
    model = wired(
        lambda m, x: m.out(m.n1(m.c1(x))) + m.out(m.n1(m.c1(x.flip(2)))),
        c1=nn.Conv2d(2, 5, 3),
        n1=norm(5, [1, 2], 0.7),
        out=nn.Conv2d(5, 3, 3),
    )
    assert widths(slim(model, planes()).model) == [3, 3]


def test_a_reader_called_on_different_constants_keeps_the_channel():
    model = wired(
        lambda m, x: m.out(m.n1(m.conv(x))) + m.out(m.n2(m.conv(x))),
        conv=nn.Conv2d(2, 5, 3),
        n1=norm(5, [1, 2], 0.7),
        n2=norm(5, [1, 2], -0.4),
        out=nn.Conv2d(5, 3, 3),
    )
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [5, 3]
    assert "constant differs between the calls of out" in reasons(slimmed)
