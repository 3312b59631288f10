"""The size of a network in OpenVINO's own format, counted by the shapes of its graph, as `counts` counts ONNX files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slimnet.benchmark.counts import Counts, file_bytes
from slimnet.export.openvino_graph import (
    LAYERS,
    at_one_example,
    count_stored,
    layer_macs,
    layer_name,
    names_with_bias,
    weight_of,
)
from slimnet.export.openvino_model import read_graph
from slimnet.export.preprocessing import INNER

BY = "the shapes of OpenVINO's graph"


def count_openvino(name: str, path: Path, files: Mapping[str, Path]) -> Counts:
    """Count a network; its parameters are the weights that it stores, as floating-point numbers or quantised.

    Raises:
        UsageError: OpenVINO does not read it.
    """
    network = read_graph(path)
    stored = count_stored(network)
    at_one_example(network)
    counts = [layer_macs(layer) for layer in layers_of(network)]
    known = [each for each in counts if each is not None]
    macs = sum(known) if len(known) == len(counts) else None
    return Counts(name, stored, macs, file_bytes(files), counted_by=BY)


def openvino_input_shape(path: Path) -> tuple[int, ...] | None:
    """The shape of one example `(C, H, W)` of a network's first input; None if it is not fixed.

    Raises:
        UsageError: OpenVINO does not read it.
    """
    shape = one_example(path).inputs[0].partial_shape
    return None if shape.is_dynamic else tuple(shape.to_shape())[1:]


def one_example(path: Path) -> Any:
    """The network for one example.

    Raises:
        UsageError: OpenVINO does not read it.
    """
    network = read_graph(path)
    at_one_example(network)
    return network


def layers_of(network: Any) -> list[Any]:
    """The convolutions and linear layers, in order."""
    found = [node for node in network.get_ordered_ops() if node.get_type_name() in LAYERS]
    return [node for node in found if weight_of(node) is not None]


class GraphLayers:
    """The rows of the layers of a network in OpenVINO's own format."""

    def __init__(self, path: Path):
        self.macs: dict[tuple[str, str], int | None] = {}
        self._keys: dict[str, tuple[str, str]] = {}
        network = one_example(path)  # without which its operators no longer know their readers
        inner = INNER if network.inputs[0].get_element_type().get_type_name() == "u8" else ""
        for layer in layers_of(network):
            key = (layer_name(layer).removeprefix(inner), LAYERS[layer.get_type_name()])
            self.macs[key] = layer_macs(layer)
            self._keys |= dict.fromkeys(names_with_bias(layer), key)

    def of_operator(self, name: str) -> tuple[str, str] | None:
        """The row of an operator, None if it is no layer."""
        return self._keys.get(name)
