"""Checkpoints of a training run, complete or not there at all."""

import os
import uuid
from pathlib import Path

import torch
from torch import nn

from slimnet.errors import CheckpointError
from slimnet.training.recipe import Recipe


def save_checkpoint(model: nn.Module, path: str | Path, recipe: Recipe, iteration: int) -> Path:
    """Write weights, recipe and iteration to a file that `torch.load(path, weights_only=True)` reads.

    The entries are `state_dict` (contiguous CPU tensors), `recipe` (its JSON text) and `iteration`. A file of
    that name is replaced, and only once the new one is complete on the disk.

    Raises:
        CheckpointError: it cannot be written there; whatever was there before is unharmed.
    """
    path = Path(path)
    state = {
        name: value.detach().cpu().contiguous() for name, value in model.state_dict().items() if torch.is_tensor(value)
    }
    content = {"state_dict": state, "recipe": recipe.to_json(), "iteration": iteration}
    try:
        _replace(path, content)
    except (OSError, RuntimeError) as error:
        # torch reports a full disk as a RuntimeError of its archive writer.
        problem = (error.strerror if isinstance(error, OSError) else None) or "the disk refused it"
        raise CheckpointError(
            f"{path}: cannot be written ({problem}); choose a folder that exists and has room"
        ) from error
    return path


def _replace(path: Path, content: dict[str, object]) -> None:
    """Write beside the target, down to the disk, and only then take its place."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    with partial.open("xb") as file:
        try:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
