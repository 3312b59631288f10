"""A training run as it is watched, and stopped, from a terminal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from slimnet_cli import terminal

if TYPE_CHECKING:
    from types import FrameType

    from slimnet.training import TrainingRun

STEPS_BETWEEN_REPORTS = 20


def watch(run: TrainingRun, stopped: Callable[[], bool] = lambda: False) -> None:
    """Train to the end, or until `stopped`, and show how it goes."""
    with terminal.progress("Training", run.recipe.iterations) as advance:
        for progress in run:
            dead = f"{100 * progress.sparsity:.0f} % of the filters dead"
            advance(progress.iteration, f"loss {progress.loss:.3f}, {dead}")
            if stopped():
                return


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a wish to stop, which what is yielded tells; a second one interrupts."""
    interrupted = False

    def wish(_: int, __: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, wish)
    try:
        yield lambda: interrupted
    finally:
        signal.signal(signal.SIGINT, before)
