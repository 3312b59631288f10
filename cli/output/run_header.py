"""The first lines of a training run: the network and its device, the images, the steps and their schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimnet_cli.output import terminal

if TYPE_CHECKING:
    from slimnet.training import TrainingRun


def show_header(run: TrainingRun) -> None:
    """Print them on stderr."""
    for line in header(run):
        terminal.note(line)


def header(run: TrainingRun) -> list[str]:
    """What is trained, on which device, on which images, and how."""
    from slimnet.training.recipe.schedule import schedule_in_words

    recipe, data = run.recipe, run.data
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    height, width = data.image_size
    epochs = recipe.iterations * recipe.batch_size / len(data.x_train)
    passes = f"{epochs:,.0f}" if epochs >= 10 else f"{epochs:.2g}"
    return [
        f"{recipe.arch}: {parameters:,} parameters, on {device_in_words(run)}",
        f"{data.name}: {len(data.x_train):,} training and {len(data.x_test):,} test images, "
        f"{height} × {width} × {data.channels}, {len(data.classes)} classes",
        f"{recipe.iterations:,} iterations of {recipe.batch_size} images, {passes} epochs",
        f"{recipe.optimiser}, learning rate {schedule_in_words(recipe)}",
    ]


def device_in_words(run: TrainingRun) -> str:
    """The device of a run, with the number of its threads where it is a CPU."""
    import torch

    if run.device.type == "cuda":
        name = torch.cuda.get_device_name(run.device)
    else:
        threads = run.tuning.threads or torch.get_num_threads()
        name = f"{run.device} with {threads} thread{'s' if threads > 1 else ''}"
    return name if run.ranks.count == 1 else f"{run.ranks.count} × {name}"
