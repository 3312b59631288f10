"""Small networks, one for each rule of the surgery: what goes, what stays, and that the function is the same."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from wiring import chain, double, norm, planes, reasons, slim, widths, wired


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


# In-place operations and views


def test_an_in_place_op_on_a_view_changes_the_constants_of_what_is_read_later():
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = m.norm(m.first(x))
        early = m.early(x)
        x.chunk(2, 1)[1].add_(2.0)
        return early + m.late(x)

    model = wired(
        forward,
        first=nn.Conv2d(2, 6, 3),
        norm=norm(6, [0, 1, 4, 5], 0.5),
        early=nn.Conv2d(6, 3, 3),
        late=nn.Conv2d(6, 3, 3),
    )
    slim(model, planes())


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.view(x.shape[0], -1).relu_(),
        lambda x: x[:, :, :2].zero_(),
        lambda x: x[..., 0].mul_(3.0),
        lambda x: x.permute(0, 2, 3, 1).sub_(1.0),
        lambda x: x.transpose(2, 3)[:, :, 1:].neg_(),
        lambda x: x.detach().clamp_(max=0.1),
        lambda x: x.unbind(0)[1].add_(1.0),
        lambda x: x[1:].copy_(x[:-1].clone()),
        lambda x: x.flatten(2).fill_(0.25),
        lambda x: x.masked_fill_(x > 0.2, 0.7),
        lambda x: x.data.exp_(),
    ],
)
def test_whatever_is_changed_through_a_view_the_next_reader_sees(change):
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = m.norm(m.first(x))
        early = m.early(x)
        change(x)
        return early + m.late(x)

    model = wired(
        forward,
        first=nn.Conv2d(2, 6, 3),
        norm=norm(6, [0, 1, 4], 0.5),
        early=nn.Conv2d(6, 3, 3),
        late=nn.Conv2d(6, 3, 3),
    )
    slim(model, planes())


# Code that does not follow


class Middle(nn.Module):
    """A dead BatchNorm, some code behind it, and a layer that reads what the code returns."""

    def __init__(self, code: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.code = code
        self.first, self.norm = nn.Conv2d(2, 8, 3), norm(8, [1, 2, 6], 0.6)
        read = code(torch.zeros(1, 8, 4, 4))
        self.out = nn.Conv2d(read.shape[1], 3, 3, padding=1) if read.ndim == 4 else nn.Linear(read.shape[-1], 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.code(functional.leaky_relu(self.norm(self.first(x)))))


CODE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "split by a number": lambda x: torch.cat(x.split(4, 1)[::-1], 1),
    "split by an odd number": lambda x: x.split(3, 1)[0],
    "chunk": lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1],
    "view by a number": lambda x: x.view(x.shape[0], 8, -1).mean(2),
    "view in parts by numbers": lambda x: x.view(-1, 2, 4, 4, 4).amax(1),
    "view in parts that follow": lambda x: x.view(x.shape[0], 2, -1, 4, 4).amax(1),
    "unflatten": lambda x: x.unflatten(1, (2, 4)).flatten(1, 2),
    "slice": lambda x: x[:, 2:6],
    "negative slice": lambda x: x[:, -3:],
    "every second": lambda x: x[:, ::2],
    "index": lambda x: x[:, [0, 1, 1, 6]],
    "index_select": lambda x: x.index_select(1, torch.tensor([1, 3, 5])),
    "flip of channels": lambda x: x.flip(1),
    "roll of channels": lambda x: x.roll(1, 1),
    "flip of rows": lambda x: x.flip(2),
    "sort": lambda x: x.sort(1).values,
    "topk": lambda x: x.topk(3, 1).values,
    "softmax over channels": lambda x: x.softmax(1),
    "softmax over the plane": lambda x: x.flatten(2).softmax(2).unflatten(2, (4, 4)),
    "mean over channels": lambda x: x - x.mean(1, keepdim=True),
    "maximum over channels": lambda x: x * x.amax(1, keepdim=True),
    "norm over channels": lambda x: functional.normalize(x, dim=1),
    "group norm": lambda x: functional.group_norm(x, 2),
    "layer norm": lambda x: functional.layer_norm(x, [x.shape[1], 4, 4]),
    "instance norm": lambda x: functional.instance_norm(x),
    "cumsum over channels": lambda x: x.cumsum(1),
    "cumsum over rows": lambda x: x.cumsum(2),
    "local response norm": lambda x: functional.local_response_norm(x, 3),
    "pixel shuffle": lambda x: functional.pixel_shuffle(x, 2),
    "pixel unshuffle": lambda x: functional.pixel_unshuffle(x, 2),
    "channel shuffle": lambda x: functional.channel_shuffle(x, 2),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "expand": lambda x: x.unsqueeze(2).expand(-1, -1, 3, -1, -1).flatten(1, 2),
    "stack": lambda x: torch.stack([x, 2 * x], 2).flatten(1, 2),
    "padded channels": lambda x: functional.pad(x, (0, 0, 0, 0, 1, 2)),
    "padded planes": lambda x: functional.pad(x, (1, 0, 2, 0), value=0.5),
    "negative padding": lambda x: functional.pad(x, (-1, 0, 0, -1)),
    "added numbers": lambda x: x + torch.arange(8.0).to(x).view(1, 8, 1, 1),
    "added plane": lambda x: x + torch.linspace(0, 1, 4).to(x),
    "gram matrix": lambda x: x.flatten(2) @ x.flatten(2).mT,
    "attention over the plane": lambda x: functional.scaled_dot_product_attention(*[x.flatten(2).mT] * 3),
    "einsum over channels": lambda x: torch.einsum("nchw,nchw->nhw", x, x).flatten(1),
    "einsum over the plane": lambda x: torch.einsum("nchw->nc", x),
    "transposed plane": lambda x: x.transpose(1, 3),
    "channels last": lambda x: x.to(memory_format=torch.channels_last).contiguous(),
    "interpolation": lambda x: functional.interpolate(x, scale_factor=1.5, mode="bilinear"),
    "grid sample": lambda x: functional.grid_sample(x, torch.zeros(x.shape[0], 4, 4, 2).to(x), align_corners=False),
    "unfold": lambda x: functional.unfold(x, 2).mT,
    "complex numbers": lambda x: torch.fft.rfft2(x).abs(),
    "where": lambda x: torch.where(x > 0.1, x, x.mean((2, 3), keepdim=True)),
    "clamped by another": lambda x: torch.clamp(x, min=x.mean((2, 3), keepdim=True)),
    "variance of the plane": lambda x: x.var((2, 3)),
    "sum over everything": lambda x: x / x.sum(),
    "quotient": lambda x: x / (1 + x.abs().sum(1, keepdim=True)),
    "outer product": lambda x: (x.mean((2, 3))[:, :, None] * x.mean((2, 3))[:, None]).flatten(1),
    "glu": lambda x: functional.glu(x, 1),
    "argmax": lambda x: x.argmax(1, keepdim=True).to(x).expand(-1, 3, -1, -1),
    "max with indices": lambda x: functional.max_pool2d(x, 2, return_indices=True)[0],
    "unpooled": lambda x: functional.max_unpool2d(*functional.max_pool2d(x, 2, return_indices=True), 2),
    "power average": lambda x: functional.lp_pool2d(x.abs() + 1, 2, 2),
    "float and back": lambda x: x.to(torch.float32).to(x.dtype),
    "integer and back": lambda x: x + (3 * x).to(torch.int64).to(x),
    "mask of positives": lambda x: x * (x > 0),
    "mask filled": lambda x: x.masked_fill(x > 0.2, 0.7),
    "multiplied by a number": lambda x: 3 * x * 0.5,
    "batch in the channels": lambda x: x.reshape(1, -1, 4, 4).reshape(-1, x.shape[1], 4, 4),
    "spatial size in code": lambda x: x.reshape(-1, x.shape[1] * 16),
    "new_zeros": lambda x: torch.cat([x, x.new_zeros(x.shape[0], 2, 4, 4)], 1),
    "zeros_like": lambda x: x + torch.zeros_like(x),
    "full_like": lambda x: torch.cat([x, torch.full_like(x, 0.5)], 1),
    "size in a mean": lambda x: x.sum(1, keepdim=True) / x.shape[1],
    "rounded": lambda x: x.round(decimals=1),
    "list of channels": lambda x: torch.stack([x[:, i] for i in range(x.shape[1])], 1),
    "fold": lambda x: functional.fold(functional.unfold(x, 2), (4, 4), 2),
    "tensor split": lambda x: torch.cat(torch.tensor_split(x, 3, 1)[::-1], 1),
    "narrow": lambda x: x.narrow(1, 0, 4),
    "movedim": lambda x: x.movedim(1, -1),
    "cdist": lambda x: torch.cdist(x.flatten(2), x.flatten(2)),
    "multiplied with itself": lambda x: x * x.flip(1),
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", CODE)
def test_the_slim_network_is_exact_whatever_code_is_in_between(name):
    slim(double(Middle(CODE[name])), planes())


def test_an_unknown_op_keeps_its_channels_and_the_plan_says_where_it_is():
    slimmed = slim(double(Middle(lambda x: torch.cummax(x, 1).values)), planes())
    assert widths(slimmed.model) == [8, 3]
    assert any("cummax" in kept.reason and "test_surgery.py:" in kept.reason for kept in slimmed.plan.kept)
    assert {channel for kept in slimmed.plan.kept if kept.layer == "first" for channel in kept.channels} == {1, 2, 6}


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("view by a number", 8),
        ("view in parts by numbers", 8),
        ("slice", 8),
        ("flip of rows", 6),
        ("interpolation", 6),
        ("spatial size in code", 5),
    ],
)
def test_a_size_written_into_the_code_keeps_channels_and_one_that_follows_does_not(name, width):
    assert widths(slim(double(Middle(CODE[name])), planes()).model)[0] == width
