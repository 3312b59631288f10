"""A training step as one CUDA graph: for small batches, launching the kernels takes most of the time."""

import torch

from slimnet.errors import UsageError
from slimnet.training.loop.batches import Tensors, TrainingBatches
from slimnet.training.loop.distributed import Ranks
from slimnet.training.loop.step import Step, Tally
from slimnet.training.recipe.machine_settings import Tuning
from slimnet.training.recipe.recipe import Recipe

WARM_UP = 3
"""Eager steps before the capture, in which libraries choose their kernels and optimisers create their state."""

NOT_CAPTURED = ("adagrad",)
"""Optimisers that read a value back from the device in every step."""


def wanted(recipe: Recipe, tuning: Tuning, device: torch.device, ranks: Ranks) -> bool:
    """Whether the steps of a run are captured.

    Raises:
        UsageError: it was requested but is not possible.
    """
    obstacle = None
    if device.type != "cuda":
        obstacle = f"there are none on {device.type}"
    elif ranks.count > 1:
        obstacle = "several processes cannot share one"
    elif recipe.optimiser in NOT_CAPTURED:
        obstacle = f"{recipe.optimiser} cannot be captured"
    elif recipe.cosine:
        obstacle = "along a cosine each step would have to be captured anew"
    if tuning.cuda_graph and obstacle:
        raise UsageError(f"no CUDA graph is possible: {obstacle}; leave it out")
    return tuning.cuda_graph is not False and obstacle is None


class CapturedStep:
    """Runs the first steps eagerly, then captures one and replays it.

    The learning rate and the schedule's factor are constants of the graph, which is captured again at each drop. That
    takes a second, and recipes and optimisers need no code for it. It is captured again after each cut of a network
    that shrinks, too.
    """

    def __init__(self, recipe: Recipe, batches: TrainingBatches, step: Step, tally: Tally) -> None:
        self._recipe, self._batches, self._step, self._tally = recipe, batches, step, tally
        self._taken = 0
        self._scale: float | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._places: Tensors = ()

    def __call__(self, iteration: int) -> None:
        """Take the step of one iteration."""
        scale = self._recipe.schedule_scale(iteration)
        brought = self._batches.bring(iteration)
        self._taken += 1
        if self._taken <= WARM_UP:
            self._aside(brought, iteration)
            return
        if self._graph is None or scale != self._scale:
            self._graph, self._scale = None, scale
            self._graph = self._captured(brought, iteration)
        for place, tensor in zip(self._places, brought, strict=True):
            place.copy_(tensor, non_blocking=True)
        self._graph.replay()

    def start_again(self) -> None:
        """Discard the graph after a change of the network; the next steps are eager again."""
        self._graph, self._scale, self._places, self._taken = None, None, (), 0

    def _aside(self, brought: Tensors, iteration: int) -> None:
        """An eager step on a side stream, as torch requires for the steps before a capture."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._step(*self._batches.assemble(brought), iteration, self._tally)
        torch.cuda.current_stream().wait_stream(stream)

    def _captured(self, brought: Tensors, iteration: int) -> torch.cuda.CUDAGraph:
        """Capture a step on static tensors; nothing is computed yet."""
        self._places = tuple(tensor.clone() for tensor in brought)
        make_capturable(self._step.optimiser, brought[0].device)
        self._step.optimiser.zero_grad()
        graph = torch.cuda.CUDAGraph()
        # "thread_local": the thread that reads the next batch may pin memory during the capture. An explicit stream,
        # since torch's default capture stream belongs to the GPU of the first capture, which may be another one.
        with torch.cuda.graph(graph, stream=torch.cuda.Stream(), capture_error_mode="thread_local"):
            self._step(*self._batches.assemble(self._places), iteration, self._tally)
        return graph


def make_capturable(optimiser: torch.optim.Optimizer, device: torch.device) -> None:
    """Make an optimiser count its steps on the device."""
    for group in optimiser.param_groups:
        if "capturable" in group:
            group["capturable"] = True
    for kept in optimiser.state.values():
        if "step" in kept:
            kept["step"] = kept["step"].to(device)
