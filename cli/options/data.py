"""The options of data, and reading it with progress."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.groups import in_group
from slimnet_cli.options.paths import existing_images
from slimnet_cli.options.shared import Command, as_one
from slimnet_cli.output import terminal

if TYPE_CHECKING:
    from slimnet.data import Batches, ImageData
    from slimnet.data.image_spec import ImageSpec

images = in_group("Images")

NORMALISATIONS = ("data", "imagenet", "cifar10", "halves", "none")
NUMBERS = "mean=M,...:std=S,..."


class Normalisation(click.ParamType):
    """The name of a normalisation, or its numbers."""

    name = "normalisation"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the name, or leave the numbers to the library."""
        if value not in NORMALISATIONS and not str(value).startswith("mean="):
            self.fail(f"{value!r} is not one of {', '.join(NORMALISATIONS)}, and not {NUMBERS}", param, ctx)
        return str(value)


NORMALISE = images(
    "--normalise",
    type=Normalisation(),
    metavar="NAME|mean=M,...:std=S,...",
    help="The normalisation that the network was trained with: data (mean and standard deviation of the training "
    "images), imagenet, cifar10, halves (to -1..1), none (0..1), or numbers for values in 0..1, one for each channel, "
    "such as mean=0.5,0.5,0.5:std=0.25,0.25,0.25.  [default: that of the bundle or the run, otherwise data]",
)

OPTIONS = (
    images("--cache", metavar="DIR", help="The folder for decoded images."),
    images("--download", is_flag=True, help="Download cifar10 or cifar100 if it is missing."),
    images("--skip-broken", is_flag=True, help="Skip unreadable images, and links that are not followed."),
)


SOURCE = (
    images(
        "--data",
        "source",
        metavar="DATA",
        callback=existing_images,
        help="Labelled images, as for 'train', such as digits or a FILE.npz.",
    ),
    images("--image-size", type=click.IntRange(1), metavar="PIXELS", help="Resize the images of a folder to this."),
    NORMALISE,
)


@dataclass(frozen=True)
class Reading:
    """The options for reading data."""

    cache: str | None = None
    download: bool = False
    skip_broken: bool = False

    def load(self, source: str, image_size: int | None) -> ImageData:
        """The data set that `source` names; decoding a folder of images shows progress.

        Raises:
            DataError: there is no such data, or it is damaged.
        """
        from slimnet.data import load_data

        options: dict[str, Any] = {
            "image_size": image_size,
            "cache": self.cache,
            "download": self.download,
            "skip_broken": self.skip_broken,
        }
        if not Path(source).is_dir():
            with terminal.working(f"Reading {source}"):
                return load_data(source, **options)
        with ExitStack() as stack:
            stack.enter_context(terminal.quiet_libraries())
            advance: terminal.Advance | None = None

            def decoded(done: int, total: int) -> None:
                nonlocal advance
                if advance is None:
                    advance = stack.enter_context(terminal.progress("Decoding", total))
                advance(done, "")

            data = load_data(source, progress=decoded, **options)
        if data.left_out:
            terminal.note(f"{data.left_out} files of {source} are left out: unreadable, or links that are not followed")
        return data


reading_options = as_one("reading", Reading, OPTIONS)
"""Add the options; the command gets them as one `reading`."""


@dataclass(frozen=True)
class Labelled:
    """The labelled images of a command: their source, and how they are read and normalised."""

    source: str | None
    image_size: int | None
    reading: Reading
    normalise: str | None = None
    optional: bool = False

    @property
    def arguments(self) -> list[str]:
        """The words that name these images on another command line; none for those that a run names itself."""
        if self.source is None or self.optional:
            return []
        size = ["--image-size", str(self.image_size)] if self.image_size else []
        return ["--data", self.source, *size, *(["--normalise", self.normalise] if self.normalise else [])]

    def load(self, *, alone: bool = False) -> ImageData | None:
        """Read them, with the normalisation of the network's training; None without `--data`.

        With `alone` a normalisation may be given without images.

        Those that are `optional`, because a run names them and not the user, are left out with a note where they cannot
        be read.

        Raises:
            click.UsageError: there are options for images, and none were named.
            DataError: there is no such data, it is damaged, or it cannot be normalised so.
        """
        from slimnet.data.normalisation import normalised
        from slimnet.errors import DataError

        if self.source is None:
            normalise = None if alone else self.normalise
            if (self.image_size, normalise) != (None, None) or self.reading != Reading():
                raise click.UsageError(
                    "--image-size, --normalise, --cache, --download and --skip-broken belong to --data; give it too"
                )
            return None
        try:
            return normalised(self.reading.load(self.source, self.image_size), self.normalise or "data")
        except DataError as error:
            if not self.optional:
                raise
            terminal.note(f"the run's images are not used: {error}")
            return None

    def trained_on(self, known: ImageSpec | None) -> Labelled:
        """The same images with what a network's bundle says of its own, where the command line says nothing."""
        if known is None or self.source is None:
            return self
        # Only the images of a folder are resized.
        size = max(known.image_size) if Path(self.source).is_dir() else None
        return replace(self, normalise=self.normalise or known.normalisation, image_size=self.image_size or size)


def spec_without_images(normalise: str | None, example: Any, known: ImageSpec | None = None) -> ImageSpec | None:
    """What is known of a network's images from a normalisation and example inputs `(N, C, H, W)`; None without one.

    The rest, such as the names of classes, is what was `known` before.

    Raises:
        click.UsageError: the normalisation is that of data, or the inputs are no images.
        DataError: the normalisation is for another number of channels.
    """
    if normalise is None:
        return None
    from slimnet.data.image_spec import ImageSpec
    from slimnet.data.normalisation import statistics

    if normalise == "data":
        raise click.UsageError("--normalise data is measured on the training images; give them with --data")
    shape = tuple(getattr(example, "shape", ()))
    if len(shape) != 4:
        raise click.UsageError("--normalise is for a network that takes one batch of images (N, C, H, W)")
    mean, std = statistics(normalise, shape[1], "an input")
    classes = known.classes if known else ()
    return ImageSpec(mean, std, known.image_size if known else (shape[2], shape[3]), classes)


def criterion_images(images: ImageData | None, say: terminal.Say) -> Batches | None:
    """The images for a criterion for dead channels: all training images, with progress."""
    if images is None:
        return None
    from slimnet.data import Batches

    return Batches(images, "train", progress=terminal.counting(say, "activations"))


def data_options(command: Command) -> Command:
    """Add `--data` and the options for reading it; the command gets them as one `data`."""

    @functools.wraps(command)
    def with_data(
        source: str | None, image_size: int | None, normalise: str | None, reading: Reading, **given: Any
    ) -> Any:
        return command(data=Labelled(source, image_size, reading, normalise), **given)

    return functools.reduce(lambda decorated, option: option(decorated), reversed(SOURCE), reading_options(with_data))
