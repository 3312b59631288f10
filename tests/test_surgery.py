"""Small networks, one for each rule of the surgery: what goes, what stays, and that the function is the same."""

from collections.abc import Callable, Sequence

import pytest
import torch
from networks import difference, masked, outputs
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

import slimnet
from slimnet.errors import CertificateError

EXACT = 1e-9


def norm(width: int, dead: Sequence[int] = (), beta: float = 0.0, kind: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
    """A BatchNorm with random statistics; its dead channels have γ = 0 and β near `beta`."""
    module = kind(width)
    with torch.no_grad():
        module.running_mean.normal_()
        module.running_var.uniform_(0.5, 2)
        module.weight.uniform_(0.5, 1.5)
        module.bias.normal_()
        for place, channel in enumerate(dead):
            module.weight[channel] = 0.0
            module.bias[channel] = beta * (1 + 0.1 * place)
    return module


def double(model: nn.Module) -> nn.Module:
    return model.double().eval()


def chain(*modules: nn.Module) -> nn.Sequential:
    return double(nn.Sequential(*modules))


def planes(channels: int = 2, side: int = 6, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, channels, side, side, dtype=torch.float64)


def slim(model: nn.Module, *inputs: torch.Tensor, **settings: object) -> slimnet.Slimmed:
    """Slim a network with γ of exactly zero, and check on fresh inputs that nothing has changed but rounding."""
    fresh = [torch.randn_like(tensor) for tensor in inputs]
    expected = outputs(model, fresh)
    slimmed = slimnet.slim(model, inputs, tolerance=float("inf"), **settings)
    assert difference(expected, outputs(slimmed.model, fresh)) < EXACT
    assert all(torch.equal(left, right) for left, right in zip(expected, outputs(model, fresh), strict=True))
    return slimmed


def widths(model: nn.Module) -> list[int]:
    """The output channels of every convolution and linear layer."""
    found = []
    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            found.append(module.out_channels if isinstance(module, nn.modules.conv._ConvNd) else module.out_features)
    return found


def reasons(slimmed: slimnet.Slimmed) -> str:
    return "\n".join(kept.reason for kept in slimmed.plan.kept)


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


class Wired(nn.Module):
    """Named layers, and a forward written as a function of them and the input."""

    def __init__(self, forward: Callable[..., object], **layers: nn.Module):
        super().__init__()
        self.way = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: torch.Tensor) -> object:
        return self.way(self, *inputs)


def wired(forward: Callable[..., object], **layers: nn.Module) -> nn.Module:
    return double(Wired(forward, **layers))


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


def test_a_channel_that_is_zero_stays_zero_where_it_is_kept():
    """The second layer's outputs are constant, but the sum keeps its channels: what makes them zero must stay."""
    model = wired(
        lambda m, x: m.out(functional.relu(x + m.n2(m.c2(m.n1(m.c1(x)))))).flatten(1).mean(1) + m.out(x).mean(),
        c1=nn.Conv2d(4, 3, 1),
        n1=norm(3, range(3), 0.4),
        c2=nn.Conv2d(3, 4, 1),
        n2=norm(4),
        out=nn.Conv2d(4, 3, 1),
    )
    slim(model, planes(4))
    model = wired(
        lambda m, x: m.out(functional.relu(m.n0(m.c0(x)) + m.n2(m.c2(m.n1(m.c1(x)))))),
        c0=nn.Conv2d(2, 4, 1),
        n0=norm(4, range(4), -9.0),
        c1=nn.Conv2d(2, 3, 1),
        n1=norm(3, range(3), 0.4),
        c2=nn.Conv2d(3, 4, 1),
        n2=norm(4),
        out=nn.Conv2d(4, 3, 1),
    )
    slim(model, planes())


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


def test_numbers_computed_from_the_width_are_refused_by_the_certificate():
    with pytest.raises(CertificateError, match="does NOT hold"):
        slimnet.slim(double(Middle(lambda x: x * (x.shape[1] / 8))), planes())


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


# Networks without BatchNorm, and other ways of being dead


def test_a_network_without_batch_norm_has_nothing_to_remove_and_stays_as_it_is():
    model = chain(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 3))
    slimmed = slim(model, planes())
    assert slimmed.plan.removed_channels == slimmed.plan.dead_channels == 0
    assert torch.equal(slimmed.model[0].weight, model[0].weight)
    assert "nothing to remove" in str(slimmed)


@pytest.mark.parametrize("bias", [False, True])
def test_an_all_zero_filter_is_dead_without_any_batch_norm(bias):
    model = chain(nn.Conv2d(2, 6, 3, bias=bias), nn.ReLU(), nn.Conv2d(6, 3, 3))
    with torch.no_grad():
        model[0].weight[[1, 4]] = 0.0
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [4, 3]
    assert len(slimmed.plan.folds) == int(bias and (model[0].bias[[1, 4]] > 0).any())


