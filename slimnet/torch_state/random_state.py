"""The random numbers of the process: torch's on the CPU and on devices, Python's own and NumPy's."""

import random
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from slimnet.torch_state.process_patch import ProcessPatch

DRAWING = threading.RLock()
"""Held while random numbers are drawn that are then given back: all threads share one generator of each kind."""


@dataclass(frozen=True)
class RandomState:
    """Where every generator of the process stands, those of `devices` beside the CPU's."""

    devices: tuple[torch.device, ...]
    states: list[torch.Tensor]
    python: Any
    numpy: Any

    @classmethod
    def now(cls, devices: Iterable[torch.device] = ()) -> "RandomState":
        """Where they stand."""
        drawing = tuple(with_random_numbers(devices))
        return cls(drawing, random_number_states(drawing), random.getstate(), np.random.get_state(legacy=False))

    def restore(self) -> None:
        """Let them draw from here on what they drew after this state."""
        set_random_numbers(self.states, self.devices)
        random.setstate(self.python)
        np.random.set_state(self.numpy)

    def moved(self) -> bool:
        """Whether any of them has drawn since."""
        found = RandomState.now(self.devices)
        return not (all(map(torch.equal, self.states, found.states)) and self.alike_on_host(found))

    def alike_on_host(self, other: "RandomState") -> bool:
        """Whether Python's and NumPy's generators stand where they do in another state."""
        return self.python == other.python and equal_states(self.numpy, other.numpy)


def equal_states(left: Any, right: Any) -> bool:
    """Whether two states of NumPy's generator are equal: dicts of numbers, arrays, text and dicts."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal_states(left[key], right[key]) for key in left)
    return bool(np.array_equal(left, right))


def random_number_states(devices: Iterable[torch.device]) -> list[torch.Tensor]:
    """The states of the random numbers of the CPU, and then of those of the devices that have some of their own."""
    drawing = with_random_numbers(devices)
    return [torch.get_rng_state(), *(torch.get_device_module(each).get_rng_state(each) for each in drawing)]


def set_random_numbers(states: Sequence[torch.Tensor], devices: Iterable[torch.device]) -> None:
    """Go on from states that `random_number_states` gave; those of another kind of device are left out."""
    torch.set_rng_state(states[0])
    for each, state in zip(with_random_numbers(devices), states[1:], strict=False):
        module = torch.get_device_module(each)
        if module.get_rng_state(each).shape == state.shape:
            module.set_rng_state(state, each)


def with_random_numbers(devices: Iterable[torch.device]) -> list[torch.device]:
    """Those of some devices that draw random numbers of their own; Apple's keep theirs out of torch's reach."""
    return [each for each in dict.fromkeys(devices) if each.type not in ("cpu", "meta", "mps")]


@contextmanager
def random_numbers_back(devices: Iterable[torch.device]) -> Iterator[None]:
    """Give torch's random numbers back that are drawn while the context lasts, those of the devices as well.

    Other threads are not kept from drawing, as a training of hours must not.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([]))
        for each in with_random_numbers(devices):
            stack.enter_context(torch.random.fork_rng([each], device_type=each.type))
        yield


@contextmanager
def random_numbers_kept(model: nn.Module | None = None) -> Iterator[RandomState]:
    """Give the random numbers back that a forward of the network draws, on its devices as well.

    No other thread of slimnet's draws meanwhile. Yields where the generators stood: a second forward after `restore`
    draws what the first one did.
    """
    tensors = () if model is None else (*model.parameters(), *model.buffers())
    with DRAWING:
        before = RandomState.now(tensor.device for tensor in tensors)
        try:
            yield before
        finally:
            before.restore()


def _stand() -> RandomState:
    with DRAWING:
        return RandomState.now()


def _put_back(before: RandomState) -> None:
    with DRAWING:
        before.restore()


loader_draws_kept = ProcessPatch(_stand, _put_back)
"""While the context lasts, data loaders may draw from the CPU's generators, which are then put back.

Unlike in `random_numbers_kept`, other threads go on: a loader may wait for them.
"""
