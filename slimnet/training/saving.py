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
        name: value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
        if torch.is_tensor(value)
    }
    content = {"state_dict": state, "recipe": recipe.to_json(), "iteration": iteration}
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        _write(content, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        # torch reports a full disk as a RuntimeError of its archive writer.
        problem = (
            error.strerror if isinstance(error, OSError) and error.strerror else "the disk refused the data"
        )
        raise CheckpointError(
            f"{path}: cannot be written ({problem}); choose a folder that exists and has room"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _write(content: dict[str, object], path: Path) -> None:
    with path.open("xb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
