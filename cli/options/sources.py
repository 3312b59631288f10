"""Where a network comes from: a checkpoint, the folder of a training run, or a bundle, and what these say of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.data import Labelled
from slimnet_cli.options.network import Network, noise, unnamed
from slimnet_cli.output import terminal

from slimnet.storage.folder_names import MODEL

IMAGE_AXES = 3
"""The axes of an image: channels, height and width."""

if TYPE_CHECKING:
    from torch import nn

    from slimnet.bundle.blueprint import Blueprint
    from slimnet.data import ImageData
    from slimnet.data.image_spec import ImageSpec
    from slimnet.training import Recipe


@dataclass(frozen=True)
class Source:
    """A network that a command line names by a path.

    Attributes:
        path: as it was named; `weights` is the file that holds the network's.
        network: what is known of it, from the command line or from the folder.
        recipe: that of the run that trained it; None where it was not named by a run.
        blueprint: that of its bundle; None for other sources.
        stored_images: what the folder of the bundle or of the run says of its images; None where it says nothing.
    """

    path: Path
    weights: Path
    network: Network
    recipe: Recipe | None = None
    blueprint: Blueprint | None = None
    stored_images: ImageSpec | None = None

    @property
    def arguments(self) -> list[str]:
        """The words that name this network on another command line, with `--trust` where that command needs it."""
        known = self.recipe is not None or self.blueprint is not None
        is_other = self.recipe is not None and self.weights.parent == self.path and self.weights.name != MODEL
        words = [str(self.weights if is_other else self.path)]
        if self.network.arch is not None and self.recipe is None:
            words += ["--arch", self.network.arch]
            words += ["--arch-args", json.dumps(dict(self.network.arch_args))] if self.network.arch_args else []
        words += ["--weights", self.network.weights] if self.network.weights and not known else []
        words += ["--input-shape", ",".join(map(str, self.network.input_shape))] if self.network.input_shape else []
        return [*words, "--trust"] if self.network.trust or self._needs_trust() else words

    def _needs_trust(self) -> bool:
        """Whether the folder names code of others, and the command line names no architecture in its place."""
        from slimnet.models.untrusted import needs_trust

        if self.recipe is not None:
            return needs_trust(self.recipe.arch, self.recipe.arch_args)
        known = None if self.blueprint is None else self.blueprint.architecture
        return self.network.arch is None and known is not None and needs_trust(known.name, known.args)

    def load(self) -> nn.Module:
        """The network with its weights, in eval mode, on the device asked for.

        Raises:
            click.UsageError: no architecture was named, and the source names none.
            SlimnetError: the weights or the bundle cannot be read, or the architecture cannot be built.
        """
        if self.blueprint is None:
            return self._load_checkpoint()
        from slimnet.bundle import bundle

        known = self.network.fresh()
        return bundle.load(self.path, known, trust=self.network.trust).eval().to(self.network.device)

    def _load_checkpoint(self) -> nn.Module:
        from slimnet.data.image_spec import record_images

        model = self.network.load(str(self.weights))
        record_images(model, self.stored_images)
        return model

    @cached_property
    def images(self) -> ImageSpec | None:
        """What is known of the network's images: what its folder says, or else the data of its run; None if neither."""
        if self.stored_images is not None or self.recipe is None:
            return self.stored_images
        return _images_in(self.recipe)

    def labelled(self, data: Labelled) -> Labelled:
        """The labelled images to use: those asked for, or those that the run was trained and tested on.

        Images for the network of a bundle or a run are normalised and resized as its folder says, unless asked
        otherwise.
        """
        if self.recipe is None or data.source not in (None, self.recipe.data):
            return data.trained_on(self.stored_images)
        if data.source is not None:
            return data
        size = data.image_size or self.recipe.image_size
        return replace(data, source=self.recipe.data, image_size=size, optional=True)

    def example(self, model: nn.Module, images: ImageData | None) -> Any:
        """A few inputs, where the network is: test images, or noise.

        Noise has the shape that the command line gives, that of the bundle or the run, or the usual one.
        """
        if images is not None or self.network.input_shape is not None:
            return self.network.example(model, images)
        if self.blueprint is None:
            known = self.images
            if known is None:
                return self.network.example(model)
            return noise((known.channels, *known.image_size)).to(self.network.device)
        from slimnet.bundle.input_spec import random_inputs

        inputs = random_inputs(self.blueprint.inputs, seed=0).to(self.network.device)
        return inputs.kwargs or (inputs.args if len(inputs.args) > 1 else inputs.args[0])


