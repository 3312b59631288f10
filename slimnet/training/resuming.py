"""What is kept of a run beside its optimiser, and whether it may go on from what was kept."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from slimnet.data import ImageData
from slimnet.errors import CheckpointError, DataError, UsageError
from slimnet.models.architecture import reason
from slimnet.training.recipe import Recipe
from slimnet.training.saving import weights_of


def described(model: nn.Module, recipe: Recipe, data: ImageData, iteration: int) -> dict[str, Any]:
    """What `save_checkpoint` writes, and what the data was."""
    return {
        "state_dict": weights_of(model),
        "recipe": recipe.to_json(),
        "iteration": iteration,
        "data": fingerprint(data),
    }


def fingerprint(data: ImageData) -> dict[str, Any]:
    """What tells training images from others: how many, how large, and the statistics of their pixels."""
    return {
        "images": len(data.x_train),
        "size": list(data.x_train.shape[1:]),
        "classes": len(data.classes),
        "mean": list(data.mean),
        "std": list(data.std),
    }


def check(state: Mapping[str, Any], recipe: Recipe, data: ImageData) -> None:
    """Refuse to go on with something else than what was begun.

    Raises:
        UsageError: another recipe.
        DataError: other data.
    """
    refuse_difference(Recipe.from_json(state["recipe"]), recipe)
    now = fingerprint(data)
    for name, value in state["data"].items():
        if value != now[name]:
            raise DataError(
                f"{data.name} is not what the run was begun with: its {name} was {value} and is {now[name]}; "
                "put the old data back, or begin a new run"
            )


def refuse_difference(begun: Recipe, wanted: Recipe) -> None:
    """Refuse a recipe that is not the one a run was begun with.

    Raises:
        UsageError: naming the first field that differs.
    """
    for each in dataclasses.fields(Recipe):
        was, now = getattr(begun, each.name), getattr(wanted, each.name)
        if was != now:
            raise UsageError(
                f"the run was begun with {each.name} {was!r}, not {now!r}; resume it as it is, or begin a new run"
            )


def load_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Fill a network that the same recipe built.

    Raises:
        CheckpointError: its code has changed since.
    """
    changed = set(weights_of(model)) ^ set(weights)
    try:
        model.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"the network's code has changed since the run began ({reason(error)})") from error
    if changed:
        raise CheckpointError(f"the network's code has changed since the run began: {sorted(changed)[0]} differs")
