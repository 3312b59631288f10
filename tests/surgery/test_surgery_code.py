"""The surgery on code as people write it: the slim network computes the same, whatever the forward does to a tensor.

Every network here has two dead BatchNorms around the code, first with some dead channels and then with nothing but
dead ones: only then does a constant that is wrong reach the outputs.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from wiring import chain, norm, planes, slim, wired

import slimnet

Code = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def around(code: Code, dead: list[int]) -> nn.Module:
    """A dead BatchNorm of 8 channels, some code, and two layers behind it."""
    return wired(
        lambda m, x: m.last(functional.leaky_relu(m.mixed(m.code(m.norm(m.first(x)))))),
        first=nn.Conv2d(2, 8, 3),
        norm=norm(8, dead, 0.6),
        code=Coded(code),
        mixed=nn.Conv2d(8, 8, 1),
        last=nn.Conv2d(8, 3, 3, padding=1),
    )


class Coded(nn.Module):
    def __init__(self, code: Code):
        super().__init__()
        self.code = code

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.code(x)


def check(code: Code) -> list[int]:
    """Slim the code's network with some and with all channels dead; how many channels stay in front of the code."""
    models = [around(code, dead) for dead in ([1, 2, 6], list(range(8)))]
    return [slim(model, planes()).model.first.out_channels for model in models]


def changed(change: Callable[[torch.Tensor], object]) -> Code:
    """The code that changes a tensor in place and hands it on."""

    def code(x: torch.Tensor) -> torch.Tensor:
        change(x)
        return x

    return code


ZERO = torch.tensor([0])

OVERWRITES: dict[str, Callable[[torch.Tensor], object]] = {
    "some elements": lambda x: x.__setitem__(x < 0.3, 0.25),
    "one position": lambda x: x[:, :, 0, 0].copy_(3 * x[:, :, 1, 1]),
    "rows by number": lambda x: x.index_fill_(3, ZERO, 2.0),
    "an example by number": lambda x: x.index_put_((ZERO,), torch.zeros_like(x[:1])),
    "a copy of ones": lambda x: x.index_copy_(0, ZERO, torch.ones_like(x[:1])),
    "scattered": lambda x: x.scatter_add_(3, torch.zeros(x.shape, dtype=torch.long), torch.ones_like(x)),
    "masked by a tensor": lambda x: x.masked_fill_(x > 0, torch.tensor(0.7)),
    "one column of fives": lambda x: x[..., 0].fill_(5.0),
    "everything": lambda x: x.fill_(0.3),
    "nothing left": lambda x: x.zero_(),
    "through its data": lambda x: x.data.fill_(0.3),
    "by an out argument": lambda x: torch.add(x.clone(), 1, out=x),
    "through a view, by an op of its own": lambda x: x.view(-1).index_fill_(0, ZERO, 9.0),
    "turned twice": lambda x: x.transpose_(2, 3).unsqueeze_(0).squeeze_(0).mul_(torch.arange(4.0)).transpose_(2, 3),
}


@pytest.mark.parametrize("name", OVERWRITES)
def test_what_is_overwritten_in_place_is_no_constant_any_more(name):
    check(changed(OVERWRITES[name]))


