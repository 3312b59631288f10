"""The options of a step of fine-tuning, which `finetune` and `compare` share."""

from __future__ import annotations

from collections.abc import Callable

import click
from slimnet_cli.options.shared import Command

Option = Callable[..., Callable[[Command], Command]]


def step_options(option: Option) -> tuple[Callable[[Command], Command], ...]:
    """L2 and the images of a step; `option` makes an option of the command's group."""
    return (
        option("--l2", type=float, default=1e-4, show_default=True, help="L2 in the gradient."),
        option("--batch-size", type=click.IntRange(1), default=128, show_default=True, help="Images per step."),
        option("--flips", is_flag=True, help="Mirror a random half of the images."),
        option(
            "--crop",
            type=click.IntRange(0),
            default=0,
            metavar="PIXELS",
            help="Shift images at random by up to this many.",
        ),
    )
