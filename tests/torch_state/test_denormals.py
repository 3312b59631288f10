"""Denormal numbers count as zero for as long as they are to, and in all of a thread's helpers."""

import threading

import pytest
import torch
from runs import images, recipe
from torch import nn

from slimnet.torch_state.process import DENORMAL, denormals_flushed, flushes, torch_threads
from slimnet.training import train


class Watching(nn.Module):
    """Scores that are random numbers, and a note of how its steps were computed."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 3)
        self.flushed: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.flushed.append(flushes())
        return self.head(x.mean((2, 3)))


def test_it_lasts_as_long_as_the_context_whatever_ends_it():
    assert not flushes()
    with denormals_flushed():
        with denormals_flushed():
            assert flushes()
        assert flushes()
    assert not flushes()
    with pytest.raises(ZeroDivisionError):
        failing()
    assert not flushes()


def failing() -> None:
    with denormals_flushed():
        raise ZeroDivisionError


def test_the_threads_that_begin_meanwhile_do_likewise():
    """A thread of Python's has helpers of its own, which begin with it; each of the two takes half of the numbers."""
    left: list[int] = []

    def compute() -> None:
        left.append(int((torch.full((1_000_000,), DENORMAL) * 2).view(torch.int32).count_nonzero()))

    def in_a_thread() -> None:
        thread = threading.Thread(target=compute)
        thread.start()
        thread.join()

    with torch_threads(2):
        with denormals_flushed():
            in_a_thread()
        in_a_thread()
    assert left == [0, 1_000_000]


def test_steps_are_computed_so_and_nothing_between_them():
    run = train(recipe(arch=f"{__name__}:Watching", arch_args={}), images(), every=2)
    for _ in run:
        assert not flushes()
    assert run.model.flushed[-7:] == [True] * 7