def find_source(path: str, network: Network) -> Source:
    """What a path on the command line names.

    A run or a bundle knows its architecture, which is not built where that would run code, unless it is trusted.

    `path` is what `existing_source` takes.

    Raises:
        click.UsageError: a checkpoint without `--arch`, or options that say again what a run says.
        BundleError, UsageError: a damaged bundle, or a damaged recipe.
    """
    from slimnet.storage.folder_names import is_bundle, is_run

    place = Path(path)
    if is_bundle(place):
        return _of_bundle(place, network)
    if is_run(place):
        return _of_run(place, network)
    if network.arch is not None:
        return Source(place, place, network)
    if is_model_of_run(place):
        return _of_run(place.parent, network, place)
    if network.trust:
        return Source(place, place, network)
    raise click.UsageError(unnamed(path))


def is_model_of_run(file: Path) -> bool:
    """Whether a file is by its name a model of the run in its folder.

    These are model.pt, model_best.pt, and model_2500.pt of a run that was made longer.
    """
    from slimnet.storage.folder_names import is_run

    return file.match("model*.pt") and is_run(file.parent)


def images_at(path: str) -> ImageSpec | None:
    """What the bundle or the run at a path says of its images; None for other paths.

    Raises:
        SlimnetError: it is damaged.
    """
    return find_source(path, Network(None)).images if describes_itself(path) else None


def describes_itself(path: str) -> bool:
    """Whether a path is that of a bundle, of a run or of a run's model, which know their network and its images."""
    from slimnet.storage.folder_names import is_bundle, is_run

    place = Path(path)
    return is_bundle(place) or is_run(place) or is_model_of_run(place)


def _images_in(recipe: Recipe) -> ImageSpec | None:
    """What the images of a run are, from its data; None where that cannot be read."""
    from slimnet.data import load_data
    from slimnet.errors import DataError

    try:
        return load_data(recipe.data, image_size=recipe.image_size).spec
    except DataError:
        return None


def run_arguments(folder: Path, recipe: Recipe) -> list[str]:
    """The words that name a run on another command line."""
    return Source(folder, folder / MODEL, Network(None), recipe=recipe).arguments


def bundle_arguments(folder: Path) -> list[str]:
    """The words that name a bundle on another command line: its path alone where nobody can read what it holds."""
    from slimnet.errors import SlimnetError

    try:
        return written_bundle(folder).arguments
    except SlimnetError:
        return [str(folder)]


def written_bundle(folder: Path, network: Network | None = None) -> Source:
    """A bundle whose files this command has written or checked; `network` is the one of its command line.

    Raises:
        BundleError, PlanError: the folder holds no blueprint, or a damaged one.
    """
    from slimnet.bundle.blueprint import Blueprint
    from slimnet.storage.folder_names import PLAN, WEIGHTS

    return Source(folder, folder / WEIGHTS, network or Network(None), blueprint=Blueprint.read(folder / PLAN))


def _of_bundle(folder: Path, network: Network) -> Source:
    from slimnet.bundle.bundle import read_blueprint
    from slimnet.bundle.manifest import WEIGHTS

    if network.weights is not None:
        raise click.UsageError(f"{folder} is a bundle and holds one set of weights; leave --weights out")
    blueprint = read_blueprint(folder)
    return Source(folder, folder / WEIGHTS, network, blueprint=blueprint, stored_images=blueprint.images)


def _of_run(folder: Path, network: Network, weights: Path | None = None) -> Source:
    """A run with its newest weights, or those of a file in its folder."""
    from slimnet.training.run.images_file import read_images
    from slimnet.training.run.run_folder import recipe_of

    recipe = recipe_of(folder)
    if network.arch not in (None, recipe.arch) or network.arch_args or network.weights is not None:
        raise click.UsageError(
            f"{folder} is a run and names its network, {recipe.arch}; leave --arch, --arch-args and --weights out"
        )
    if network.trust or network.arch is not None:
        recipe = recipe.trusted(arguments=network.trust)
    known = replace(network, arch=recipe.arch, arch_args=recipe.arch_args)
    images = _sized(read_images(folder), network.input_shape)
    return Source(folder, weights or _newest(folder), known, recipe=recipe, stored_images=images)


def _sized(images: ImageSpec | None, shape: tuple[int, ...] | None) -> ImageSpec | None:
    """What a run says of its images, with the height and width that the command line gives instead."""
    if images is None or shape is None or len(shape) != IMAGE_AXES:
        return images
    return replace(images, image_size=(shape[1], shape[2]))


def _newest(folder: Path) -> Path:
    """The trained model of a run, or the newest checkpoint of an unfinished one.

    Raises:
        click.UsageError: there is neither yet.
    """
    from slimnet.storage.folder_names import CHECKPOINTS

    if (folder / MODEL).exists():
        return folder / MODEL
    saved = sorted(path for path in (folder / CHECKPOINTS).glob("*.pt") if path.stem.isdecimal())
    if not saved:
        raise click.UsageError(f"{folder} has no checkpoint yet; wait for its first one")
    terminal.note(f"the run is not finished; this is its checkpoint {saved[-1].name}")
    return saved[-1]
