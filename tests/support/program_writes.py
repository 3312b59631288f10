"""Ops that write into a copy of a feature map `(N, C, H, W)`, into parts of it and by way of views of it."""

from collections.abc import Callable

import torch
from programs import Draws, Way
from torch import nn

Tensor = torch.Tensor


def writing(change: Callable[[Tensor, Tensor, Draws], object]) -> Way:
    """The op that changes y, a feature map x itself or a copy of it, and returns it."""

    def way(x: Tensor, d: Draws) -> Tensor:
        # torch warns of writes into elements that several positions share.
        y = x.clone() if 0 in x.stride() else d.one_of(x, x.clone())
        change(x, y, d)
        return y

    return way


def other(x: Tensor, d: Draws) -> Tensor:
    """Another layer beside x, as wide."""
    c = x.shape[1]
    return d.layer(lambda: nn.Sequential(nn.Conv2d(c, c, 1), nn.BatchNorm2d(c)))(x)


def swap(x: Tensor, y: Tensor, d: Draws) -> None:
    y[:, 0], y[:, -1] = x[:, -1], x[:, 0]


def swap_views(x: Tensor, y: Tensor, d: Draws) -> None:
    first = y[:, 0].clone()
    y[:, 0] = y[:, -1]
    y[:, -1] = first


def add_halves(x: Tensor, y: Tensor, d: Draws) -> None:
    left, right = y.chunk(2, 1) if y.shape[1] > 1 else (y, y)
    left[:, : right.shape[1]].add_(right)


def filled(x: Tensor, d: Draws) -> Tensor:
    """An empty tensor, filled in two parts."""
    y = x.new_empty(x.shape)
    middle = x.shape[1] // 2
    y[:, :middle] = x[:, :middle]
    y[:, middle:] = other(x, d)[:, middle:]
    return y


def filled_planes(x: Tensor, d: Draws) -> Tensor:
    y = torch.zeros_like(x)
    y[..., ::2] = x[..., ::2]
    y[..., 1::2] = other(x, d)[..., 1::2]
    return y


def filled_wider(x: Tensor, d: Draws) -> Tensor:
    y = x.new_zeros(x.shape[0], 2 * x.shape[1], *x.shape[2:])
    y[:, ::2] = x
    y[:, 1::2] = other(x, d)
    return y


