"""The size of a network: parameters, multiply-accumulates, bytes on disk.

MACs are those of convolutions and linear layers for one example. Those of a module are counted by fvcore (see
`slimnet.counting`), those of an ONNX graph from its shapes. All contenders of a comparison are counted in the same way.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import shape_inference
from torch import nn

from slimnet.counting import count_network, count_parameters
from slimnet.export.onnx_file import read_onnx
from slimnet.modules.example_inputs import ExampleInputs, Inputs
from slimnet.storage.field_types import Count

LAYER_OPERATORS = {"Conv": "conv", "ConvTranspose": "conv", "Gemm": "linear", "MatMul": "linear"}
"""The ONNX operators that are counted, with the kind of layer."""

QDQ = ("QuantizeLinear", "DequantizeLinear")
"""The ONNX operators around the layers of a quantised graph; their further inputs are scales and zero points."""


@dataclass(frozen=True)
class Counts:
    """The size and the cost of a network.

    `macs` is for one example, and None if the shapes of an ONNX graph are not known without running it; `file_bytes`
    maps a kind of file ("safetensors", "onnx", ...) to its size. `counted_by` is who counted the MACs, `by_operator`
    what that counter counted in all, and `activations` are elements, as in `NetworkCounts`.
    """

    name: str
    params: Count
    macs: Count | None
    file_bytes: Mapping[str, Count]
    activations: Count | None = None
    by_operator: Mapping[str, Count] = field(default_factory=dict)
    counted_by: str = ""


def count_module(name: str, model: nn.Module, example: ExampleInputs | Inputs, files: Mapping[str, Path]) -> Counts:
    """Count a module, by forwards of one example in evaluation mode."""
    found = count_network(model, example)
    return Counts(
        name,
        found.parameters[""],
        found.macs,
        file_bytes(files),
        found.activations,
        found.by_operator,
        found.counted_by,
    )


def count_onnx(name: str, path: Path, files: Mapping[str, Path]) -> Counts:
    """Count an ONNX graph; its parameters are the weights that it stores, as floating-point numbers or quantised."""
    stored = _stored(read_onnx(path).graph)
    return Counts(name, stored, onnx_macs(path), file_bytes(files), counted_by="the shapes of the ONNX graph")


def onnx_input_shape(path: Path) -> tuple[int, ...] | None:
    """The shape of one example `(C, H, W)` of an ONNX model's first input; None if it is not fixed.

    A dynamic height and width are those that the metadata state.

    Raises:
        UsageError: as `read_onnx`.
    """
    dimensions = _at_stated_size(read_onnx(path)).graph.input[0].type.tensor_type.shape.dim[1:]
    fixed = all(dimension.HasField("dim_value") for dimension in dimensions)
    return tuple(dimension.dim_value for dimension in dimensions) if fixed else None


def parameters(model: nn.Module) -> int:
    """The number of elements of a module's parameters, shared ones once."""
    return count_parameters(model)


def macs(model: nn.Module, example: ExampleInputs | Inputs) -> int:
    """Multiply-accumulates of the convolutions and linear layers of a module, for one example."""
    return count_network(model, example).macs


def file_bytes(files: Mapping[str, Path]) -> dict[str, int]:
    """Bytes on disk of each kind of file that exists."""
    return {kind: path.stat().st_size for kind, path in files.items() if path.is_file()}


def onnx_macs(path: Path) -> int | None:
    """Multiply-accumulates of an ONNX graph's convolutions and linear layers for one example.

    None if a shape depends on the data. A product of two activations (attention) is not a linear layer.
    """
    counts = [count for _, count in onnx_node_macs(path)]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def onnx_node_macs(path: Path) -> list[tuple[onnx.NodeProto, int | None]]:
    """Every node of an ONNX graph with its multiply-accumulates, as `onnx_macs` counts them."""
    model = _at_stated_size(read_onnx(path))
    for value in model.graph.input:
        dimensions = value.type.tensor_type.shape.dim
        if dimensions:
            dimensions[0].dim_value = 1
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    shapes = _shapes(shape_inference.infer_shapes(model, data_prop=True).graph)
    weights = _weights(model.graph)
    return [(node, _node_macs(node, shapes, weights)) for node in model.graph.node]


def _at_stated_size(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a dynamic height and width replaced by the image size in its metadata, if there is a valid one."""
    stated = next((entry.value for entry in model.metadata_props if entry.key == "image_size"), "")
    found = re.fullmatch(r"\[(\d{1,6}), ?(\d{1,6})\]", stated)
    if found is None:
        return model
    sizes = {"height": int(found[1]), "width": int(found[2])}
    for value in model.graph.input:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in sizes:
                dimension.dim_value = sizes[dimension.dim_param]
    return model


def _stored(graph: onnx.GraphProto) -> int:
    floating = {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE,
    }
    scales = {name for node in graph.node if node.op_type in QDQ for name in node.input[1:]}
    quantised = {node.input[0] for node in graph.node if node.op_type == QDQ[1]}
    weights = [
        tensor
        for tensor in graph.initializer
        if tensor.name in quantised or (tensor.data_type in floating and tensor.name not in scales)
    ]
    return sum(math.prod(tensor.dims) for tensor in weights)


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """The shapes without symbolic dimensions, by the name of the value."""
    known: dict[str, tuple[int, ...]] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    values: Iterable[Any] = (*graph.input, *graph.value_info, *graph.output)
    for value in values:
        dimensions = value.type.tensor_type.shape.dim
        if dimensions and all(dimension.HasField("dim_value") for dimension in dimensions):
            known[value.name] = tuple(dimension.dim_value for dimension in dimensions)
    return known


def _weights(graph: onnx.GraphProto) -> set[str]:
    """The names of values that do not depend on the input."""
    fixed = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if all(name in fixed for name in node.input if name):
            fixed.update(node.output)
    return fixed


def _node_macs(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]], weights: set[str]) -> int | None:
    if node.op_type not in LAYER_OPERATORS:
        return 0
    left, right = node.input[:2]
    if left not in weights and right not in weights:
        return 0
    if left not in shapes or right not in shapes or node.output[0] not in shapes:
        return None
    if node.op_type == "ConvTranspose":
        return math.prod(shapes[left]) * math.prod(shapes[right][1:])
    per_output = math.prod(shapes[right][1:]) if node.op_type == "Conv" else _inner(node, shapes[left])
    return math.prod(shapes[node.output[0]]) * per_output


def _inner(node: onnx.NodeProto, left: tuple[int, ...]) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return left[0] if transposed else left[-1]
