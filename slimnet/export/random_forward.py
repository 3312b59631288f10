"""Whether a network's outputs depend on random numbers, and of which generator."""

import random
from collections.abc import Callable

import numpy as np
import torch

from slimnet.errors import ExportError
from slimnet.modules.example_inputs import Inputs
from slimnet.surgery.equivalence import relative_difference
from slimnet.torch_state.random_state import RandomState, random_numbers_kept

Runner = Callable[[Inputs], list[torch.Tensor]]
"""Runs one form of a network."""


def depends_on_random_numbers(run: Runner, inputs: Inputs) -> bool:
    """Whether a network's outputs depend on torch's random numbers.

    Raises:
        ExportError: they depend on those of Python or NumPy, which become constants in an exported network.
    """
    with random_numbers_kept() as start:
        expected = run(inputs)
        end = RandomState.now()
        if not start.moved():
            return False
        if not start.alike_on_host(end) and differs(run, inputs, expected, start, draw_on_host):
            raise ExportError(
                "the forward draws random numbers with Python's random or NumPy, of which an exported network would "
                "keep those of its export for ever; draw them with torch"
            )
        return differs(run, inputs, expected, start, draw_with_torch)


def differs(
    run: Runner, inputs: Inputs, expected: list[torch.Tensor], start: RandomState, draw: Callable[[], object]
) -> bool:
    """Whether a network's outputs change after `draw` has advanced a generator."""
    start.restore()
    draw()
    return relative_difference(expected, run(inputs)) != 0


def draw_on_host() -> None:
    """Draw a number from Python's generator, and one from NumPy's."""
    random.random()
    np.random.random()


def draw_with_torch() -> None:
    """Draw a number from torch's generator."""
    torch.rand(1, device="cpu")