def shifted(x: Tensor, d: Draws) -> Tensor:
    """A part of the channels moves left, another right (temporal shift)."""
    y, fold = torch.zeros_like(x), max(1, x.shape[1] // 3)
    y[:, :fold, :, :-1] = x[:, :fold, :, 1:]
    y[:, fold : 2 * fold, :, 1:] = x[:, fold : 2 * fold, :, :-1]
    y[:, 2 * fold :] = x[:, 2 * fold :]
    return y


def out_argument(x: Tensor, d: Draws) -> Tensor:
    y = torch.empty_like(x)
    torch.add(x, other(x, d), out=y)
    return y


def read_between(x: Tensor, d: Draws) -> Tensor:
    """A view is read before and after what it looks at has changed."""
    y = x.clone()
    view = y[:, :2]
    before = view.relu()
    y.mul_(other(x, d))
    return torch.cat([before, view], 1)


def partial_conv(x: Tensor, y: Tensor, d: Draws) -> None:
    k = max(1, x.shape[1] // 2)
    y[:, :k] = d.layer(lambda: nn.Conv2d(k, k, 3, padding=1))(x[:, :k])


def set_data(x: Tensor, y: Tensor, d: Draws) -> None:
    y.data[:, 0] = x[:, -1]


WRITES: dict[str, Way] = {
    "write_first": writing(lambda x, y, d: y[:, 0].zero_()),
    "write_one": writing(lambda x, y, d: y.select(1, d.below(x.shape[1])).fill_(0.7)),
    "write_some": writing(lambda x, y, d: y[:, : d.below(4)].add_(1)),
    "write_last": writing(lambda x, y, d: y[:, d.below(4) :].mul_(2)),
    "write_half": writing(lambda x, y, d: y[:, : x.shape[1] // 2].relu_()),
    "write_every_second": writing(lambda x, y, d: y[:, ::2].copy_(x[:, -1:])),
    "write_channels": writing(lambda x, y, d: y[:, d.places(2, x.shape[1])].zero_()),
    "write_listed": writing(lambda x, y, d: y.__setitem__((slice(None), [0, -1]), x[:, :1])),
    "write_border": writing(lambda x, y, d: y[..., 0].fill_(1)),
    "write_inner": writing(lambda x, y, d: y[..., 1:-1, 1:-1].copy_(other(x, d)[..., 1:-1, 1:-1])),
    "write_inner_number": writing(lambda x, y, d: y[..., 1:-1, 1:-1].sub_(0.5)),
    "write_diagonal": writing(lambda x, y, d: y.diagonal(0, 2, 3).fill_(0.5)),
    "write_diagonal_channels": writing(lambda x, y, d: y.diagonal(0, 1, 2).fill_(0.5)),
    "write_flat": writing(lambda x, y, d: y.view(-1)[::2].zero_()),
    "write_flat_channels": writing(lambda x, y, d: y.flatten(1)[:, :7].fill_(0.1)),
    "write_turned": writing(lambda x, y, d: y.permute(0, 2, 3, 1).mul_(2)),
    "write_transposed": writing(lambda x, y, d: y.transpose(1, 2)[:, 0].add_(1)),
    "write_example": writing(lambda x, y, d: y[0].add_(1)),
    "write_examples": writing(lambda x, y, d: y[::2].copy_(other(x, d)[::2])),
    "write_masked": writing(lambda x, y, d: y.masked_fill_(x < 0.05, 0.2)),
    "write_mask": writing(lambda x, y, d: y.__setitem__(x > 0.5, 0.5)),
    "write_strided": writing(lambda x, y, d: y.as_strided((3,), (1,), d.below(20)).fill_(0.3)),
    "write_index_add": writing(lambda x, y, d: y.index_add_(1, d.places(1, x.shape[1]), x[:, :1])),
    "write_index_fill": writing(lambda x, y, d: y.index_fill_(1, d.places(1, x.shape[1]), 0.1)),
    "write_index_copy": writing(lambda x, y, d: y.index_copy_(1, d.places(1, x.shape[1]), x[:, -1:])),
    "write_scatter": writing(lambda x, y, d: y.scatter_(1, x.argsort(1), x)),
    "write_scatter_add": writing(lambda x, y, d: y.scatter_add_(3, x.argsort(3), x)),
    "write_put": writing(lambda x, y, d: y.put_(torch.arange(3), x.new_ones(3))),
    "write_fill_diagonal": writing(lambda x, y, d: y[0, 0].fill_diagonal_(0.5)),
    "write_cumsum": writing(lambda x, y, d: y.cumsum_(d.one_of(1, 2))),
    "write_sum": writing(lambda x, y, d: y[:, :1].add_(x.sum(1, keepdim=True))),
    "write_lerp": writing(lambda x, y, d: y.lerp_(other(x, d), 0.3)),
    "write_addcmul": writing(lambda x, y, d: y.addcmul_(x, other(x, d))),
    "write_clamp": writing(lambda x, y, d: y.clamp_(0.1).sqrt_()),
    "write_tril": writing(lambda x, y, d: y.tril_()),
    "write_unbound": writing(lambda x, y, d: [each.mul_(i + 1) for i, each in enumerate(y.unbind(1))]),
    "write_split": writing(lambda x, y, d: [each.add_(i) for i, each in enumerate(y.split(2, 1))]),
    "write_rows": writing(lambda x, y, d: [each.mul_(i + 1) for i, each in enumerate(y.unbind(2))]),
    "write_squeezed": writing(lambda x, y, d: y.unsqueeze_(0).squeeze_(0).transpose_(2, 3)),
    "write_into_itself": writing(lambda x, y, d: y[:, 1:].copy_(x[:, :-1])),
    "write_detached": writing(lambda x, y, d: y.detach().mul_(other(x, d))),
    "write_expanded": writing(lambda x, y, d: y.copy_(x[:, :1])),
    "write_swap": writing(swap),
    "write_swap_views": writing(swap_views),
    "write_halves": writing(add_halves),
    "write_partial_conv": writing(partial_conv),
    "write_data": writing(set_data),
    "filled": filled,
    "filled_planes": filled_planes,
    "filled_wider": filled_wider,
    "shifted": shifted,
    "out_argument": out_argument,
    "read_between": read_between,
}
"""Each op by name."""
