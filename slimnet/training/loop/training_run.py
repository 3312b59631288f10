"""The training loop: deliberately standard, because sparsity emerges in standard training."""

import copy
import dataclasses
import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from slimnet.data import ImageData
from slimnet.data.validation import divided
from slimnet.errors import SlimnetError, UsageError
from slimnet.models import build
from slimnet.modules.copying import check_filled
from slimnet.shrinking.projection_record import ProjectionRecord
from slimnet.surgery.plan import SurgeryPlan
from slimnet.torch_state.devices import real_by_default, usable
from slimnet.torch_state.random_state import random_number_states, random_numbers_back, set_random_numbers
from slimnet.training.analysis.metrics import check_fits
from slimnet.training.loop import cuda_graph_step, resume_checks
from slimnet.training.loop.batches import batches_of
from slimnet.training.loop.distributed import ALONE, Ranks
from slimnet.training.loop.progress import Progress, Snapshot
from slimnet.training.loop.shadow import Shadow
from slimnet.training.loop.shrinking_steps import Shrinking
from slimnet.training.loop.step import Step, Tally
from slimnet.training.recipe.channel_cost import relative_costs
from slimnet.training.recipe.machine_settings import Tuning, training_settings
from slimnet.training.recipe.optimisers import set_initial_values
from slimnet.training.recipe.recipe import Recipe
from slimnet.training.recipe.regularisers import Regularisers
from slimnet.training.warm_start import first_network

HISTORY_POINTS = 50
"""The number of snapshots of a run, evenly spaced over its iterations (one for each in a shorter run)."""

_REPORTS = 2 * HISTORY_POINTS
_LONGEST_SILENCE = 100


class DivergedError(SlimnetError):
    """A run whose loss or weights are no longer finite."""


