"""Nodes of which nothing is known: onnxruntime runs each alone, and the trace sees an op that it does not know.

So their channels stay, and the plan says at which operator and node.
"""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

from slimnet.errors import TraceError, UsageError, short_reason
from slimnet.onnx_slimming.example_feeds import Feed
from slimnet.onnx_slimming.memory_limit import LIMIT
from slimnet.onnx_slimming.node_values import Value

LIBRARY = torch.library.Library("slimnet_onnx", "FRAGMENT")

PREFIX = "onnx_"
"""Begins the names of these ops; none of torch's own begins so."""

_defined: set[str] = set()
_numbers = count()
_nodes: "WeakValueDictionary[int, OpaqueNode]" = WeakValueDictionary()
"""The nodes that run alone, by the numbers that stand for them in calls."""


class OpaqueNode:
    """A node that runs alone; `proto` is the node, `inputs` are its inputs and what graphs in its attributes use."""

    def __init__(self, proto: onnx.NodeProto, name: str, inputs: Sequence[str], model: onnx.ModelProto):
        self.proto = proto
        self.name = name
        self.inputs = tuple(inputs)
        self.opset_imports = list(model.opset_import)
        self.ir_version = model.ir_version
        self.session: onnxruntime.InferenceSession | None = None
        self.given: tuple[Value, ...] = ()
        self.results: list[torch.Tensor] = []
        self.number = next(_numbers)
        _nodes[self.number] = self

    def call(self, values: Sequence[Value]) -> list[torch.Tensor]:
        """Run it as an op of torch, which a trace sees."""
        self.given = tuple(values)
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        return list(op_named(self.proto.op_type)(tensors, self.number))

    def run(self, values: Sequence[Value]) -> list[np.ndarray]:
        """Its outputs under onnxruntime; without values for inputs that are left out.

        Raises:
            TraceError: onnxruntime does not run it, or its outputs are no tensors.
        """
        feed = {
            name: np.asarray(value.detach() if isinstance(value, torch.Tensor) else value)
            for name, value in zip(self.inputs, values, strict=True)
            if name and value is not None
        }
        try:
            session = self.session or self.opened(feed)
            found = session.run(None, feed)
        except UsageError:
            raise
        except Exception as error:  # onnxruntime's errors have no common base
            raise TraceError(
                f"node {self.name!r:.80} ({self.proto.op_type}) does not run: {short_reason(error)}"
            ) from error
        if not all(isinstance(each, np.ndarray) for each in found):
            raise TraceError(f"node {self.name!r:.80} ({self.proto.op_type}) returns no tensor but a sequence or a map")
        return found

    def opened(self, feed: Feed) -> onnxruntime.InferenceSession:
        """A session of a model with this node alone."""
        self.refuse_growth(feed)
        model = self.model_of({name: [None] * array.ndim for name, array in feed.items()}, feed, {})
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return self.session

    def model_of(self, shapes: Mapping[str, Any], feed: Feed, stored: Feed) -> onnx.ModelProto:
        """A model with this node alone, whose inputs have these shapes, unless they are stored in it."""
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(feed[name].dtype), shape)
            for name, shape in shapes.items()
        ]
        outputs = [helper.make_empty_tensor_value_info(name) for name in self.proto.output if name]
        weights = [numpy_helper.from_array(array, name) for name, array in stored.items()]
        graph = helper.make_graph([self.proto], "node", inputs, outputs, weights)
        return helper.make_model(graph, opset_imports=self.opset_imports, ir_version=self.ir_version)

    def refuse_growth(self, feed: Feed) -> None:
        """Refuse a node whose outputs would take too much memory, as far as their shapes follow from its inputs.

        Raises:
            UsageError: naming it.
        """
        small = {name: array for name, array in feed.items() if array.size <= SMALL}
        shapes = {name: array.shape for name, array in feed.items() if name not in small}
        model = onnx.shape_inference.infer_shapes(self.model_of(shapes, feed, small), data_prop=True)
        for output in model.graph.output:
            dims = [dim.dim_value for dim in output.type.tensor_type.shape.dim]
            if math.prod(dims) * BYTES > LIMIT:
                raise UsageError(
                    f"node {self.name!r:.80} ({self.proto.op_type}) makes a tensor {tuple(dims)}, which is not computed"
                )


SMALL, BYTES = 64, 4
"""Up to how many numbers are taken for sizes; bytes of a number."""


def op_named(kind: str) -> Any:
    """The op of torch that stands for an operator of ONNX."""
    name = PREFIX + (re.sub(r"\W", "", kind, flags=re.ASCII).strip("_")[:60] or "unnamed")
    if name not in _defined:
        LIBRARY.define(f"{name}(Tensor[] values, int node) -> Tensor[]")
        LIBRARY.impl(name, run_tensors, "CPU")
        LIBRARY.impl(name, empty_tensors, "Meta")
        _defined.add(name)
    return getattr(torch.ops.slimnet_onnx, name)


def run_tensors(tensors: list[torch.Tensor], number: int) -> list[torch.Tensor]:
    """The outputs of a node on these tensors, with its other inputs as they were given."""
    node, rest = _nodes[number], iter(tensors)
    values = [next(rest) if isinstance(value, torch.Tensor) else value for value in node.given]
    outputs = [torch.from_numpy(np.array(each)) for each in node.run(values)]
    node.results = [torch.empty_like(each, device="meta") for each in outputs]
    return outputs


def empty_tensors(tensors: list[torch.Tensor], number: int) -> list[torch.Tensor]:
    """Outputs without values, in the shapes that they had when the node ran.

    Raises:
        NotImplementedError: it has not run yet.
    """
    node = _nodes[number]
    if not node.results:
        raise NotImplementedError(f"node {node.name!r:.80} ({node.proto.op_type}) has not run yet")
    return [torch.empty_like(each) for each in node.results]
