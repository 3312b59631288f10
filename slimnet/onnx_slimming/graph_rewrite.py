"""The slim network put back into its ONNX graph: the same nodes and names, with narrower stored tensors."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from slimnet.errors import SlimnetError
from slimnet.modules.copying import skeleton
from slimnet.modules.network import Network
from slimnet.onnx_slimming.graph_module import (
    Binding,
    OnnxGraph,
    constant_attribute,
    constant_value,
    is_constant,
    module_at,
    trace_sizes,
)
from slimnet.onnx_slimming.nodes import NodeSource
from slimnet.onnx_slimming.sized import SizedNode, changed


class RewriteError(SlimnetError):
    """A size that the slim network needs and that the file does not hold as a number."""


SIZE_INPUTS = {"Reshape": 1, "Split": 1, "Resize": 3}
"""Which input of an operator its sizes are."""


def rewritten(
    model: onnx.ModelProto,
    dense: OnnxGraph,
    slim: OnnxGraph,
    bindings: Sequence[Binding],
    inputs: Sequence[torch.Tensor],
) -> onnx.ModelProto:
    """A copy of a model with the tensors of the slim network, and the sizes, groups and biases that these need.

    Raises:
        RewriteError: a size has to change that is computed in the graph.
    """
    editor = GraphEditor(model)
    before, after = Network.of(dense).named, Network.of(slim).named
    for name, stored, turned in bindings:
        old, new = before[name].detach(), after[name].detach()
        if old.shape != new.shape or not torch.equal(old, new):
            editor.store(stored, np.ascontiguousarray((new.t() if turned else new).cpu().numpy()))
    traced = skeleton(Network.of(slim)).module
    trace_sizes(traced, inputs)
    for step in slim.program.steps:
        source = slim.program.sources[step.path]
        update_layer(editor, source, step.path, module_at(dense, step.path), module_at(slim, step.path))
        update_sizes(editor, source, module_at(traced, step.path))
    return editor.finished()


def update_layer(editor: "GraphEditor", source: NodeSource, path: str, old: nn.Module, new: nn.Module) -> None:
    """Give a layer's node the groups and the bias of the slim layer."""
    if isinstance(new, nn.modules.conv._ConvNd) and new.groups != old.groups:
        editor.set_number(source, "group", new.groups)
    bias = new._parameters.get("bias")
    if bias is not None and old._parameters.get("bias") is None:
        editor.add_bias(source, path, bias.detach().cpu().numpy())


def update_sizes(editor: "GraphEditor", source: NodeSource, node: nn.Module) -> None:
    """Give a node with sizes of its own those that it had in the slim network."""
    if not isinstance(node, SizedNode) or node.dense is None or node.last is None or not node.last.given:
        return
    numbers = changed(node.dense, node.last)
    if numbers is not None:
        editor.set_sizes(source, node.last.given, numbers)


