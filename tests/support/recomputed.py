"""A stand-in for CUDA graphs: what a graph would replay is computed, on the tensors that it would read."""

import pytest
import torch

from slimnet.training.loop import cuda_graph_step
from slimnet.training.loop.cuda_graph_step import CapturedStep


class Recomputed:
    """A step that was captured at an iteration, on a network whose parameters then had these shapes."""

    def __init__(self, step: CapturedStep, iteration: int) -> None:
        self.step, self.iteration = step, iteration
        self.shapes = [tuple(each.shape) for each in step._step.forward.parameters()]

    def replay(self) -> None:
        step = self.step
        step._step(*step._batches.assemble(step._places), self.iteration, step._tally)


def capture_by_recomputing(monkeypatch: pytest.MonkeyPatch) -> list[Recomputed]:
    """Let runs capture their steps without a GPU; returns the captures, which come as runs go on."""
    captures: list[Recomputed] = []

    def capture(step: CapturedStep, brought: tuple[torch.Tensor, ...], iteration: int) -> Recomputed:
        step._places = tuple(torch.zeros_like(each) for each in brought)
        captures.append(Recomputed(step, iteration))
        return captures[-1]

    def aside(step: CapturedStep, brought: tuple[torch.Tensor, ...], iteration: int) -> None:
        step._step(*step._batches.assemble(brought), iteration, step._tally)

    monkeypatch.setattr(cuda_graph_step, "wanted", lambda *_: True)
    monkeypatch.setattr(CapturedStep, "_captured", capture)
    monkeypatch.setattr(CapturedStep, "_aside", aside)
    return captures
