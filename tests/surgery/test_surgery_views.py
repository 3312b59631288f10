"""The surgery on changes in place and through views, and on code that does not follow a narrower width."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from wiring import double, norm, planes, slim, widths, wired


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


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
    assert any("cummax" in kept.reason and "test_surgery_views.py:" in kept.reason for kept in slimmed.plan.kept)
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
