"""The options of data, and reading it with progress."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.groups import in_group
from slimnet_cli.options.paths import existing_images
from slimnet_cli.options.shared import Command, as_one
from slimnet_cli.output import terminal

if TYPE_CHECKING:
    from slimnet.data import Batches, ImageData

images = in_group("Images")

NORMALISE = images(
    "--normalise",
    type=click.Choice(("data", "imagenet", "halves", "none")),
    help="As the network was trained; data is the training images' own mean and deviation.  [default: data]",
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

    def load(self) -> ImageData | None:
        """Read them, with the normalisation of the network's training; None without `--data`.

        Those that are `optional`, because a run names them and not the user, are left out with a note where they cannot
        be read.

        Raises:
            click.UsageError: there are options for images, and none were named.
            DataError: there is no such data, it is damaged, or it cannot be normalised so.
        """
        from slimnet.data.normalisation import normalised
        from slimnet.errors import DataError

        if self.source is None:
            if (self.image_size, self.normalise) != (None, None) or self.reading != Reading():
                raise click.UsageError(
                    "--image-size, --normalise, --cache, --download and --skip-broken belong to --data; give it too"
                )
            return None
        try:
            return normalised(self.reading.load(self.source, self.image_size), self.normalise or "data")
        except DataError as error:
            if not self.optional:
                raise
            terminal.note(f"without the run's images, since {error}")
            return None


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
