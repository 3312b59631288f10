"""What is measured against each other: bundles, ONNX files and checkpoints, made ready and timed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from slimnet_cli import terminal
from slimnet_cli.network import Network, noise, usual_shape

if TYPE_CHECKING:
    import torch

    from slimnet.benchmark import Comparison, Contender, Settings
    from slimnet.inputs import ExampleInputs, Inputs


def contender(name: str, source: str, network: Network) -> Contender:
    """A network by its path: the folder of a bundle, an .onnx file, or a checkpoint of the network given.

    A bundle that nothing says how to build again is its ONNX model alone.
    """
    from slimnet import bundle
    from slimnet.benchmark import Contender

    path = Path(source)
    if path.is_dir():
        files = {"weights": path / "model.safetensors", "onnx": path / "model.onnx"}
        known = network.or_else(bundle.read_blueprint(path).architecture)
        module = None if known.arch is None else bundle.load(path, known.fresh())
        return Contender(name, module, files["onnx"], files)
    if path.suffix == ".onnx":
        return Contender(name, None, path, {"onnx": path})
    return Contender(name, network.load(source), None, {"weights": path})


def example_for(contenders: Sequence[Contender], network: Network) -> torch.Tensor:
    """A few inputs of the shape asked for, else of the one an ONNX file has, else of the architecture's."""
    from slimnet.benchmark import onnx_input_shape

    shape = network.input_shape
    for each in contenders:
        if shape is None and each.onnx is not None:
            shape = onnx_input_shape(each.onnx)
    if shape is None and network.arch is not None:
        shape = usual_shape(network.arch, network.arch_args)
    if shape is None:
        raise click.UsageError("the shape of the inputs is not known; give it with --input-shape C,H,W")
    return noise(shape)


def measured(contenders: Sequence[Contender], example: ExampleInputs | Inputs, settings: Settings) -> Comparison:
    """Compare contenders, showing how far it is."""
    from slimnet.benchmark import cells, compare

    with terminal.progress("Measuring", len(cells(contenders, settings))) as advance:
        return compare(contenders, example, settings, progress=lambda done, _, label: advance(done, label))
