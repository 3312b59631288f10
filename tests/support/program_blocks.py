"""Blocks of several lines that stand between the layers of drawn programs, see `program_ops`."""

import torch
from programs import Draws
from torch import nn
from torch.nn import functional as F

Tensor = torch.Tensor


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.chunk(2, 1) if x.shape[1] > 1 else (x, x)


def shuffled(x: Tensor, d: Draws) -> Tensor:
    n, c, h, w = x.shape
    g = 2 if c % 2 == 0 else 1
    return x.view(n, g, c // g, h, w).transpose(1, 2).reshape(n, c, h, w)


def ghost(x: Tensor, d: Draws) -> Tensor:
    c = x.shape[1]
    cheap = d.layer(lambda: nn.Sequential(nn.Conv2d(c, c, 3, padding=1, groups=c), nn.BatchNorm2d(c), nn.ReLU()))
    return torch.cat([x, cheap(x)], 1)


def ghost_cut(x: Tensor, d: Draws) -> Tensor:
    c = x.shape[1]
    cheap = d.layer(lambda: nn.Sequential(nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False), nn.BatchNorm2d(c)))
    return torch.cat([x, cheap(x)], 1)[:, : c + c // 2]


def branch(x: Tensor, d: Draws) -> Tensor:
    """Another layer beside x, as wide."""
    c = x.shape[1]
    return d.layer(lambda: nn.Sequential(nn.Conv2d(c, c, 1), nn.BatchNorm2d(c), nn.ReLU()))(x)


def excited(x: Tensor, d: Draws) -> Tensor:
    c = x.shape[1]
    gate = d.layer(lambda: nn.Sequential(nn.Conv2d(c, 2, 1), nn.ReLU(), nn.Conv2d(2, c, 1), nn.Sigmoid()))
    return x * gate(x.mean((2, 3), keepdim=True))


def eca(x: Tensor, d: Draws) -> Tensor:
    conv = d.layer(lambda: nn.Conv1d(1, 1, 3, padding=1, bias=False))
    return x * conv(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(-1).sigmoid()


def eca_squeezed(x: Tensor, d: Draws) -> Tensor:
    conv = d.layer(lambda: nn.Conv1d(1, 1, 3, padding=1, bias=False))
    y = conv(F.adaptive_avg_pool2d(x, 1).squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
    return x * y.sigmoid().expand_as(x)


def channel_attention(x: Tensor, d: Draws) -> Tensor:
    q = x.flatten(2)
    return torch.bmm((torch.bmm(q, q.transpose(1, 2)) * 0.1).softmax(-1), q).view_as(x)


def position_attention(x: Tensor, d: Draws) -> Tensor:
    q, v = x.flatten(2), branch(x, d).flatten(2)
    return (v @ (0.1 * q.transpose(1, 2) @ q).softmax(-1).transpose(1, 2)).view_as(x)


def sdpa(x: Tensor, d: Draws) -> Tensor:
    q, v = x.flatten(2).transpose(1, 2), branch(x, d).flatten(2).transpose(1, 2)
    return F.scaled_dot_product_attention(q, q, v).transpose(1, 2).reshape(x.shape)


def selective(x: Tensor, d: Draws) -> Tensor:
    stacked = torch.stack([x, branch(x, d)], 1)
    return (stacked * stacked.mean((3, 4), keepdim=True).softmax(1)).sum(1)


def cbam(x: Tensor, d: Draws) -> Tensor:
    conv = d.layer(lambda: nn.Conv2d(2, 1, 3, padding=1))
    return x * conv(torch.cat([x.max(1, keepdim=True)[0], x.mean(1, keepdim=True)], 1)).sigmoid()


def involution(x: Tensor, d: Draws) -> Tensor:
    n, c, h, w = x.shape
    kernel = d.layer(lambda: nn.Conv2d(c, 9, 1))(x).view(n, 1, 9, h, w)
    return (F.unfold(x, 3, padding=1).view(n, c, 9, h, w) * kernel).sum(2)


def blurred(x: Tensor, d: Draws) -> Tensor:
    c = x.shape[1]
    return F.conv2d(x, torch.full((1, 1, 3, 3), 1 / 9, dtype=x.dtype).expand(c, 1, 3, 3), padding=1, groups=c)


def sized(x: Tensor, d: Draws) -> Tensor:
    """The sizes of the plane, by way of a tensor."""
    h, w = torch.tensor(x.shape[2:]).tolist()
    return x.reshape(x.shape[0], -1, h, w)


def embedded(x: Tensor, d: Draws) -> Tensor:
    table = d.layer(lambda c=x.shape[1]: nn.Embedding(32, c))
    return x + table(torch.arange(x.shape[2])).t().unsqueeze(-1)


def by_lookup(x: Tensor, d: Draws) -> Tensor:
    table = d.table(8)
    return table[x.mul(3).long().clamp(0, 7)] + x


def vmapped(x: Tensor, d: Draws) -> Tensor:
    return torch.vmap(lambda each: each * each.sum(0))(x)


def fourier(x: Tensor, d: Draws) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(x), s=x.shape[2:])


def correlated(x: Tensor, d: Draws) -> Tensor:
    return F.conv2d(x, x[:1, :, :3, :3] * 0.1, padding=1)


def unpooled(x: Tensor, d: Draws) -> Tensor:
    y, places = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(y, places, 2, output_size=x.shape[2:])


def linear_over_channels(x: Tensor, d: Draws) -> Tensor:
    return d.layer(lambda c=x.shape[1]: nn.Linear(c, 5))(x.movedim(1, -1)).movedim(-1, 1)


def flat_linear(x: Tensor, d: Draws) -> Tensor:
    count = x[0].numel()
    layer = d.layer(lambda: nn.Linear(count, 4))
    return x.new_ones(1, 1, 3, 3) * layer(x.flatten(1))[:, :, None, None]


def grouped(x: Tensor, d: Draws) -> Tensor:
    c = x.shape[1]
    return d.layer(lambda: nn.Conv2d(c, c, 3, padding=1, groups=2 if c % 2 == 0 else 1))(x)


def transposed_conv(x: Tensor, d: Draws) -> Tensor:
    return d.layer(lambda c=x.shape[1]: nn.ConvTranspose2d(c, c, 2))(x)


def spread(places: Tensor, x: Tensor) -> Tensor:
    """Positions on the channel axis, the same in every plane, as gather and scatter take them."""
    return places.view(1, -1, 1, 1).expand(x.shape[0], len(places), *x.shape[2:])


def lasting(x: Tensor, d: Draws) -> Tensor:
    """Tokens as transformers have them, from channels-last memory."""
    n, _, h, w = x.shape
    tokens = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).flatten(2).sin()
    return tokens.view(n, h, w, -1).permute(0, 3, 1, 2)


def strided_windows(x: Tensor, d: Draws) -> Tensor:
    y = x.contiguous()
    sides = y.shape[2] - 1, y.shape[3] - 1
    return y.as_strided((*y.shape[:2], 2, 2, *sides), (*y.stride(), *y.stride()[2:])).sum((2, 3))


def products(x: Tensor, d: Draws) -> Tensor:
    y = x.flatten(0, 1)
    return torch.baddbmm(y, y, y.new_ones(y.shape[0], x.shape[3], x.shape[3])).view_as(x)


def conv_over_channels(x: Tensor, d: Draws) -> Tensor:
    rows = x.shape[2]
    conv = d.layer(lambda: nn.Conv1d(rows, rows, 3, padding=1))
    return conv(x.mean(3).transpose(1, 2)).transpose(1, 2).unsqueeze(-1) * x


def grid_sampled(x: Tensor, d: Draws) -> Tensor:
    turn = x.new_tensor([[[0.9, 0.1, 0], [0, 1, 0.1]]]).expand(x.shape[0], 2, 3)
    return F.grid_sample(x, F.affine_grid(turn, x.shape, align_corners=False), align_corners=False)


def heads(x: Tensor, d: Draws) -> Tensor:
    y = x.unflatten(1, (2, -1)).flatten(3)
    return ((y @ y.transpose(2, 3)).softmax(-1) @ y).reshape(x.shape)


def batch_view(x: Tensor, d: Draws) -> Tensor:
    conv = d.layer(lambda: nn.Conv2d(1, 1, 3, padding=1))
    return conv(x.flatten(0, 1).unsqueeze(1)).view(x.shape)


def counted(x: Tensor, d: Draws) -> Tensor:
    return x + torch.count_nonzero(x, d.one_of(2, 3)).to(x.dtype).mean(1)[:, None, None, :]


def bilinear(x: Tensor, d: Draws) -> Tensor:
    y = x.movedim(1, -1)
    return F.bilinear(y, y, d.table(3, x.shape[1], x.shape[1])).movedim(-1, 1)


def windows(x: Tensor, d: Draws) -> Tensor:
    """Attention within windows of 2 × 2, from and to their places."""
    n, c, h, w = x.shape
    y = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, c)
    y = (y @ y.transpose(1, 2)).softmax(-1) @ y
    return y.view(n, h // 2, w // 2, 2, 2, c).permute(0, 5, 1, 3, 2, 4).reshape(x.shape)


def called_twice(x: Tensor, d: Draws) -> Tensor:
    """One layer on two inputs."""
    c = x.shape[1]
    conv = d.layer(lambda: nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.BatchNorm2d(c), nn.ReLU()))
    return torch.cat([conv(x), conv(x.flip(2))], 1)


def in_groups(x: Tensor, d: Draws) -> Tensor:
    """A group after the other, each beside what the one before gave (Res2Net)."""
    parts = x.chunk(2, 1)
    c = parts[0].shape[1]
    conv = d.layer(lambda: nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.BatchNorm2d(c), nn.ReLU()))
    first = conv(parts[0])
    return torch.cat([first, parts[1] + first], 1)
