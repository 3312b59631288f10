"""Checkpoints of a training run, complete or not there at all."""

import errno
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slimnet.errors import CheckpointError
from slimnet.files import flush
from slimnet.training.recipe import Recipe


def save_checkpoint(model: nn.Module, path: str | Path, recipe: Recipe, iteration: int) -> Path:
    """Write weights, recipe and iteration to a file that `torch.load(path, weights_only=True)` reads.

    The entries are `state_dict` (contiguous CPU tensors), `recipe` (its JSON text) and `iteration`. A file of
    that name is replaced, and only once the new one is complete on the disk.

    Raises:
        CheckpointError: it cannot be written there; whatever was there before is unharmed.
    """
    path = Path(path)
    content = {"state_dict": weights_of(model), "recipe": recipe.to_json(), "iteration": iteration}
    try:
        write(path, content)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error.strerror}); choose a folder that exists and has room"
        ) from error
    return path


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of what is in a network's state dict: contiguous tensors on the CPU."""
    return {name: copied(value) for name, value in model.state_dict().items() if torch.is_tensor(value)}


def copied(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy on the CPU, which later steps do not change."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write beside the target, down to the disk, and only then take its place.

    Raises:
        OSError: it cannot be written; whatever was there before is unharmed.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    with partial.open("xb") as file:
        try:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, path)
            flush(path.parent)
        except RuntimeError as error:
            partial.unlink(missing_ok=True)
            # torch reports a full disk as a RuntimeError of its archive writer.
            raise OSError(errno.ENOSPC, "the disk refused it", str(path)) from error
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
