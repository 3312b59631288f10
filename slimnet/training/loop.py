"""The training loop: ordinary on purpose, because sparsity comes out of ordinary training."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from slimnet.data import ImageData
from slimnet.errors import SlimnetError, UsageError
from slimnet.models import build
from slimnet.threads import torch_threads
from slimnet.training.metrics import batchnorm_scales, check_fits, sparsity_by_gamma
from slimnet.training.optimisers import make_optimiser, set_initial_values, set_learning_rate
from slimnet.training.order import BatchOrder
from slimnet.training.recipe import Recipe
from slimnet.training.regularisers import Regularisers

HISTORY_POINTS = 50
"""How many snapshots a run keeps, evenly spread over its iterations (all of them in a shorter run)."""

_REPORTS = 2 * HISTORY_POINTS
_LONGEST_SILENCE = 100


@dataclass(frozen=True)
class Progress:
    """Where a run stands after `iteration` of `total` steps.

    `loss` (cross-entropy, without regularisers) and `accuracy` (0..1) are means over the training batches
    since the last report; `sparsity` is the share of convolution channels dead by γ, 0..1; `seconds` is the
    wall time spent in training so far, without what the caller did between reports.
    """

    iteration: int
    total: int
    loss: float
    accuracy: float
    sparsity: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One point of a run's history: its progress and γ `(channels,)` of every BatchNorm by module path."""

    progress: Progress
    scales: dict[str, torch.Tensor]


class TrainingRun(Iterator[Progress]):
    """A network in training: each `next` trains for a few iterations and says where the run stands.

    Iterate to train; stop at any time and go on later. Runs of one recipe on the same data, machine and
    number of threads end with the same bits, whatever else draws random numbers in between.

    Attributes:
        recipe: what is being done.
        model: the network, in train mode; evaluate or save it whenever the run is not inside `next`.
        iteration: steps taken so far.
        history: about fifty snapshots, the last one at the end.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: ImageData,
        *,
        device: torch.device | str = "cpu",
        every: int | None = None,
        threads: int | None = None,
    ) -> None:
        if every is not None and every < 1:
            raise UsageError(f"a report every {every} iterations cannot be; it must be at least 1")
        if threads is not None and threads < 1:
            raise UsageError(f"{threads} threads cannot train; it must be at least 1")
        self.recipe = recipe
        self.iteration = 0
        self.history: list[Snapshot] = []
        self._device = torch.device(device)
        self._every = every or min(_LONGEST_SILENCE, math.ceil(recipe.iterations / _REPORTS))
        self._threads = threads
        self._seconds = 0.0
        self._data = data.to(self._device)
        self._order = BatchOrder(len(data.x_train), recipe.batch_size, recipe.seed)
        with torch.random.fork_rng(self._cuda_devices()):
            torch.manual_seed(recipe.seed)
            self.model: nn.Module = build(recipe.arch, recipe.arch_args).to(self._device).train()
            self._random = self._random_state()
        check_fits(self.model, self._data)
        set_initial_values(recipe, self.model)
        self._optimiser = make_optimiser(recipe, self.model)
        self._regularisers = Regularisers(recipe, self.model)

    def __iter__(self) -> "TrainingRun":
        return self

    def __next__(self) -> Progress:
        """Train until the next report.

        Raises:
            StopIteration: the recipe's iterations are done.
            SlimnetError: the loss is no longer finite.
        """
        total = self.recipe.iterations
        if self.iteration >= total:
            raise StopIteration
        first, start = self.iteration, time.perf_counter()
        with self._own_randomness(), torch_threads(self._threads):
            loss, accuracy = self._train_until(min(total, first + self._every))
        self._seconds += time.perf_counter() - start
        sparsity = sparsity_by_gamma(self.model)
        progress = Progress(self.iteration, total, loss, accuracy, sparsity, self._seconds)
        if self.iteration * HISTORY_POINTS // total > first * HISTORY_POINTS // total:
            self.history.append(Snapshot(progress, batchnorm_scales(self.model)))
        return progress

    def _train_until(self, iteration: int) -> tuple[float, float]:
        """Mean loss and accuracy over the steps taken."""
        first = self.iteration
        # The sums stay on the device, so that no step waits for the one before it.
        loss_sum = torch.zeros((), device=self._device)
        hits = torch.zeros((), device=self._device, dtype=torch.int64)
        while self.iteration < iteration:
            images, labels = self._batch(self.iteration)
            loss, scores = self._step(images, labels)
            loss_sum += loss
            hits += (scores.argmax(1) == labels).sum()
            self.iteration += 1
        steps = iteration - first
        loss_mean = float(loss_sum) / steps
        if not math.isfinite(loss_mean):
            raise SlimnetError(
                f"the loss became {loss_mean} between iterations {first} and {iteration}; "
                f"train with a learning rate below {self.recipe.lr:g}"
            )
        return loss_mean, int(hits) / (steps * self.recipe.batch_size)

    def _batch(self, iteration: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images `(N, C, H, W)`, mirrored as the recipe wants, and their labels `(N,)`."""
        numbers, mirrored = (each.to(self._device) for each in self._order.batch(iteration))
        images = self._data.x_train[numbers]
        if self.recipe.flips:
            images = torch.where(mirrored[:, None, None, None], images.flip(2), images)
        # NHWC bytes become channels_last floats, and convolutions follow the layout of their input. The
        # parameters stay contiguous: converting them too gains nothing more and would leak into checkpoints.
        return self._data.normalise(images), self._data.y_train[numbers]

    def _step(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One optimiser step; returns the loss and the scores `(N, classes)`, both detached."""
        scale = self.recipe.schedule_scale(self.iteration)
        set_learning_rate(self._optimiser, self.recipe.lr * scale)
        scores = self.model(images)
        if not isinstance(scores, torch.Tensor):
            raise UsageError(
                f"{self.recipe.arch} answers with {type(scores).__name__} in training, not with scores; "
                "turn its auxiliary outputs off in arch_args"
            )
        loss = functional.cross_entropy(scores, labels)
        self._optimiser.zero_grad()
        loss.backward()
        self._regularisers.before_step(self._optimiser)
        self._optimiser.step()
        self._regularisers.after_step(scale)
        return loss.detach(), scores.detach()

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """Go on in the run's own random stream (dropout draws from it), and give the caller's back."""
        with torch.random.fork_rng(self._cuda_devices()):
            torch.set_rng_state(self._random[0])
            for device, state in zip(self._cuda_devices(), self._random[1:], strict=True):
                torch.cuda.set_rng_state(state, device)
            try:
                yield
            finally:
                self._random = self._random_state()

    def _random_state(self) -> list[torch.Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(each) for each in self._cuda_devices())]

    def _cuda_devices(self) -> list[torch.device]:
        return [self._device] if self._device.type == "cuda" else []


def train(
    recipe: Recipe,
    data: ImageData,
    *,
    device: torch.device | str = "cpu",
    every: int | None = None,
    threads: int | None = None,
) -> TrainingRun:
    """Begin a run: iterate over it for its `Progress`, then take its `model` and `history`.

    It reports about a hundred times, but at least every hundred iterations; `every` sets another distance.
    `threads` are those of the CPU (torch's own number when None); a small network is fastest on one.

    Raises:
        ArchitectureError: the recipe's network cannot be built.
        DataError: the network does not take the data.
        UsageError: `every` or `threads` below 1.
    """
    return TrainingRun(recipe, data, device=device, every=every, threads=threads)
