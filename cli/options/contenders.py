"""The networks to compare: bundles, ONNX files and checkpoints, loaded and measured."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from slimnet_cli.options.network import EXAMPLES, Network, assumed_shape, noise
from slimnet_cli.options.sources import find_source, images_at
from slimnet_cli.output.phases import Phase, progress_of

if TYPE_CHECKING:
    import torch

    from slimnet.benchmark import Comparison, Contender, Settings
    from slimnet.data import ImageData
    from slimnet.data.image_spec import ImageSpec
    from slimnet.modules.example_inputs import ExampleInputs, Inputs


def contender(name: str, source: str, network: Network) -> Contender:
    """A network by its path: the folder of a bundle or a run, an .onnx or .xml file, or a checkpoint of the network.

    A bundle without a known architecture is represented by its ONNX model only.
    """
    from slimnet.benchmark import Contender
    from slimnet.benchmark.contender import contender_of_file

    path = Path(source)
    if path.suffix.lower() in (".onnx", ".xml"):
        return contender_of_file(name, path)
    found = find_source(source, network)
    if found.blueprint is None:
        return Contender(name, found.load(), files={"weights": found.weights})
    files = {"weights": found.weights, "onnx": path / "model.onnx"}
    can_be_built = network.or_else(found.blueprint.architecture).arch is not None
    return Contender(name, found.load() if can_be_built else None, files["onnx"], files)


def images_known(sources: Sequence[str]) -> ImageSpec | None:
    """What the first bundle or run among these networks says of its images; None where none says anything.

    Raises:
        SlimnetError: it is damaged.
    """
    return next(filter(None, (images_at(path) for _, path in named(sources))), None)


def named(sources: Sequence[str]) -> list[tuple[str, str]]:
    """A name for every network on the command line, and its path.

    NAME=PATH gives the name; others have those of their files or folders, with as much of the path or a number as
    distinguishes them.

    Raises:
        click.UsageError: two were given the same name.
    """
    given = [_split(source) for source in sources]
    names = [name for name, _ in given if name is not None]
    for index, (name, path) in enumerate(given):
        if name is not None and name in [other for other, _ in given[:index]]:
            raise click.UsageError(f"two networks are called {name}; give one another name: NAME={path}")
    short = [_file_name(path) for name, path in given if name is None]
    found: list[tuple[str, str]] = []
    for name, path in given:
        if name is None:
            name = _file_name(path)
            if short.count(name) + names.count(name) > 1:
                name = "/".join(Path(path).absolute().parts[-2:])
            name = _numbered(name, [other for other, _ in found])
        found.append((name, path))
    return found


def _split(source: str) -> tuple[str | None, str]:
    """The name that a network was given, if any, and its path."""
    name, equals, path = source.partition("=")
    if equals and name and "/" not in name and not Path(source).exists():
        return name, path
    return None, source


def _file_name(source: str) -> str:
    path = Path(source)
    return path.parent.name if path.name == "model.onnx" and path.parent.name else path.name or source


def _numbered(name: str, taken: Sequence[str]) -> str:
    """A name that is not taken: itself, or with the next number behind it."""
    numbers = itertools.count(2)
    free = name
    while free in taken:
        free = f"{name} ({next(numbers)})"
    return free


def example_for(
    contenders: Sequence[Contender], network: Network, images: ImageData | None = None, known: ImageSpec | None = None
) -> torch.Tensor:
    """A few inputs: images if available, otherwise noise.

    Its shape is the requested one, that of an ONNX file, that of the images that are `known`, or the usual one.
    """
    from slimnet.benchmark.byte_inputs import example_shape
    from slimnet.benchmark.runtimes.runtime import file_of

    if images is not None:
        return next(images.batches("test", EXAMPLES))[0]
    shape = network.input_shape
    files = [path for each in contenders if (path := file_of(each)) is not None]
    for path in files:
        shape = shape or example_shape(path)
    if shape is None and known is not None:
        shape = (known.channels, *known.image_size)
    if shape is None and network.arch is not None:
        shape = assumed_shape(network.arch, network.arch_args)
    if shape is None:
        raise click.UsageError("the shape of the inputs is not known; give it with --input-shape C,H,W")
    return noise(shape)


def measured(
    contenders: Sequence[Contender],
    example: ExampleInputs | Inputs,
    settings: Settings,
    images: ImageData | None = None,
) -> Comparison:
    """Compare contenders, showing progress."""
    from slimnet.benchmark import compare, parts

    phases = [Phase(part.name, part.seconds) for part in parts(contenders, settings, images)]
    with progress_of("Measuring", phases) as progress:
        return compare(contenders, example, settings, data=images, watch=progress.at)


def write_report(
    path: Path, source: str, contenders: Sequence[Contender], example: torch.Tensor, comparison: Comparison
) -> Path:
    """Write the page of a comparison; for two networks also about the plan if the second is a bundle.

    Raises:
        SlimnetError: it cannot be written there.
    """
    import slimnet
    from slimnet import report
    from slimnet.bundle import bundle

    folder, dense = Path(source), contenders[0].model
    is_pair = len(contenders) == 2 and folder.is_dir()
    layers = slimnet.inspect(dense, example).layers if is_pair and dense is not None else ()
    page = report.Report(
        title=folder.resolve().name,
        plan=bundle.read_blueprint(folder).plan if is_pair else None,
        certificate=bundle.read_certificate(folder) if is_pair else None,
        environment=comparison.environment,
        gammas={layer.name: layer.gammas for layer in layers if layer.gammas},
        comparison=comparison,
    )
    return report.write_report(page, path)