def test_a_filter_that_reads_only_dead_channels_is_dead_too():
    model = chain(
        nn.Conv2d(2, 4, 3), norm(4, [1, 2], 0.4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 1)
    )
    with torch.no_grad():
        model[3].weight[0, [0, 3]] = 0.0
    assert widths(slim(model, planes()).model) == [2, 4, 3]


def test_filters_masked_by_torchs_own_pruning_go_with_their_masks():
    model = chain(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 3))
    prune.ln_structured(model[0], "weight", amount=2, n=1, dim=0)
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [4, 3]
    assert slimmed.model[0].weight_mask.shape == slimmed.model[0].weight_orig.shape == (4, 2, 3, 3)
    prune.remove(slimmed.model[0], "weight")
    assert slimmed.model[0].weight.shape == (4, 2, 3, 3)


def loader(*batches: torch.Tensor) -> list[torch.Tensor]:
    return list(batches)


def silent(channels: Sequence[int], module: nn.Module) -> nn.Module:
    """The layer with a bias so negative that these channels never pass a ReLU."""
    with torch.no_grad():
        module.bias[list(channels)] = -100.0
    return module


def test_channels_that_are_zero_on_all_the_data_are_dead_by_activation():
    model = chain(silent([0, 3], nn.Conv2d(2, 5, 3)), nn.ReLU(), nn.Conv2d(5, 3, 3, padding=1))
    slimmed = slim(model, planes(), criterion="activation", loader=loader(planes(), planes()))
    assert torch.equal(slimmed.model[0].weight, model[0].weight[[1, 2, 4]])


def test_one_example_on_which_a_channel_fires_keeps_it_alive():
    model = chain(silent([0, 3], nn.Conv2d(2, 5, 3)), nn.ReLU(), nn.Conv2d(5, 3, 3, padding=1))
    loud = torch.full((1, 2, 6, 6), 1000.0, dtype=torch.float64) * model[0].weight[0].sum((1, 2)).sign()[:, None, None]
    slimmed = slim(model, planes(), criterion="activation", loader=loader(planes(), loud))
    assert 0 not in {channel for kept in slimmed.plan.kept for channel in kept.channels}
    assert torch.equal(slimmed.model[0].weight[0], model[0].weight[0])


def test_a_dead_channel_that_must_stay_still_reads_what_makes_it_dead():
    """The network returns relu(c − b − a) = 0 of three equal channels; a and b are read by nothing else."""
    model = wired(
        lambda m, x: functional.relu(m.second(functional.relu(m.first(x)))),
        first=nn.Conv2d(2, 5, 1),
        second=nn.Conv2d(5, 2, 1),
    )
    with torch.no_grad():
        model.first.weight[[1, 2]] = model.first.weight[3].clone()
        model.first.bias[[1, 2]] = model.first.bias[3].clone()
        model.second.weight[:, :, 0, 0] = torch.tensor([[0.0, -1, -1, 1, 0], [1, 0, 0, 1, 1]])
        model.second.bias[:] = torch.tensor([0.0, 1])
    slimmed = slim(model, planes(), criterion="activation", loader=loader(planes()))
    assert widths(slimmed.model) == [5, 2]


def test_a_functional_activation_is_measured_at_each_of_its_calls():
    model = wired(
        lambda m, x: m.out(functional.relu(m.second(functional.relu(m.first(x))))),
        first=silent([1], nn.Conv2d(2, 5, 3)),
        second=silent([0, 2], nn.Conv2d(5, 5, 3)),
        out=nn.Conv2d(5, 3, 1),
    )
    slimmed = slim(model, planes(), criterion="activation", loader=loader(planes()))
    assert torch.equal(slimmed.model.first.bias, model.first.bias[[0, 2, 3, 4]])
    assert torch.equal(slimmed.model.second.bias, model.second.bias[[1, 3, 4]])


# Kinds of layers


def test_synchronised_batch_norm_is_batch_norm():
    bn = nn.SyncBatchNorm.convert_sync_batchnorm(norm(5, [1, 3], 0.7))
    slimmed = slim(chain(nn.Conv2d(2, 5, 3), bn, nn.ReLU(), nn.Conv2d(5, 3, 3)), planes())
    assert widths(slimmed.model) == [3, 3]
    assert slimmed.model[1].num_features == 3
    assert type(slimmed.model[1]) is nn.SyncBatchNorm


def test_a_batch_norm_without_scale_passes_constants_on():
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1, 3], 0.7), nn.BatchNorm2d(5, affine=False), nn.Conv2d(5, 3, 3))
    model[2].running_mean.normal_()
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [3, 3]
    assert slimmed.model[2].running_var.shape == (3,)


