"""What the training tests share: a small recipe, random images, and what a run ends with."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from slimnet.checkpoint import load_checkpoint
from slimnet.data import ImageData
from slimnet.training import Recipe, TrainingRun, save_checkpoint
from slimnet.training.loop.training_run import train
from slimnet.training.run.resumable_run import KeptRun
from slimnet.training.run.run_folder import create_run

TINY = {"widths": [4, 6], "pool_after": [1], "hidden": 8, "in_channels": 2, "num_classes": 3}


class Dropping(nn.Module):
    """Scores a 2 × 8 × 8 image after dropout: a network that draws random numbers as it trains."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.dropout = nn.Dropout()
        self.scores = nn.Linear(128, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(self.dropout(x.flatten(1)))


DROPPING = {"arch": f"{__name__}:Dropping", "arch_args": {}}
"""The fields of a recipe with that network."""


def recipe(**changes: object) -> Recipe:
    """A small BasicNet trained for seven steps."""
    return Recipe(
        **{"arch": "basicnet", "arch_args": TINY, "data": "x.npz", "iterations": 7, "batch_size": 5} | changes
    )


def images(count: int = 12, classes: int = 3) -> ImageData:
    """Random 8 × 8 images in two channels; the labels go round."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (count, 8, 8, 2), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % classes
    return ImageData.of("noise", (pixels, labels), (pixels.flip(0), labels.flip(0)), "abc"[:classes])


def finished(run: TrainingRun) -> dict[str, torch.Tensor]:
    for _ in run:
        pass
    return run.model.state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def everything(run: TrainingRun) -> list[torch.Tensor]:
    """Weights, optimiser state and random streams, as a flat list of tensors."""
    state = run.state()
    kept = [each for number in sorted(state["optimiser"]) for each in state["optimiser"][number].values()]
    return [*state["state_dict"].values(), *filter(torch.is_tensor, kept), *state["random"][0]]


def write_npz(path: Path, data: ImageData) -> Path:
    """Images as a file for `load_data`."""
    np.savez(path, **{name: getattr(data, name).numpy() for name in ("x_train", "y_train", "x_test", "y_test")})
    return path


def write_run(place: Path) -> Path:
    """A finished run on `images()`, in `place / "one"`, and these in noise.npz beside it.

    One channel of each BatchNorm is dead in its model.
    """
    data = images()
    write_npz(place / "noise.npz", data)
    settings, folder = recipe(data=str(place / "noise.npz"), iterations=2), place / "one"
    with create_run(folder, settings) as held:
        kept = KeptRun(held, lambda state: train(settings, data, threads=1, state=state))
        for _ in kept:
            pass
        kept.close()
    model = load_checkpoint(folder / "model.pt", "basicnet", TINY)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data[0], module.bias.data[0] = 1e-6, -1.0
    save_checkpoint(model, folder / "model.pt", settings, settings.iterations)
    return folder
