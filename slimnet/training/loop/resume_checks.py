"""The stored state of a run besides its optimiser, and checks before a run resumes from it."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from slimnet.data import ImageData
from slimnet.errors import CheckpointError, DataError, UsageError, reason
from slimnet.storage.field_types import Amount, Count
from slimnet.storage.records import build
from slimnet.training.loop.checkpoint_file import weights_of
from slimnet.training.recipe.continuation import AHEAD, same_beginning
from slimnet.training.recipe.recipe import Recipe

OWN_DATA = "name the data that it was begun with, or begin a new run"


class OtherRunError(UsageError):
    """The state of a run with another recipe; `problem` is the message without the advice, which is for runs."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(f"{problem}; {advice}")
        self.problem = problem


class OtherDataError(OtherRunError, DataError):
    """The state of a run on other data."""


class OtherLengthError(OtherRunError, CheckpointError):
    """The state of a run that is already longer."""


def described(weights: Mapping[str, torch.Tensor], recipe: Recipe, data: ImageData, iteration: int) -> dict[str, Any]:
    """The content of `save_checkpoint`, and a description of the data."""
    return {
        "state_dict": weights,
        "recipe": recipe.to_json(),
        "iteration": iteration,
        "data": fingerprint(data),
        "digest": data.digest(),
    }


def fingerprint(data: ImageData) -> dict[str, Any]:
    """An identification of training images: their number, their size, and the statistics of their pixels."""
    return {
        "images": len(data.x_train),
        "size": list(data.x_train.shape[1:]),
        "classes": len(data.classes),
        "mean": list(data.mean),
        "std": list(data.std),
    }


@dataclass(frozen=True)
class SavedRun:
    """The state of a run in a checkpoint, without tensors."""

    recipe: str
    iteration: Count
    seconds: Amount
    data: Mapping[str, Any]
    digest: str | None


def check(state: Mapping[str, Any], recipe: Recipe, data: ImageData) -> None:
    """Refuse to resume a run with another recipe, other data or another network.

    Raises:
        OtherRunError: the recipe differs.
        OtherDataError: the data differs.
        OtherLengthError: the recipe ends before the state.
        CheckpointError: the state is not that of a run.
    """
    plain = {name: state.get(name) for name in ("recipe", "iteration", "seconds", "data", "digest")}
    standing = build(SavedRun, plain, "the checkpoint is not that of a run", CheckpointError)
    refuse_other_beginning(Recipe.from_json(standing.recipe), recipe, standing.iteration)
    if standing.iteration > recipe.iterations:
        problem = f"the checkpoint is of iteration {standing.iteration:,} of {recipe.iterations:,}"
        raise OtherLengthError(problem, f"give at least {standing.iteration:,} iterations")
    now, other = fingerprint(data), f"{data.name} is not what the run was begun with"
    for name, value in standing.data.items():
        if value != now.get(name):
            raise OtherDataError(f"{other}: its {name} was {value} and is {now.get(name)}", OWN_DATA)
    # Checkpoints of an earlier slimnet have none.
    if standing.digest not in (None, data.digest()):
        raise OtherDataError(f"{other}: labels or pixels are others, or in another order", OWN_DATA)


def refuse_other_beginning(begun: Recipe, wanted: Recipe, steps: int) -> None:
    """Refuse a recipe whose first steps differ from those of the run; its schedule may change from there on.

    The data may be in another place: `check` compares the images themselves.

    Raises:
        OtherRunError: naming the first field that differs.
    """
    begun = dataclasses.replace(begun, data=wanted.data)
    if same_beginning(begun, wanted, steps):
        begun = dataclasses.replace(begun, **{name: getattr(wanted, name) for name in AHEAD})
    refuse_difference(begun, wanted)


def refuse_difference(begun: Recipe, wanted: Recipe) -> None:
    """Refuse a recipe that differs from that of the run.

    Raises:
        OtherRunError: naming the first field that differs.
    """
    for each in dataclasses.fields(Recipe):
        was, now = getattr(begun, each.name), getattr(wanted, each.name)
        if was != now:
            problem = f"the run was begun with {each.name} {was!r}, not {now!r}"
            raise OtherRunError(problem, "resume it as it is, or begin a new run")


def load_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Load weights into a network that was built by the same recipe.

    Raises:
        CheckpointError: the network's code has changed since.
    """
    changed = set(weights_of(model)) ^ set(weights)
    if changed:
        raise CheckpointError(f"the network's code has changed since the run began: {sorted(changed)[0]} differs")
    try:
        model.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"the network's code has changed since the run began ({reason(error)})") from error


@contextmanager
def unfit_refused() -> Iterator[None]:
    """Report an invalid state in one line while it is restored.

    Raises:
        CheckpointError: the state is invalid.
    """
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint is not that of this run ({reason(error)}); delete it") from error
