"""The cost that a network in training would have if it were slimmed now."""

import time
from dataclasses import replace

import torch

from slimnet.monitor import Monitor
from slimnet.training.analysis.metrics import DEAD_BELOW
from slimnet.training.loop.progress import Progress
from slimnet.training.loop.training_run import TrainingRun

SHARE = 0.01
"""The fraction of the training time that forecasts may take."""


class Forecaster:
    """Computes the MACs after slimming, at intervals that take little of the training time.

    The plan is made on meta tensors: it computes nothing, draws no random numbers, and reads γ and β in place. A
    network that cannot be traced has no forecast.

    It is made between two reports and not in a parallel thread: planning is pure Python and holds the global lock, so
    the steps would wait for it anyway, and it would read weights that are changing.
    """

    def __init__(self, run: TrainingRun) -> None:
        self._run = run
        self._example = torch.empty(1, run.data.channels, *run.data.image_size, device=run.device)
        self._spent = 0.0
        self._began: float | None = None
        self._possible = True

    def add(self, progress: Progress) -> Progress:
        """The progress with the network's MACs and those after slimming, if a forecast is due."""
        self._began = progress.seconds if self._began is None else self._began
        last = progress.iteration == progress.total
        if not self._possible or not (last or self._spent <= SHARE * (progress.seconds - self._began)):
            return progress
        start = time.perf_counter()
        try:
            found = Monitor(self._run.model, self._example, DEAD_BELOW).read()
        except Exception:  # a failed forecast must not end the run
            self._possible = False
            return progress
        self._spent += time.perf_counter() - start
        return replace(progress, macs=found.macs_dense, macs_if_slimmed=found.macs_if_slimmed)