class TrainingRun(Iterator[Progress]):
    """A training run: each `next` trains for a few iterations and returns the progress.

    Iterate to train; stop at any time and resume later, with this run or with another one from its `state`. Runs of
    one recipe on the same data, machine and number of threads are bitwise equal, also if other code draws random
    numbers in between.

    `model` is trained, as a copy, in place of the network that the recipe builds; it may have other widths. A resumed
    run needs one of the same shapes again.

    `shadow` trains a dense network in parallel to one that shrinks, on the same batches, and counts the removed
    channels that come back there; `seconds` do not include it. A resumed run has a shadow if its state has one.

    Attributes:
        recipe: its recipe.
        data: its data, without the training images that the recipe holds out.
        validation: a data set whose test images are those held out, or the test images of the data if none are.
        model: the network; outside of `next`, which sets it to train mode, it may be evaluated or saved. If the recipe
            shrinks, it becomes narrower.
        iteration: steps taken so far.
        seconds: wall time of training so far, including earlier processes.
        history: about fifty snapshots, the last one at the end.
        device: its device.
        every: iterations from one report to the next.
        patience: seconds after which an early report is made at the end of the step; several processes that train
            together wait until it is due.
        ranks: the processes that train together.
        tuning: its machine settings.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: ImageData,
        *,
        device: torch.device | str = "cpu",
        every: int | None = None,
        patience: float = math.inf,
        tuning: Tuning | None = None,
        ranks: Ranks = ALONE,
        model: nn.Module | None = None,
        shadow: bool = False,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        if every is not None and every < 1:
            raise UsageError(f"a report every {every} iterations cannot be; it must be at least 1")
        self.recipe, self.ranks = recipe, ranks
        self.data, self.validation = divided(data, recipe.held_out)
        self.tuning = tuning or Tuning()
        self.iteration = 0
        self.history: list[Snapshot] = []
        self.every = every or min(_LONGEST_SILENCE, math.ceil(recipe.iterations / _REPORTS))
        # Processes that train together must report after the same step, but their clocks differ.
        self.patience = patience if ranks.count == 1 else math.inf
        self.device = usable(device)
        self.seconds = 0.0
        self._stop_requested = self._stopping = False
        ranks.check(recipe, self.device)
        if recipe.shrink_every and model is not None:
            raise UsageError("only the network that the recipe builds can shrink; set shrink_every=0")
        self._tally = Tally(self.device)
        self.model = self._built(model, resumed=state is not None)
        check_fits(self.model, self.data)
        self._step = Step(recipe, self.model, Regularisers(recipe, self.model, self._costs()))
        self._shrinking = Shrinking(recipe, self.model, self._step, self.data, ranks)
        self._advance = self._make_advance()
        if state is not None:
            self._restore(state)
        self._shadow = self._make_shadow(state) if (shadow if state is None else "shadow" in state) else None
        # A wrapper holds parameters at their width, so it is created after a resumed run has been cut.
        self._step.forward = self._make_forward()

    def _built(self, given: nn.Module | None, *, resumed: bool) -> nn.Module:
        """The network with its initial weights, the same in every process; the random streams differ afterwards."""
        with random_numbers_back([self.device]):
            torch.manual_seed(self.recipe.seed)
            if given is not None:
                check_filled(given)
                model = copy.deepcopy(given)
            else:
                # The warm-start file of a resumed run may no longer exist.
                with real_by_default():
                    model = build(self.recipe.arch, self.recipe.arch_args) if resumed else first_network(self.recipe)
            model.to(self.device).train()
            if not self.ranks.first:
                torch.manual_seed(self.ranks.own_seed(self.recipe.seed))
            self._random = random_number_states([self.device])
        set_initial_values(self.recipe, model)
        if self.recipe.sync_batchnorm and self.ranks.count > 1:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        if self.device.type == "cuda" or self.recipe.precision == "bf16":
            # The memory format of the images. A CPU gains nothing in float32: its weight gradients have another one.
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def _make_shadow(self, state: Mapping[str, Any] | None) -> Shadow:
        """The shadow of this run.

        Raises:
            UsageError: the recipe does not shrink, or several processes train it.
        """
        if not self.recipe.shrink_every:
            raise UsageError("a shadow shows what shrinking changes; set shrink_every as well")
        if self.ranks.count > 1:
            raise UsageError(f"{self.ranks.count} processes cannot train a shadow together; train it in one")
        dense = dataclasses.replace(self.recipe, shrink_every=0, shrink_round=1, held_out=0.0)
        if state is None:
            return Shadow(TrainingRun(dense, self.data, device=self.device, tuning=self.tuning))
        with resume_checks.unfit_refused():
            known = state["shadow"]
            shadow = Shadow(TrainingRun(dense, self.data, device=self.device, tuning=self.tuning, state=known["run"]))
            shadow.restore(known)
        return shadow

    def _make_forward(self) -> Callable[..., Any]:
        """The callable of the forward pass: the network, wrapped for several processes, or compiled."""
        forward = self.ranks.wrap(self.model, self.device)
        return torch.compile(forward) if self.tuning.compiled else forward

    def _costs(self) -> dict[str, torch.Tensor] | None:
        """The cost of each channel, if the recipe needs it."""
        if self.recipe.cost_aware is None:
            return None
        example, _ = next(self.data.batches("test", 1, self.device))
        return relative_costs(self.model, example, self.recipe.cost_aware)

    def _make_advance(self) -> Callable[[int], None]:
        """The function that takes the step of an iteration."""
        batches = batches_of(self.data, self.recipe, self.device, self.ranks.part)
        if cuda_graph_step.wanted(self.recipe, self.tuning, self.device, self.ranks):
            return cuda_graph_step.CapturedStep(self.recipe, batches, self._step, self._tally)

        def advance(iteration: int) -> None:
            images, labels = batches.assemble(batches.bring(iteration))
            self._step(images, labels, iteration, self._tally)

        return advance

    def __iter__(self) -> "TrainingRun":
        return self

    def __next__(self) -> Progress:
        """Train until the next report, which is due at multiples of `every`, at the end, and after `patience`.

        Raises:
            StopIteration: the recipe's iterations are done, or a stop was requested.
            DivergedError: the loss is no longer finite.
            SlimnetError: another process has ended.
        """
        total, first = self.recipe.iterations, self.iteration
        due = min(total, (first // self.every + 1) * self.every)
        if first >= total or self._stopping:
            raise StopIteration
        start = time.perf_counter()
        with self._surroundings():
            while self.iteration < due and not self._stopping:
                self._take_step()
                if time.perf_counter() - start >= self.patience:
                    due = self.iteration
            reported = self._report() if self.iteration == due else None
        self.seconds += time.perf_counter() - start
        if reported is None:
            raise StopIteration
        return self._remembered(reported, first)

    def _take_step(self) -> None:
        self._advance(self.iteration)
        self.iteration += 1
        self._tally.steps += 1
        if self._shrinking.look(self.iteration):
            self._shrink()

    def advance_to(self, iteration: int) -> None:
        """Take the steps up to an iteration without a report; `seconds` do not include them."""
        with self._surroundings():
            while self.iteration < min(iteration, self.recipe.iterations):
                self._take_step()

    def _shrink(self) -> None:
        """Remove dead channels; wrappers, compiled code and captured graphs of the old widths are discarded."""
        self._step.forward = self.model
        if self.ranks.count > 1:
            # A wrapper for several processes is part of reference cycles.
            gc.collect()
        try:
            if self._shrinking.cut(self.iteration):
                if self.tuning.compiled:
                    # Otherwise each cut would count towards the compiler's limit of recompilations.
                    torch.compiler.reset()
                if isinstance(self._advance, cuda_graph_step.CapturedStep):
                    self._advance.start_again()
        finally:
            self._step.forward = self._make_forward()

    def _report(self) -> tuple[float, float]:
        """Mean loss and accuracy since the last report; processes agree here on whether to stop."""
        loss, accuracy = self._tally.means(self.ranks, self.recipe.batch_size)
        self._stopping = self.ranks.any(self._stop_requested)
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss became {loss} between iterations {self.iteration - self._tally.steps} and "
                f"{self.iteration}; train with a learning rate below {self.recipe.lr:g}"
            )
        self._tally.clear()
        return loss, accuracy

    def _remembered(self, reported: tuple[float, float], first: int) -> Progress:
        """The progress to report; about fifty times in a run it is added to the history too."""
        total = self.recipe.iterations
        epoch = self.iteration * self.recipe.batch_size / len(self.data.x_train)
        progress = Progress(self.iteration, total, *reported, self.sparsity(), self.seconds, epoch)
        progress = self._shrinking.described(progress)
        if self._shadow is not None:
            self._shadow.follow(self.iteration, self._shrinking.removed())
            progress = self._shadow.described(progress)
        if self.iteration * HISTORY_POINTS // total > first * HISTORY_POINTS // total:
            self.history.append(self._shrinking.snapshot(progress))
        return progress

    def sparsity(self) -> float:
        """Share, 0..1, of convolution channels dead by γ, including removed ones."""
        return self._shrinking.sparsity()

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        """Its optimiser, with γ and β in parameter groups of their own; `Step` sets the learning rate."""
        return self._step.optimiser

    @property
    def plan(self) -> SurgeryPlan | None:
        """The plan from the network that the recipe builds to `model`; None if nothing has been removed."""
        return None if self._shrinking.shrinker is None else self._shrinking.shrinker.plan

    @property
    def projections(self) -> ProjectionRecord | None:
        """What has been set to zero so far; None in a run that does not shrink, or whose beginning is not recorded."""
        return self._shrinking.projections

    def dense_model(self) -> nn.Module:
        """A network with the widths of the recipe that computes the same as `model`: removed channels are zeros.

        It is `model` itself if nothing has been removed, otherwise a copy in its mode and on its device.
        """
        if self.plan is None:
            return self.model
        with random_numbers_back([self.device]), real_by_default():
            dense = build(self.recipe.arch, self.recipe.arch_args)
        resume_checks.load_weights(dense, self._shrinking.weights())
        return dense.to(self.device).train(self.model.training)

    def stop(self) -> None:
        """Request a stop after the current step, also from a signal handler or another thread.

        If several processes train together, all of them end at the next report.
        """
        self._stop_requested = True
        self._stopping = self.ranks.count == 1

    def state(self) -> dict[str, Any]:
        """Everything needed for a bitwise resume from here, readable by `torch.load(weights_only=True)`.

        It includes the entries of `save_checkpoint`, with weights in the shapes that the recipe builds. All processes
        must call it at the same iteration.
        """
        return {
            **resume_checks.described(self._shrinking.weights(), self.recipe, self.data, self.iteration),
            **self._shrinking.state(),
            **({} if self._shadow is None else {"shadow": self._shadow.state()}),
            "optimiser": self._step.state(),
            "random": self.ranks.gathered(self._random),
            "tally": self._tally.state(self.ranks),
            "seconds": self.seconds,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        resume_checks.check(state, self.recipe, self.data)
        with resume_checks.unfit_refused():
            resume_checks.load_weights(self.model, state["state_dict"])
            self._shrinking.restore(state.get("shrinker", {}))
            self._step.restore(state["optimiser"])
            self._tally.restore(state["tally"], self.ranks)
            if self.ranks.number < len(state["random"]):
                self._random = state["random"][self.ranks.number]
            with self._own_randomness():
                self.iteration, self.seconds = state["iteration"], state["seconds"]

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        """What steps need, whatever the caller left: the network in train mode, settings, its own random numbers."""
        self.model.train()
        with training_settings(self.tuning, self.device), self._own_randomness():
            yield

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """Use the run's own random stream (dropout draws from it), and restore the caller's afterwards."""
        with random_numbers_back([self.device]):
            set_random_numbers(self._random, [self.device])
            try:
                yield
            finally:
                self._random = random_number_states([self.device])


def train(
    recipe: Recipe,
    data: ImageData,
    *,
    device: torch.device | str = "cpu",
    every: int | None = None,
    patience: float = math.inf,
    threads: int | None = None,
    tuning: Tuning | None = None,
    ranks: Ranks = ALONE,
    shadow: bool = False,
    state: Mapping[str, Any] | None = None,
) -> TrainingRun:
    """Start a run: iterate over it for its `Progress`, then take its `model` and `history`.

    It reports about a hundred times, but at least every hundred iterations; `every` sets another interval. If
    `patience` seconds pass before, it reports after the current step. `threads` are those of the CPU (default:
    torch's); a small network is fastest on one. `tuning` has this and the other machine settings. `ranks` are the
    processes that train together. `shadow` trains a dense network in parallel to one that shrinks, to count removed
    channels that come back there. `state` is that of an earlier run of the same recipe, which this one resumes.

    Raises:
        ArchitectureError: the recipe's network cannot be built.
        DataError: the network does not take the data.
        UsageError: `every` or `threads` is below 1, the device does not exist, or the recipe is not possible on this
            machine or with this state.
    """
    tuning = tuning or Tuning()
    tuning = tuning if threads is None else dataclasses.replace(tuning, threads=threads)
    return TrainingRun(
        recipe,
        data,
        device=device,
        every=every,
        patience=patience,
        tuning=tuning,
        ranks=ranks,
        shadow=shadow,
        state=state,
    )
