"""The digest of a network's weights: equal for equal weights, wherever they are and however they are laid out."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import nn

from slimnet.modules.network import Network

BLOCK = 1 << 20
"""How many values of a tensor that cannot be read in place are copied at once."""


def weights_digest(model: nn.Module | Network) -> str:
    """The SHA-256 (hex) of all parameters and buffers: names, types, shapes and values."""
    return digest_of(owned_tensors(model).items())


def digest_of(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """The same of tensors by name, in whatever order they come; one at a time is held."""
    lines = sorted(f"{name!r} {tensor.dtype} {list(tensor.shape)} {tensor_digest(tensor)}" for name, tensor in tensors)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "backslashreplace")).hexdigest()


def owned_tensors(model: nn.Module | Network) -> Mapping[str, torch.Tensor]:
    """The parameters and buffers of a module, shared ones once, under their first name."""
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in Network.of(model).state.items():
        found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())


def tensor_digest(tensor: torch.Tensor) -> str:
    """The SHA-256 (hex) of a tensor's values in the order of their positions."""
    found = hashlib.sha256()
    plain = tensor.detach()
    plain = (plain if plain.layout is torch.strided else plain.to_dense()).resolve_conj().resolve_neg()
    for block in blocks(plain):
        found.update(block.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def blocks(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The values of a tensor, in order, contiguous on the CPU; all at once where they already are."""
    if tensor.device.type == "cpu" and tensor.is_contiguous():
        yield tensor
    elif tensor.numel() <= BLOCK or not tensor.ndim:
        yield tensor.cpu().contiguous()
    elif tensor.is_contiguous():
        row = tensor.view(-1)
        for start in range(0, row.numel(), BLOCK):
            yield row[start : start + BLOCK].cpu()
    else:
        for part in tensor.split(max(1, BLOCK // math.prod(tensor.shape[1:]))):
            # One row alone may be large too.
            yield from (part.cpu().contiguous(),) if len(part) > 1 else blocks(part[0])