class GraphEditor:
    """Changes a copy of a model: stored tensors, attributes, and inputs of nodes."""

    def __init__(self, model: onnx.ModelProto):
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.graph = self.model.graph
        self.stored: dict[str, onnx.TensorProto | onnx.AttributeProto] = {
            tensor.name: tensor for tensor in self.graph.initializer
        }
        for node in self.graph.node:
            if is_constant(node):
                self.stored[node.output[0]] = constant_attribute(node)
        self.uses = Counter(name for node in self.graph.node for name in node.input)
        self.producers = {name: node for node in self.graph.node for name in node.output}
        self.names = set(self.uses) | set(self.producers) | set(self.stored)
        self.added: list[tuple[int, onnx.NodeProto]] = []

    def store(self, name: str, array: np.ndarray) -> None:
        """Put other values into a stored tensor, and their shape where the graph declares it."""
        place = self.stored[name]
        if isinstance(place, onnx.AttributeProto):
            place.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(array, place.t.name)))
            return
        place.CopyFrom(numpy_helper.from_array(array, place.name))
        for declared in self.graph.input:
            if declared.name == name:
                declared.type.CopyFrom(helper.make_tensor_type_proto(place.data_type, array.shape))

    def numbers(self, name: str) -> np.ndarray | None:
        """The values of a stored tensor; None for a value that is computed."""
        place = self.stored.get(name)
        if place is None:
            return None
        if isinstance(place, onnx.AttributeProto):
            return constant_value(place, name)
        return np.asarray(numpy_helper.to_array(place))

    def new_tensor(self, name: str, array: np.ndarray) -> str:
        """Store one more tensor; returns its name, which is free."""
        free, number = name, 1
        while free in self.names:
            number += 1
            free = f"{name}_{number}"
        self.names.add(free)
        self.graph.initializer.append(numpy_helper.from_array(array, free))
        self.stored[free] = self.graph.initializer[-1]
        return free

    def node(self, source: NodeSource) -> onnx.NodeProto:
        """The node of the copy."""
        found: onnx.NodeProto = self.graph.node[source.index]
        return found

    def set_number(self, source: NodeSource, name: str, number: int) -> None:
        """Set an attribute that is one whole number."""
        node = self.node(source)
        for attribute in node.attribute:
            if attribute.name == name:
                attribute.i = number
                return
        node.attribute.append(helper.make_attribute(name, number))

    def add_bias(self, source: NodeSource, path: str, bias: np.ndarray) -> None:
        """Give a layer a bias: as its third input, or behind a MatMul as the sum of both."""
        node = self.node(source)
        name = self.new_tensor(f"{path}.bias", bias)
        if node.op_type != "MatMul":
            del node.input[2:]
            node.input.append(name)
            return
        output = node.output[0]
        product = self.free_name(f"{output}_without_bias")
        node.output[0] = product
        total = helper.make_node("Add", [product, name], [output], name=self.free_name(f"{node.name}/Add"))
        self.added.append((source.index, total))

    def free_name(self, name: str) -> str:
        """A name that nothing in the graph has yet."""
        while name in self.names:
            name += "_"
        self.names.add(name)
        return name

    def set_sizes(self, source: NodeSource, given: Sequence[int], numbers: np.ndarray) -> None:
        """Give a node other sizes, wherever it has them from.

        Raises:
            RewriteError: they are computed in the graph.
        """
        node, position = self.node(source), SIZE_INPUTS[source.kind]
        own = next((each for each in node.attribute if each.name in ("split", "shape")), None)
        if own is not None:
            own.ints[:] = numbers.tolist()
            return
        name = node.input[position]
        if name in self.stored:
            node.input[position] = self.with_numbers(name, numbers)
            return
        producer = self.producers.get(name)
        if producer is None or producer.op_type != "Concat":
            raise RewriteError(f"the sizes of node {source.name!r:.80} ({source.kind}) are computed in the graph")
        if self.uses[name] > 1:
            raise RewriteError(f"the sizes of node {source.name!r:.80} ({source.kind}) are used elsewhere too")
        self.set_parts(producer, given, numbers, source)

    def set_parts(self, concat: onnx.NodeProto, given: Sequence[int], numbers: np.ndarray, source: NodeSource) -> None:
        """Change the sizes among the parts of a Concat; what is computed there is one number each."""
        place = 0
        for index, part in enumerate(list(concat.input)):
            array = self.numbers(part)
            count = 1 if array is None else array.size
            new = numbers[place : place + count]
            if list(given[place : place + count]) != new.tolist():
                if array is None:
                    raise RewriteError(f"a size of node {source.name!r:.80} ({source.kind}) is computed in the graph")
                concat.input[index] = self.with_numbers(part, new.reshape(array.shape))
            place += count

    def with_numbers(self, name: str, numbers: np.ndarray) -> str:
        """The name of a stored tensor with these numbers: the one that there is, if nothing else uses it."""
        if self.uses[name] > 1:
            self.uses[name] -= 1
            return self.new_tensor(f"{name}_slim", numbers)
        self.store(name, numbers)
        return name

    def finished(self) -> onnx.ModelProto:
        """The model, with added nodes in their places and the shapes of values inferred anew if it had them."""
        nodes = list(self.graph.node)
        for index, node in sorted(self.added, key=lambda item: -item[0]):
            nodes.insert(index + 1, node)
        if self.added:
            copies = [copy_of(node) for node in nodes]
            del self.graph.node[:]
            self.graph.node.extend(copies)
        if self.graph.value_info:
            del self.graph.value_info[:]
            return onnx.shape_inference.infer_shapes(self.model)
        return self.model


def copy_of(node: onnx.NodeProto) -> onnx.NodeProto:
    """A node of its own."""
    new = onnx.NodeProto()
    new.CopyFrom(node)
    return new
