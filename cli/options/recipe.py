"""The options of `slimnet train` that determine the recipe, and that recipe."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.architectures import known_architecture
from slimnet_cli.options.groups import in_group
from slimnet_cli.options.paths import existing
from slimnet_cli.options.shared import Command, json_object

if TYPE_CHECKING:
    from slimnet.data import ImageData
    from slimnet.training import Recipe

SHRINK_EVERY = 500
"""Iterations between two checks for dead filters: a check takes a few milliseconds, a cut about a second."""

SETTINGS = ("lr", "momentum", "betas", "rho", "eps")
"""Settings of one optimiser, which another one does not inherit."""

OPTIMISERS = ("sgd", "adam", "amsgrad", "adamax", "adadelta", "adagrad", "rmsprop")

HEADINGS = ("Network and length", "Optimiser", "Regularisers", "Images", "Machine")
network, optimiser, regulariser, images, machine = map(in_group, HEADINGS)


def numbers(of: type) -> Callable[[click.Context, click.Parameter, str | None], tuple[Any, ...] | None]:
    """Turn "0.9,0.99" into a tuple of numbers."""

    def parsed(_: click.Context, __: click.Parameter, text: str | None) -> tuple[Any, ...] | None:
        try:
            return None if text is None else tuple(of(part) for part in text.split(",") if part.strip())
        except ValueError as error:
            raise click.BadParameter(f"{text!r} is not a list of numbers with commas between them") from error

    return parsed


OPTIONS = (
    network(
        "--recipe",
        "file",
        metavar="FILE.json",
        callback=existing,
        help="Start from this recipe; other options change it.",
    ),
    network("--from", "warm_start", metavar="CKPT", callback=existing, help="Start with the weights of a checkpoint."),
    network(
        "--arch",
        metavar="ARCH",
        callback=known_architecture,
        help="basicnet, vgg16, ..., torchvision:NAME, timm:NAME, package.module:factory or file.py:Class.",
    ),
    network(
        "--trust",
        is_flag=True,
        help="Build the network that --recipe, --from or --resume names, even if that runs code or opens other files.",
    ),
    network("--arch-args", callback=json_object, metavar="JSON", help="Arguments of the network, as a JSON object."),
    network(
        "--iterations",
        type=int,
        help="Optimiser steps; the schedule is scaled with them. With --resume the new length of the run.",
    ),
    network("--batch-size", type=int, help="Images per step, over all processes."),
    network("--shrink", is_flag=True, help=f"Remove dead filters during training, every {SHRINK_EVERY} iterations."),
    network("--shrink-every", type=int, metavar="N", help="Remove dead filters every N iterations; 0: never."),
    network(
        "--shrink-round",
        type=int,
        metavar="N",
        help="With --shrink: round widths up to multiples of N during training, but not at its end.",
    ),
    network("--seed", type=int, help="Seed of all random numbers."),
    optimiser("--optimiser", type=click.Choice(OPTIMISERS), help="With the paper's settings by default."),
    optimiser("--lr", type=float, help="Learning rate before the first drop."),
    optimiser("--momentum", type=float, help="Momentum of sgd."),
    optimiser("--nesterov/--no-nesterov", default=None, help="Nesterov momentum for sgd."),
    optimiser("--betas", callback=numbers(float), metavar="B1,B2", help="β1,β2 of adam, amsgrad and adamax."),
    optimiser("--rho", type=float, help="Decay of the mean square in adadelta and rmsprop."),
    optimiser("--eps", type=float, help="Added to the denominator."),
    optimiser("--gamma-lr-scale", type=float, help="Factor on the learning rate of every γ."),
    optimiser("--beta-lr-scale", type=float, help="Factor on the learning rate of every β."),
    optimiser("--gamma-init", type=float, help="Initial value of every γ."),
    optimiser("--beta-init", type=float, help="Initial value of every β."),
    optimiser("--drops", callback=numbers(int), metavar="N,...", help="Iterations from which the rate is lower."),
    optimiser("--drop-factor", type=float, help="Factor on the rate at each drop."),
    optimiser("--cosine/--no-cosine", default=None, help="Let the rate fall to 0 along a cosine, with no drops."),
    regulariser("--l2", type=float, help="L2 in the gradient; with adam it makes filters die."),
    regulariser(
        "--weight-decay", type=float, help="As in the paper: after the step, scaled by the schedule, not by lr."
    ),
    regulariser("--decoupled", type=float, help="Weight decay as in AdamW: scaled by lr."),
    regulariser("--l1-gamma", type=float, help="L1 on every γ (Network Slimming)."),
    regulariser(
        "--cost-aware", type=click.Choice(("macs", "params")), help="L2 on each γ in proportion to its channel's cost."
    ),
    images("--flips/--no-flips", default=None, help="Mirror a random half of them."),
    images("--crop", type=int, metavar="PIXELS", help="Shift each at random by up to this many pixels."),
    images("--image-size", type=int, metavar="PIXELS", help="Resize images to this size."),
    images(
        "--validate",
        "held_out",
        type=click.FloatRange(0, 1, max_open=True),
        metavar="SHARE",
        help="Hold out this share of the training images; also keep the weights with the lowest error on them.",
    ),
    machine("--precision", type=click.Choice(("fp32", "bf16")), help="bf16 computes in bfloat16 with float32 weights."),
    machine("--sync-batchnorm", is_flag=True, default=None, help="BatchNorm over the whole batch of several GPUs."),
)


@dataclass(frozen=True)
class RecipeOptions:
    """The recipe options of a command line: a file to start from, whether to trust it, and fields."""

    file: str | None
    fields: Mapping[str, Any]
    trust: bool = False

    def source(self, data: str | None) -> str:
        """The name of the data.

        Raises:
            click.UsageError: none was named.
        """
        if data is None and self.file is None:
            raise click.UsageError("name the data to train on: digits, cifar10, FILE.npz, ... (or --resume DIR)")
        return data or self._base("").data

    def image_size(self, source: str) -> int | None:
        """The size to which images are resized; None if they keep their size."""
        size: int | None = self.fields.get("image_size", self._base(source).image_size)
        return size

    def recipe(self, data: ImageData, source: str) -> Recipe:
        """The recipe: that of the file, or the default one for the data, with the given fields.

        Raises:
            UsageError: a value out of its range.
            CheckpointError: the checkpoint to begin with cannot be read.
        """
        from slimnet.training.warm_start import with_digest

        base, given = self._base(source), dict(self.fields)
        base = base.lasting(given.get("iterations", base.iterations))
        if given.get("cosine"):
            given = {"drops": ()} | given
        if given.get("optimiser", base.optimiser) != base.optimiser:
            given = dict.fromkeys(SETTINGS) | given
        if "warm_start" in given:
            given["warm_start_sha256"] = None
        arch, arguments = self._network(base, data)
        recipe = dataclasses.replace(base, **given | {"arch": arch, "arch_args": arguments, "data": source})
        return recipe if recipe.warm_start_sha256 else with_digest(recipe)

    def changed(self, begun: Recipe, data: str | None, done: int) -> Recipe:
        """The recipe of a resumed run that has taken `done` steps; only its length and later drops can change.

        `data` may be another place of the same images, which are compared with those of the run when it resumes.

        Raises:
            UsageError: the command line names another field or a file that differ, or a length or drops that cannot be.
        """
        from slimnet.training.loop.resume_checks import refuse_difference
        from slimnet.training.recipe.continuation import continued

        base = begun if self.file is None else self._read(self.file)
        if self.trust or "arch" in self.fields:
            base = base.trusted(arguments=self.trust)
        given = dict(self.fields) | {"data": _place(begun.data, data or base.data)}
        if "warm_start" in given:
            given["warm_start_sha256"] = base.warm_start_sha256
        iterations, drops = given.pop("iterations", base.iterations), given.pop("drops", None)
        wished = dataclasses.replace(base, **given)
        refuse_difference(dataclasses.replace(begun, data=wished.data), wished)
        return continued(wished, done, iterations, drops)

    def _read(self, file: str) -> Recipe:
        recipe = read_recipe(file)
        return recipe.trusted() if self.trust else recipe

    def _base(self, source: str) -> Recipe:
        from slimnet.training.recipe.recipe import DIGITS_DEMO, Recipe

        if self.file is not None:
            return self._read(self.file)
        if source == DIGITS_DEMO.data:
            return DIGITS_DEMO
        # The paper's schedule on CIFAR (section 3): 250 epochs and 75 more at a tenth of the learning rate.
        return Recipe(arch="basicnet", data=source or "-", l2=1e-4, flips=True, iterations=406_250, drops=(312_500,))

    def _network(self, base: Recipe, data: ImageData) -> tuple[str, dict[str, Any]]:
        """The architecture and its arguments, adapted to the data unless they are those of a recipe file."""
        arch, arguments = self.fields.get("arch"), self.fields.get("arch_args", {})
        if arch is None and "warm_start" in self.fields and self.file is None:
            known = recipe_in(self.fields["warm_start"])
            base = base if known is None else known.trusted() if self.trust else known
        if arch is not None:
            return arch, fitting(arch, data) | arguments
        fit = {} if self.file is not None else fitting(base.arch, data)
        return base.arch, base.arch_args | fit | arguments


def _place(begun: str, wished: str) -> str:
    """The source of a resumed run's data: the one that it was begun with, unless the wished one is elsewhere."""
    from slimnet.data.sources import absolute_source

    return begun if absolute_source(wished) == absolute_source(begun) else wished