NUMBERS: dict[str, Code] = {
    "a plane of numbers": lambda x: x * torch.linspace(0, 1, 4).view(1, 1, 1, 4).expand(1, x.shape[1], 4, 4),
    "zeros beside ones": lambda x: x * torch.cat([torch.zeros(1, 1, 2, 1), torch.ones(1, 1, 2, 1)], 2),
    "a slope": lambda x: torch.where(x > 0, x, 0.1 * x),
    "at least zero": lambda x: torch.max(x, torch.zeros_like(x)),
    "another number where positive": lambda x: torch.where(x > 0, torch.full_like(x, 0.3), x),
    "a new number for each example": lambda x: x + x.new_full((x.shape[0], 1, 1, 1), 0.3),
    "written into an empty tensor": lambda x: torch.empty_like(x).copy_(x),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_tensors_filled_by_the_code_are_taken_for_what_they_hold(name):
    kept = check(NUMBERS[name])
    assert kept == ([8, 8] if name in ("a plane of numbers", "zeros beside ones") else [5, 1])


def first_eight(x: torch.Tensor) -> torch.Tensor:
    """Subtracts the means of what are channels as long as there are eight."""
    parts = x.view(x.shape[0], 8, -1)
    return (parts - parts.mean(2, keepdim=True)).view(x.shape)


WIDTHS: dict[str, Code] = {
    "a factor": lambda x: x * (x.shape[1] / 8),
    "a quotient": lambda x: x / math.sqrt(x.shape[1]),
    "a bound": lambda x: torch.clamp(x, max=x.shape[1] / 8),
    "a tensor": lambda x: x * torch.tensor(x.shape[1] / 8, dtype=x.dtype),
    "a filled tensor": lambda x: x + torch.full((1, x.shape[1], 1, 1), x.shape[1] / 8, dtype=x.dtype),
    "a condition": lambda x: x if x.shape[1] > 6 else 2 * x,
    "the number of all elements": lambda x: x * (x.numel() / x.shape[0]) ** -0.5,
    "a size that fits another width as well": first_eight,
    "a ramp": lambda x: (-x).relu() * (torch.arange(4.0, dtype=x.dtype) / x.shape[1]),
    "a kernel": lambda x: functional.conv2d(x, BLUR.expand(x.shape[1], 1, 3, 3) / x.shape[1], groups=x.shape[1]),
    "places": lambda x: functional.grid_sample((-x).relu(), places(x) * x.shape[1] / 8, align_corners=False),
    "a shift": lambda x: x.roll(x.shape[1] // 4, 3),
    "a size of planes": lambda x: functional.interpolate(x, scale_factor=x.shape[1] / 4),
    "a window": lambda x: functional.avg_pool2d(x, x.shape[1] // 4, 1),
    "a row": lambda x: x[:, :, x.shape[1] // 4 - 1 :],
    "a step": lambda x: x[:, :, :: x.shape[1] // 4],
    "what is filled in": lambda x: x.clone().fill_(x.shape[1] / 8) + x,
    "which axis": lambda x: x.flip(3 if x.shape[1] > 6 else 2),
    "the order of axes": lambda x: x.transpose(2, 3) if x.shape[1] > 6 else x,
    "an op more": lambda x: x if x.shape[1] > 6 else x.flip(3),
    "what a border is made of": lambda x: functional.pad(0 * x, (1, 1), value=x.shape[1] - 8.0),
}


@pytest.mark.parametrize("name", WIDTHS)
def test_arithmetic_on_a_width_keeps_the_width(name):
    model = around(WIDTHS[name], [1, 2, 6])
    slimmed = slim(model, planes())
    assert slimmed.model.first.out_channels == 8
    kept = {kept.reason for kept in slimmed.plan.kept if kept.layer == "first"}
    assert all("test_surgery_code.py:" in reason and "hard-codes a width" in reason for reason in kept)
    assert slimmed.plan == slimnet.inspect(model, planes()).plan


# Tied weights


def test_an_autoencoder_with_tied_weights_is_cut_on_both_sides():
    """Oracle: the dense network. The decoder reads the encoder's filters along their other axis."""
    model = wired(
        lambda m, x: functional.conv_transpose2d(m.code(m.down(m.stem(x))).relu(), m.down.weight),
        stem=nn.Sequential(nn.Conv2d(2, 6, 1), norm(6, [1, 4], 0.5), nn.ReLU()),
        down=nn.Conv2d(6, 5, 3),
        code=norm(5, [0, 3], -0.5),
    )
    assert slim(model, planes()).model.down.weight.shape[0] == 3


# Channels that are kept no longer than needed


BLUR = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=torch.float64).reshape(1, 1, 3, 3) / 16


def places(x: torch.Tensor) -> torch.Tensor:
    """Where to sample, `(N, 4, 4, 2)`: the corners and their surroundings."""
    line = torch.linspace(-0.9, 0.9, 4, dtype=x.dtype)
    return torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).expand(x.shape[0], -1, -1, -1)


SPARE: dict[str, tuple[Code, list[int]]] = {
    "circular padding": (lambda x: functional.pad(x, (1, 1, 2, 0), mode="circular"), [5, 1]),
    "a border of zeros written into": (lambda x: x.new_zeros(x.shape).copy_(x), [5, 1]),
    "shuffled channels": (lambda x: functional.channel_shuffle(x, 2), [6, 2]),
    "gated halves": (lambda x: functional.glu(torch.cat([x, x], 1), 1), [5, 1]),
    "log of a sigmoid": (functional.logsigmoid, [5, 1]),
    "without what is not a number": (lambda x: torch.where(torch.isnan(x), torch.zeros_like(x), x), [5, 1]),
    "two copies summed": (lambda x: torch.stack([x, 2 * x], 1).sum((1,)), [5, 1]),
    "the larger of two copies": (lambda x: torch.stack([x, 2 * x], -1).max(-1).values, [5, 1]),
    "sorted": (lambda x: x.sort(3).values + x.topk(2, 2).values.mean(2, keepdim=True), [5, 1]),
    "in another basis": (lambda x: torch.fft.irfft2(torch.fft.rfft2((-x).relu()), s=x.shape[2:]), [5, 1]),
    "real and imaginary parts": (
        lambda x: (
            torch.complex((-x).relu(), torch.zeros((), dtype=x.dtype)).mul(1j).add(torch.fft.fft((-x).relu())).abs()
        ),
        [5, 1],
    ),
    "a complex number": (lambda x: (x.relu().to(torch.complex128) * torch.tensor(1j) + torch.tensor(2j)).abs(), [8, 8]),
    "unfolded": (lambda x: functional.fold(functional.unfold((-x).relu(), 3, padding=1), x.shape[2:], 3, 1, 1), [5, 1]),
    "unfolded without zeros": (lambda x: functional.unfold(x, 2).view(*x.shape[:2], 4, 3, 3).amax(2), [5, 1]),
    "sampled at computed places": (
        lambda x: functional.grid_sample(x, places(x), padding_mode="border", align_corners=False),
        [5, 1],
    ),
    "sampled among zeros": (lambda x: functional.grid_sample((-x).relu(), 2 * places(x), align_corners=False), [5, 1]),
    "unpooled": (
        lambda x: functional.max_unpool2d(*functional.max_pool2d((-x).relu(), 2, return_indices=True), 2),
        [5, 1],
    ),
    "random slopes": (lambda x: functional.rrelu((-x).relu()), [5, 1]),
    "blurred alike": (
        lambda x: functional.conv2d((-x).relu(), BLUR.expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1]),
        [5, 1],
    ),
    "blurred by copies": (
        lambda x: functional.conv2d(x, BLUR.repeat(x.shape[1], 1, 1, 1), groups=x.shape[1]),
        [5, 1],
    ),
    "rows by number": (lambda x: x[:, :, [0, 1]][..., torch.tensor([[0, 2], [3, 1]])].flatten(3), [5, 1]),
    "a known mask": (lambda x: x[:, :, torch.tensor([True, False, True, False])], [5, 1]),
    "a known mask of planes": (lambda x: x[..., torch.eye(4) > 0].unsqueeze(3), [5, 1]),
    "pairs of positions": (lambda x: x[:, :, torch.arange(3), torch.arange(3)].unsqueeze(3), [5, 1]),
    "examples by number": (lambda x: x[torch.tensor([2, 1, 0])].index_select(2, torch.tensor([3, 1])), [5, 1]),
    "two legs": (lambda x: torch.hypot(x, torch.fmax(x, -x)), [5, 1]),
    "the mean of three": (lambda x: torch.stack([x, -x, x.relu()]).mean(0), [5, 1]),
}


@pytest.mark.parametrize("name", SPARE)
def test_dead_channels_go_through(name):
    code, left = SPARE[name]
    assert check(code) == left


def test_where_the_largest_values_stand_is_no_value():
    check(lambda x: x + x.max(2, keepdim=True).indices)


def test_one_gate_for_all_channels_and_a_learned_weight_for_each_branch_bind_no_channels_together():
    """As in attention gates and weighted fusion: dead channels go one by one, the gate and the weights stay."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y, weights = m.norm(m.first(x)).relu(), m.weights.softmax(0)
        return m.last(weights[0] * y * m.gate(y).sigmoid() + weights[1] * m.other(m.second(x)).relu())

    model = wired(
        forward,
        first=nn.Conv2d(2, 8, 3),
        norm=norm(8, [1, 2, 6], -0.5),
        gate=nn.Conv2d(8, 1, 1),
        second=nn.Conv2d(2, 8, 3),
        other=norm(8, [0, 2, 6], -0.5),
        last=nn.Conv2d(8, 3, 3, padding=1),
    )
    model.weights = nn.Parameter(torch.randn(2, dtype=torch.float64))
    slimmed = slim(model, planes())
    assert [slimmed.model.first.out_channels, slimmed.model.gate.out_channels] == [6, 1]
    assert slimmed.model.weights.shape == (2,)


@pytest.mark.parametrize("bias", [False, True])
def test_a_linear_layer_on_tokens_folds_constants_into_its_own_bias(bias):
    """Tokens that do not lie behind each other are multiplied first, and the bias is added by another op."""
    model = wired(
        lambda m, x: m.out(m.norm(m.first(x)).flatten(2).transpose(1, 2)),
        first=nn.Conv2d(2, 8, 3),
        norm=norm(8, [1, 2, 6], 0.6),
        out=nn.Linear(8, 3, bias=bias),
    )
    slimmed = slim(model, planes())
    assert slimmed.model.first.out_channels == 5
    constants = model.norm.bias[[1, 2, 6]]
    folded = model.out.weight[:, [1, 2, 6]] @ constants + (model.out.bias if bias else 0)
    torch.testing.assert_close(slimmed.model.out.bias, folded)


@pytest.mark.parametrize("dead", [0, 1])
@pytest.mark.parametrize("part", [0, 1])
def test_of_two_halves_of_one_channel_the_right_one_is_taken(dead, part):
    """Oracle: the dense network; with one channel left, the code would call it the first half whichever it is."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = m.norm(m.first(x))
        y.chunk(2, 1)[part].add_(0.5)
        return m.out(y)

    slim(wired(forward, first=nn.Conv2d(2, 2, 3), norm=norm(2, [dead], 0.6), out=nn.Conv2d(2, 3, 1)), planes())


def test_a_grouped_transposed_convolution_with_other_groups_is_given_a_bias():
    model = chain(
        nn.Conv2d(2, 4, 1),
        norm(4, [0, 2], 0.6),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 4, 1, groups=2, bias=False),
        norm(4, [0, 1, 2], 0.3),
        nn.ReLU(),
        nn.Conv2d(4, 3, 1),
    )
    assert slim(model, planes()).model[3].groups == 1
