"""Nodes of a graph as modules: what a node computes, from its inputs and the weights that it names."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from slimnet.errors import UsageError, short_reason
from slimnet.onnx_slimming.model_file import OPEN, graphs_of
from slimnet.onnx_slimming.node_values import DataDependentError, NotSupportedError, Settings, Value
from slimnet.onnx_slimming.opaque_op import OpaqueNode
from slimnet.onnx_slimming.operators.normalisation import OPSET
from slimnet.onnx_slimming.operators.table import OPERATORS

MOST_KNOWN = 1 << 22
"""The most numbers that are computed beforehand at once: enough for every table of indices, no threat to memory."""

SIZED = ("Reshape", "Split", "Resize", "Upsample")
"""Operators with sizes of their own: their nodes are classes of `sized.py`."""

GROWING = ("ConstantOfShape", "Expand", "Tile", "Range")
"""Operators whose result may be far larger than what they are given."""


class NodeSource:
    """A node of the graph as it stands in the file; copies of its module share it."""

    def __init__(self, node: onnx.NodeProto, name: str, index: int, model: onnx.ModelProto):
        self.proto = node
        self.name = name
        self.index = index
        self.inputs = (*node.input, *captured(node))
        self.outputs = tuple(node.output)
        self.alone = OpaqueNode(node, name, self.inputs, model)
        version = next((each.version for each in model.opset_import if each.domain in OPEN), 0)
        settings = {each.name: plain(each) for each in node.attribute if not is_graph(each)}
        self.settings = Settings(settings | {OPSET: version}, sum(bool(output) for output in node.output))
        self.evaluator: ReferenceEvaluator | None = None
        self.traceable = node.domain in OPEN and not any(graphs_of(node))

    def __deepcopy__(self, memo: dict[int, Any]) -> "NodeSource":
        return self

    @property
    def kind(self) -> str:
        """The name of its operator."""
        return self.proto.op_type

    def evaluate(self, values: Sequence[Value]) -> tuple[np.ndarray, ...]:
        """Its outputs from numbers that are known.

        Raises:
            UsageError: they would be far more than those of sizes and indices.
        """
        self.refuse_growth(values)
        if not self.traceable or (self.kind not in OPERATORS and self.kind not in SIZED):
            return tuple(self.alone.run(values))
        if self.evaluator is None:
            inputs = [helper.make_tensor_value_info(name, 1, None) for name in dict.fromkeys(self.inputs) if name]
            outputs = [helper.make_empty_tensor_value_info(name) for name in self.outputs if name]
            graph = helper.make_graph([self.proto], "node", inputs, outputs)
            self.evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=self.alone.opset_imports))
        feed = {name: value for name, value in zip(self.inputs, values, strict=True) if name}
        return tuple(np.asarray(each) for each in self.evaluator.run(None, feed))

    def refuse_growth(self, values: Sequence[Value]) -> None:
        """Refuse to compute more numbers beforehand than sizes and indices are.

        Raises:
            UsageError: naming the node.
        """
        sizes = [value for value in values if isinstance(value, np.ndarray)]
        count = float(sum(each.size for each in sizes))
        if self.kind == "Range":
            start, limit, step = (float(each.reshape(-1)[0]) for each in sizes)
            count = abs((limit - start) / step) if step else math.inf
        elif self.kind in GROWING:
            target = sizes[-1].reshape(-1)[:64].astype(np.float64)
            count = float(np.prod(np.maximum(target, 1))) * (1 if len(sizes) < 2 else sizes[0].size)
        if not count <= MOST_KNOWN:
            raise UsageError(f"node {self.name!r:.80} ({self.kind}) makes {count:,.0f} numbers; they are not computed")


def captured(node: onnx.NodeProto) -> list[str]:
    """The values from around a node that the graphs in its attributes use."""
    made: set[str] = set()
    read: dict[str, None] = {}
    for graph in graphs_of(node):
        made.update(each.name for each in (*graph.input, *graph.initializer))
        for inner in graph.node:
            made.update(inner.output)
            read.update(dict.fromkeys(inner.input))
        read.update(dict.fromkeys(each.name for each in graph.output))
    # An optional input that is left out has an empty name.
    known = made | set(node.input) | {""}
    return [name for name in read if name not in known]


def is_graph(attribute: onnx.AttributeProto) -> bool:
    """Whether an attribute holds a graph."""
    return attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def plain(attribute: onnx.AttributeProto) -> Any:
    """An attribute as a number, a text, a list of these, or an array."""
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value


class Node(nn.Module):
    """A node that is no layer; weights that it names are parameters `input0`, `input1`, ... by their positions.

    `opaque` says that nothing is known of what it computes here: it is run as it is, and its channels stay.
    """

    def __init__(self, source: NodeSource, weights: Mapping[int, nn.Parameter]):
        super().__init__()
        self.source = source
        self.slots = tuple(sorted(weights))
        self.opaque = not source.traceable or not self.is_known()
        for position, weight in weights.items():
            self.register_parameter(weight_name(position), weight)

    def is_known(self) -> bool:
        """Whether there is an equivalent for the operator."""
        return self.source.kind in OPERATORS

    def forward(self, *values: Value) -> Any:
        """The outputs: one value, or several."""
        given = list(values)
        for position in self.slots:
            given[position] = getattr(self, weight_name(position))
        if not any(isinstance(value, torch.Tensor) for value in given):
            return one_or_all(self.source.evaluate(given))
        if not self.opaque:
            try:
                return self.compute(given)
            except (NotSupportedError, DataDependentError):
                self.opaque = True
        return one_or_all(self.source.alone.call(given))

    def compute(self, given: Sequence[Value]) -> Any:
        """The outputs, in ops of torch."""
        return OPERATORS[self.source.kind](self.source.settings, *given)


def one_or_all(outputs: Sequence[Any]) -> Any:
    """The output of a node that has one; all of them otherwise."""
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


def weight_name(position: int) -> str:
    """The name of the parameter that stands in the place of an input."""
    return f"input{position}"


def failed(source: NodeSource, error: BaseException) -> str:
    """What a node that raised is reported as."""
    return f"node {source.name!r:.80} ({source.kind}) cannot be followed: {short_reason(error)}"