def fitting(arch: str, data: ImageData) -> dict[str, Any]:
    """The arguments that adapt a network to the data, if its kind is known to take them."""
    from slimnet.models.architecture import BUILTIN_ARCHITECTURES

    source, colon, _ = arch.partition(":")
    channels = {"timm": "in_chans", "": "in_channels"}.get(source if colon else "")
    if arch not in BUILTIN_ARCHITECTURES and source not in ("torchvision", "timm"):
        return {}
    classes = {"num_classes": len(data.classes)}
    return classes if channels is None else classes | {channels: data.channels}


def read_recipe(path: str) -> Recipe:
    """The recipe in a file.

    Raises:
        UsageError: it cannot be read, or is no recipe.
    """
    from slimnet.errors import UsageError
    from slimnet.storage.files import read_text
    from slimnet.training import Recipe

    try:
        return Recipe.from_json(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a recipe ({error}); name a recipe.json") from error
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def recipe_in(checkpoint: str) -> Recipe | None:
    """The recipe in a checkpoint of slimnet; None for other checkpoints.

    Raises:
        CheckpointError: the file cannot be read.
    """
    from slimnet.checkpoint import unpickling
    from slimnet.training import Recipe

    content = unpickling.read(Path(checkpoint))
    text = content.get("recipe") if isinstance(content, Mapping) else None
    return Recipe.from_json(text) if isinstance(text, str) else None


def recipe_options(command: Command) -> Command:
    """Add the options; the command gets them as `requested`."""

    @functools.wraps(command)
    def with_recipe(**given: Any) -> Any:
        fields = {name: given.pop(name) for name in NAMES}
        if given.pop("shrink") and fields["shrink_every"] is None:
            fields["shrink_every"] = SHRINK_EVERY
        named = {name: value for name, value in fields.items() if value not in (None, {})}
        return command(requested=RecipeOptions(given.pop("file"), named, given.pop("trust")), **given)

    return functools.reduce(lambda decorated, option: option(decorated), reversed(OPTIONS), with_recipe)


NAMES = tuple(
    name
    for option in OPTIONS
    for name in (option(click.Command("probe")).params[0].name,)
    if name is not None and name not in ("file", "trust", "shrink")
)