def test_a_batch_norm_without_statistics_normalises_by_the_batch():
    model = chain(
        nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5, track_running_stats=False), nn.ReLU(), nn.Conv2d(5, 3, 3, padding=1)
    )
    with torch.no_grad():
        model[1].weight[[0, 2]] = 0.0
        model[1].bias[[0, 2]] = 0.3
    assert widths(slim(model, planes()).model) == [4, 3]


def test_prelu_slopes_are_cut_with_their_channels():
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1, 3], -0.7), nn.PReLU(5), nn.Conv2d(5, 3, 3))
    with torch.no_grad():
        model[2].weight.normal_()
    slimmed = slim(model, planes())
    assert torch.equal(slimmed.model[2].weight, model[2].weight[[0, 2, 4]])
    assert slimmed.model[2].num_parameters == 3


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("padding", [0, 1])
def test_transposed_convolutions_are_read_and_written(groups, padding):
    model = chain(
        nn.Conv2d(2, 4, 3),
        norm(4, [0, 3], -0.2),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 8, 3, stride=2, padding=padding, groups=groups),
        norm(8, [1, 6], 0.4),
        nn.ReLU(),
        nn.Conv2d(8, 3, 1),
    )
    slimmed = slim(model, planes())
    assert groups > 1 or widths(slimmed.model) == [2, 6, 3]


def test_a_depthwise_transposed_convolution_is_cut_with_its_channels():
    model = chain(
        nn.Conv2d(2, 4, 3),
        norm(4),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 4, 2, stride=2, groups=4),
        norm(4, [0, 3], -0.4),
        nn.ReLU(),
        nn.Conv2d(4, 3, 1),
    )
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [2, 2, 3]
    assert slimmed.model[3].groups == 2


@pytest.mark.parametrize("dims", [1, 3])
def test_signals_and_volumes_are_slimmed_like_images(dims):
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[dims]
    bn = norm(5, [1, 3], 0.7, {1: nn.BatchNorm1d, 3: nn.BatchNorm3d}[dims])
    slimmed = slim(
        chain(conv(2, 5, 3), bn, nn.ReLU(), conv(5, 3, 3)), torch.randn(2, 2, *[6] * dims, dtype=torch.float64)
    )
    assert widths(slimmed.model) == [3, 3]


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_a_weight_that_is_computed_stays_exact(wrap):
    model = nn.Sequential(nn.Conv2d(2, 5, 3), norm(5, [1, 3], 0.7), nn.ReLU(), nn.Conv2d(5, 3, 3, padding=1))
    wrap(model[0])
    wrap(model[3])
    slim(double(model), planes())


