"""Checkpoints of a training run, written atomically."""

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slimnet.errors import CheckpointError, SlimnetError
from slimnet.storage.files import whole_file
from slimnet.training.recipe.recipe import Recipe


def save_checkpoint(model: nn.Module, path: str | Path, recipe: Recipe, iteration: int) -> Path:
    """Write weights, recipe and iteration to a file that `torch.load(path, weights_only=True)` reads.

    The entries are `state_dict` (contiguous CPU tensors), `recipe` (its JSON text) and `iteration`. An existing file is
    replaced only when the new one is complete on the disk.

    Raises:
        CheckpointError: it cannot be written; an existing file is unchanged.
    """
    path = Path(path)
    content = {"state_dict": weights_of(model), "recipe": recipe.to_json(), "iteration": iteration}
    write(path, content, CheckpointError)
    return path


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the entries of a network's state dict: contiguous tensors on the CPU."""
    return {name: copied(value) for name, value in model.state_dict().items() if torch.is_tensor(value)}


def copied(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy on the CPU, which later steps do not change."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def write(path: Path, content: Mapping[str, Any], failure: type[SlimnetError]) -> None:
    """Write a file that `torch.load(path, weights_only=True)` reads, atomically.

    Raises:
        failure: it cannot be written; an existing file is unchanged.
    """
    with whole_file(path, failure) as partial, partial.open("wb") as file:
        try:
            torch.save(dict(content), file)
        except RuntimeError as error:
            # torch reports a full disk as a RuntimeError of its archive writer.
            raise OSError(errno.ENOSPC, "the disk refused it", str(path)) from error
