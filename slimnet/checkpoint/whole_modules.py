"""Whole networks in a checkpoint: modules that a script pickled, in the entries where it would save their weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from slimnet.checkpoint import mismatch
from slimnet.checkpoint.weights import AVERAGED, AVERAGES, DEEPEST, WRAPPERS
from slimnet.errors import CheckpointError

SHORT = (torch.float16, torch.bfloat16)
"""The types in which weights are stored to save space, not to compute with on a CPU."""


@dataclass(frozen=True)
class WholeModule:
    """A pickled network, and the entry of the checkpoint where it was."""

    place: str
    module: nn.Module

    @property
    def averaged(self) -> bool:
        """Whether the entry says that it is a moving average."""
        return AVERAGED.search(self.place) is not None


def modules_in(content: Any, place: tuple[str, ...] = ()) -> Iterator[WholeModule]:
    """The networks in a checkpoint, plain ones and averages in the order in which they are looked for."""
    if isinstance(content, nn.Module):
        yield WholeModule(".".join(place), unwrapped(content))
    elif isinstance(content, Mapping) and len(place) < DEEPEST:
        for entry in (*WRAPPERS, *AVERAGES):
            yield from modules_in(content.get(entry), (*place, entry))


def unwrapped(module: nn.Module) -> nn.Module:
    """A network without the wrapper of a training on several devices."""
    return module.module if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel) else module


def with_states(content: Any, depth: int = 0) -> Any:
    """A checkpoint with the state dict of each network in the place of it."""
    if isinstance(content, nn.Module):
        return unwrapped(content).state_dict()
    if not isinstance(content, Mapping) or depth >= DEEPEST:
        return content
    entries = (*WRAPPERS, *AVERAGES)
    return {key: with_states(value, depth + 1) if key in entries else value for key, value in content.items()}


def chosen_module(content: Any, asked: str | None) -> tuple[WholeModule, str]:
    """The network that was asked for among those of a checkpoint, and what somebody should know who did not choose.

    "ema" asks for a moving average, "plain" for none, anything else for an entry; without it a plain one is preferred.

    Raises:
        CheckpointError: there is none, or none of that name.
    """
    found = list(modules_in(content))
    if not found:
        raise CheckpointError(nothing_found(content))
    fitting = [each for each in found if fits(each, asked)]
    if not fitting:
        places = mismatch.listed([each.place or "the file itself" for each in found])
        raise CheckpointError(f"has no network {asked!r}, only those in {places}; leave --weights out, or name one")
    taken = min(fitting, key=lambda each: each.averaged)
    averages = [each.place for each in found if each.averaged]
    if asked is None and taken.averaged:
        return taken, f"took the averaged network in {taken.place}: there is no plain one"
    if asked is None and averages:
        return taken, f"took the plain network, not the averaged one in {mismatch.listed(averages)} (--weights ema)"
    return taken, ""


def fits(network: WholeModule, asked: str | None) -> bool:
    """Whether a network is one that was asked for."""
    kinds = {None: True, "plain": not network.averaged, "ema": network.averaged}
    return kinds.get(asked, network.place == asked)


def nothing_found(content: Any) -> str:
    """Why a checkpoint holds no network."""
    if not isinstance(content, Mapping):
        return f"holds an object of type {type(content).__name__}, not a network; save the module itself"
    empty = [entry for entry in (*WRAPPERS, *AVERAGES) if entry in content and content[entry] is None]
    if empty:
        return f"holds no network: its entry {empty[0]!r} is None; take a checkpoint from the end of the training"
    if with_states(content) and any(isinstance(content.get(entry), Mapping) for entry in (*WRAPPERS, *AVERAGES)):
        return "holds weights without their network; name the network with --arch"
    names = mismatch.listed([str(key) for key in content]) or "none"
    return f"holds no network: its entries are {names}; save {{'model': model}}, or name the network with --arch"


def widened(module: nn.Module) -> str:
    """Convert a network that was stored in 16 bits to float32, in place; what was done, or ""."""
    short = {tensor.dtype for tensor in (*module.parameters(), *module.buffers())} & set(SHORT)
    if not short:
        return ""
    module.float()
    names = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in short))
    return f"its weights are stored in {names}, and were converted to float32"