class Attention(nn.Module):
    """A convolutional stem, tokens, self-attention and a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3), norm(6, [1, 4], 0.5), nn.ReLU(), nn.Conv2d(6, 8, 1))
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.stem(x).flatten(2).mT)
        return self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1)


def test_a_convolutional_stem_in_front_of_attention_is_slimmed():
    assert widths(slim(double(Attention()), planes()).model)[:2] == [4, 8]


def test_a_recurrent_layer_keeps_what_it_reads():
    model = wired(
        lambda m, x: m.rnn(m.norm(m.first(m.front(x))).flatten(2).mT)[0],
        front=nn.Sequential(nn.Conv2d(2, 4, 1), norm(4, [2], 0.3)),
        first=nn.Conv2d(4, 5, 3),
        norm=norm(5, [1], 0.5),
        rnn=nn.GRU(5, 4, batch_first=True),
    )
    assert widths(slim(model, planes()).model) == [3, 5]


def test_a_parameter_that_is_added_to_the_planes_is_cut_with_them():
    model = wired(
        lambda m, x: m.out(functional.relu(m.norm(m.first(x)) + m.offset)),
        first=nn.Conv2d(2, 5, 3),
        norm=norm(5, [1, 3], -0.7),
        out=nn.Conv2d(5, 3, 3),
    )
    model.offset = nn.Parameter(torch.randn(1, 5, 1, 1, dtype=torch.float64))
    slimmed = slim(model, planes())
    assert torch.equal(slimmed.model.offset, model.offset[:, [0, 2, 4]])


def test_a_layer_that_only_training_runs_is_cut_as_well():
    class Helped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(2, 5, 3), norm(5, [1, 3], -0.7)
            self.out, self.help = nn.Conv2d(5, 3, 1), nn.Conv2d(5, 2, 1)

        def forward(self, x: torch.Tensor) -> object:
            x = self.norm(self.first(x)).relu()
            return (self.out(x), self.help(x)) if self.training else self.out(x)

    slimmed = slim(double(Helped()), planes())
    assert slimmed.model.help.weight.shape == (2, 3, 1, 1)
    assert len(slimmed.model.train()(planes())) == 2


# What is kept of the network itself


def test_a_scale_below_the_threshold_becomes_exactly_zero():
    model = chain(nn.Conv2d(2, 5, 3), norm(5), nn.ReLU(), nn.Conv2d(5, 3, 3, padding=1))
    with torch.no_grad():
        model[1].weight[[1, 2, 3]] = torch.tensor([5e-4, -9e-4, 1.1e-3]).double()
        model[1].bias[[1, 2, 3]] = 0.5
    slimmed = slimnet.slim(model, planes(), tolerance=0.1)
    x = planes()
    assert difference(outputs(masked(model), [x]), outputs(slimmed.model, [x])) < EXACT
    assert widths(slimmed.model) == [4, 3]
    assert slimmed.model[1].weight.count_nonzero() == 3
    assert [(zeroed.tensor, zeroed.channels) for zeroed in slimmed.plan.zeroed] == [("1.weight", (1, 2))]
    assert 0 < slimmed.certificate.max_rel_difference < 0.1
    assert slimmed.certificate.masked_max_rel_difference < EXACT


def test_a_higher_threshold_removes_more():
    model = chain(nn.Conv2d(2, 5, 3), norm(5), nn.ReLU(), nn.Conv2d(5, 3, 3))
    with torch.no_grad():
        model[1].weight[:] = torch.tensor([1.0, 1e-1, 1e-2, 1e-3, 0.0]).double()
    found = [
        widths(slimnet.slim(model, planes(), threshold, tolerance=float("inf")).model)[0]
        for threshold in (0, 1e-3, 2e-3, 0.5, 9.0)
    ]
    assert found == [4, 4, 3, 1, 1]


def test_every_submodule_keeps_its_own_mode():
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1]), nn.Dropout(), nn.Conv2d(5, 3, 3)).train()
    model[1].eval()
    slimmed = slim(model, planes())
    assert [module.training for module in slimmed.model.modules()] == [True, True, False, True, True]
    assert [module.training for module in model.modules()] == [True, True, False, True, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_floating_type_stays(dtype):
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1, 3], 0.7), nn.ReLU(), nn.Conv2d(5, 3, 3, bias=False)).to(dtype)
    slimmed = slimnet.slim(model, planes().to(dtype), tolerance=0.02)
    assert {t.dtype for t in slimmed.model.state_dict().values() if t.is_floating_point()} == {dtype}
    assert slimmed.certificate.dtype == str(dtype).removeprefix("torch.")
    assert widths(slimmed.model) == [3, 3]


def test_the_memory_format_stays():
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1]), nn.Conv2d(5, 3, 3)).to(memory_format=torch.channels_last)
    narrow = slim(model, planes()).model
    assert all(narrow[i].weight.is_contiguous(memory_format=torch.channels_last) for i in (0, 2))
    assert not narrow[2].weight.is_contiguous()


def test_what_is_trained_and_what_is_frozen_stays():
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1], 0.5), nn.Conv2d(5, 3, 3))
    model[0].weight.requires_grad_(False)
    model[1].bias.requires_grad_(False)
    narrow = slim(model, planes()).model
    assert [p.requires_grad for p in narrow.parameters()] == [p.requires_grad for p in model.parameters()]


def test_shared_parameters_stay_shared():
    model = wired(
        lambda m, x: m.out(m.norm(m.left(x)) + m.norm(m.right(x.flip(3)))),
        left=nn.Conv2d(2, 5, 3),
        right=nn.Conv2d(2, 5, 3),
        norm=norm(5, [1, 3], 0.3),
        out=nn.Conv2d(5, 3, 3),
    )
    model.right.weight = model.left.weight
    narrow = slim(model, planes()).model
    assert widths(narrow) == [3, 3, 3]
    assert narrow.left.weight is narrow.right.weight
    assert narrow.left.bias is not narrow.right.bias


def test_one_module_under_two_names_stays_one_module():
    model = wired(
        lambda m, x: m.out(m.stem(x)),
        stem=nn.Sequential(nn.Conv2d(2, 4, 3), norm(4, [1], -0.5)),
        out=nn.Conv2d(4, 3, 3),
    )
    model.alias = model.stem
    narrow = slim(model, planes()).model
    assert narrow.alias is narrow.stem
    assert widths(narrow) == [3, 3]


def test_hooks_of_the_dense_network_run_in_the_slim_one():
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1], 0.5), nn.Conv2d(5, 3, 3))
    model[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    slim(model, planes())


def test_a_network_inside_no_grad_or_inference_mode_is_slimmed_alike():
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1], 0.5), nn.Conv2d(5, 3, 3))
    x = planes()
    with torch.no_grad():
        first = slim(model, x).plan
    with torch.inference_mode():
        second = slimnet.slim(model, x).plan
    assert first == second == slim(model, x).plan
