"""The graph of an ONNX file as a module: its forward goes from node to node, and its weights are parameters."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.utils import _pytree as pytree

from slimnet.errors import SlimnetError, TraceError, UsageError
from slimnet.onnx_slimming.layers import Weight, make_layer, weights_of
from slimnet.onnx_slimming.memory_limit import MemoryLimit, as_meta, run_on_meta
from slimnet.onnx_slimming.node_values import Value
from slimnet.onnx_slimming.nodes import Node, NodeSource, failed, weight_name
from slimnet.onnx_slimming.operators.table import KNOWN_INPUTS
from slimnet.onnx_slimming.sized import SIZED_NODES
from slimnet.torch_state.eager_mode import EagerMode

FLOATS = (np.float32, np.float64, np.float16)
"""The types of weights."""


class Step(NamedTuple):
    """One node: the path of its module, the values it takes and gives, and those that are not needed after it."""

    path: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    last_used: tuple[str, ...]


class Binding(NamedTuple):
    """A parameter or buffer by name, and the tensor of the file that it is, turned or not."""

    tensor: str
    stored: str
    turned: bool


@dataclass(frozen=True)
class Program:
    """What a graph's forward goes through; copies of the module share it."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]
    constants: Mapping[str, np.ndarray]
    sources: Mapping[str, NodeSource]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Program":
        return self


class OnnxGraph(nn.Module):
    """The network of an ONNX file, in evaluation mode; it takes the inputs of the graph in their order."""

    def __init__(self, program: Program):
        super().__init__()
        self.program = program

    def forward(self, *given: torch.Tensor) -> Any:
        """The outputs of the graph: one tensor, or several."""
        program = self.program
        values: dict[str, Value] = dict(program.constants)
        values |= zip(program.inputs, given, strict=True)
        for step in program.steps:
            module = module_at(self, step.path)
            found = module(*[values[name] if name else None for name in step.inputs])
            results = found if isinstance(found, tuple | list) else (found,)
            values |= zip(step.outputs, results, strict=True)
            for name in step.last_used:
                del values[name]
        outputs = [as_output(values[name]) for name in program.outputs]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def as_output(value: Value) -> torch.Tensor:
    """An output of the graph as a tensor, numbers that are known as well."""
    return value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))


def module_at(module: nn.Module, path: str) -> nn.Module:
    """The module at a path, whose parts may be any text."""
    for name in path.split("."):
        child = module._modules[name]
        assert child is not None, "every part of a path is a module"
        module = child
    return module


@dataclass
class GraphBuilder:
    """Makes the modules of a graph, one node at a time."""

    model: onnx.ModelProto
    fixed: bool
    stored: dict[str, np.ndarray]
    bindings: list[Binding] = field(default_factory=list)
    parameters: dict[tuple[str, bool], nn.Parameter] = field(default_factory=dict)
    taken: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.sources = [
            NodeSource(node, node.name or node.op_type, index, self.model)
            for index, node in enumerate(self.model.graph.node)
            if not is_constant(node)
        ]
        self.known = self.names_known()
        self.layers = {id(source): self.layer_weights(source) for source in self.sources}
        self.refuse_turned_twice()
        self.root = nn.Module()

    def names_known(self) -> set[str]:
        """The stored tensors that are numbers rather than weights: integers, single ones, sizes and settings."""
        uses = [(source, place, name) for source in self.sources for place, name in enumerate(source.inputs)]
        # The weights of layers are weights even if they are one number.
        of_layers = {name for source, place, name in uses if place and source.kind in LAYERS}
        sizes = {name for source, place, name in uses if place in KNOWN_INPUTS.get(source.kind, ())}
        single = {
            name for name, array in self.stored.items() if array.size == 1 and not (array.ndim and name in of_layers)
        }
        return sizes | single | {name for name, array in self.stored.items() if array.dtype not in FLOATS}

    def is_weight(self, name: str) -> bool:
        """Whether a value is a stored tensor that is a weight."""
        return name in self.stored and name not in self.known

    def layer_weights(self, source: NodeSource) -> tuple[Weight, ...]:
        """The weights of a node that is a layer."""
        ranks = {place: self.stored[name].ndim for place, name in enumerate(source.inputs) if self.is_weight(name)}
        return weights_of(source, ranks)

    def refuse_turned_twice(self) -> None:
        """Take nodes that use a tensor turned, where others use it as it is, for no layers: it has one shape only."""
        uses: dict[str, set[bool]] = {}
        for source in self.sources:
            turned = {weight.position: weight.turned for weight in self.layers[id(source)]}
            for place, name in enumerate(source.inputs):
                if self.is_weight(name):
                    uses.setdefault(name, set()).add(turned.get(place, False))
        for source in self.sources:
            if any(
                weight.turned and len(uses[source.inputs[weight.position]]) > 1 for weight in self.layers[id(source)]
            ):
                self.layers[id(source)] = ()

    def parameter(self, name: str, turned: bool) -> nn.Parameter:
        """A stored tensor as a parameter, the same one for every node that names it."""
        if (name, turned) not in self.parameters:
            array = np.array(self.stored[name].T if turned else self.stored[name], order="C")
            self.parameters[name, turned] = nn.Parameter(torch.from_numpy(array), requires_grad=True)
        return self.parameters[name, turned]

    def add(self, source: NodeSource) -> tuple[str, tuple[str, ...]]:
        """Make the module of a node; returns its path, and the values that it takes."""
        layer = self.layers[id(source)]
        if layer:
            path = self.free_path(layer_name(source, layer))
            tensors = {each.name: self.parameter(source.inputs[each.position], each.turned) for each in layer}
            for each in layer:
                self.bindings.append(Binding(f"{path}.{each.name}", source.inputs[each.position], each.turned))
            self.put(path, make_layer(source, tensors))
            return path, (source.inputs[0],)
        path = self.free_path(source.name)
        weights = {
            place: self.parameter(name, False) for place, name in enumerate(source.inputs) if self.is_weight(name)
        }
        for place in weights:
            self.bindings.append(Binding(f"{path}.{weight_name(place)}", source.inputs[place], False))
        sized = SIZED_NODES.get(source.kind) if source.traceable else None
        self.put(path, Node(source, weights) if sized is None else sized(source, weights, self.fixed))
        return path, tuple("" if place in weights else name for place, name in enumerate(source.inputs))

    def free_path(self, name: str) -> str:
        """A path that no node has yet; the network itself has the empty one."""
        path = ".".join(part or "_" for part in name.split("."))
        self.taken[path] += 1
        number = self.taken[path]
        return path if number == 1 else self.free_path(f"{path}_{number}")

    def put(self, path: str, module: nn.Module) -> None:
        """Put a module at a path, with what has been put below it already."""
        *around, last = path.split(".")
        place = self.root
        for name in around:
            place = place._modules.setdefault(name, nn.Module())  # type: ignore[assignment]
        earlier = place._modules.get(last)
        if earlier is not None:
            module._modules.update(earlier._modules)
        place._modules[last] = module

    def build(self) -> OnnxGraph:
        """The module of the whole graph."""
        graph = self.model.graph
        steps = [(*self.add(source), source) for source in self.sources]
        constants = {name: array for name, array in self.stored.items() if not self.is_weight(name)}
        inputs = tuple(each.name for each in graph.input if each.name not in self.stored)
        outputs = tuple(each.name for each in graph.output if not self.is_weight(each.name))
        if not outputs:
            raise UsageError("the graph has no output that it computes")
        taken = [(path, names, source.outputs) for path, names, source in steps]
        program = Program(
            inputs,
            outputs,
            tuple(with_last_uses(taken, {*outputs, *constants})),
            constants,
            {path: source for path, _, source in steps},
        )
        module = OnnxGraph(program)
        module._modules.update(self.root._modules)
        return module.eval()


LAYERS = ("Conv", "ConvTranspose", "BatchNormalization", "Gemm", "MatMul")
"""The operators whose inputs after the first are weights of a layer."""


def with_last_uses(taken: Sequence[tuple[str, tuple[str, ...], tuple[str, ...]]], kept: set[str]) -> list[Step]:
    """The steps, with the values that no later one takes."""
    steps: list[Step] = []
    needed = set(kept)
    for path, inputs, outputs in reversed(taken):
        free = {name for name in (*inputs, *outputs) if name} - needed
        needed |= free
        steps.append(Step(path, inputs, outputs, tuple(sorted(free))))
    return steps[::-1]


def layer_name(source: NodeSource, layer: Sequence[Weight]) -> str:
    """The name of a layer: that of its weight where it says so, or else that of its node."""
    stored = source.inputs[layer[0].position]
    name, dot, last = stored.rpartition(".")
    return name if dot and last == "weight" else source.name


def is_constant(node: onnx.NodeProto) -> bool:
    """Whether a node is a stored tensor."""
    return node.op_type == "Constant" and any(each.name in CONSTANTS for each in node.attribute)


def constant_attribute(node: onnx.NodeProto) -> onnx.AttributeProto:
    """The attribute of a Constant that holds its value."""
    return next(each for each in node.attribute if each.name in CONSTANTS)


CONSTANTS = ("value", "value_float", "value_floats", "value_int", "value_ints")


def stored_arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Every stored tensor of the graph by the name of its value, from initialisers and from nodes.

    Raises:
        UsageError: one is damaged, or weights are of a type that is not computed with.
    """
    found = {}
    for tensor in model.graph.initializer:
        found[tensor.name] = as_numbers(tensor, tensor.name)
    for node in model.graph.node:
        if is_constant(node):
            found[node.output[0]] = constant_value(constant_attribute(node), node.output[0])
    return found


def constant_value(attribute: onnx.AttributeProto, name: str) -> np.ndarray:
    """The value of a Constant node."""
    if attribute.name == "value":
        return as_numbers(attribute.t, name)
    whole = attribute.name.startswith("value_int")
    return np.array(onnx.helper.get_attribute_value(attribute), dtype=np.int64 if whole else np.float32)


def as_numbers(tensor: onnx.TensorProto, name: str) -> np.ndarray:
    """A stored tensor as an array.

    Raises:
        UsageError: it is damaged, or bfloat16 or smaller.
    """
    try:
        array = np.array(numpy_helper.to_array(tensor))
        torch.from_numpy(array.reshape(-1)[:1])
    except TypeError as error:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        raise UsageError(f"tensor {name!r:.80} is of type {kind}, which is not computed with; convert it") from error
    except Exception as error:  # numpy's and onnx's
        raise UsageError(f"tensor {name!r:.80} is damaged: its values do not fill its shape") from error
    return array


def build_graph(model: onnx.ModelProto, *, fixed: bool = False) -> tuple[OnnxGraph, list[Binding]]:
    """The module of a model, and which tensor of the file each of its parameters and buffers is.

    With `fixed`, sizes that are numbers in the file stay as they are, see `sized.py`.

    Raises:
        UsageError: a stored tensor is damaged, or of a type that is not computed with.
    """
    builder = GraphBuilder(model, fixed, stored_arrays(model))
    return builder.build(), builder.bindings


def run_graph(module: OnnxGraph, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Run the dense network once, which also tells its shapes.

    Raises:
        TraceError: a node cannot be followed; naming it.
    """
    at: list[str] = []
    handles = [
        each.register_forward_pre_hook(lambda _, __, path=path: at.append(path))
        for path, each in ((step.path, module_at(module, step.path)) for step in module.program.steps)
    ]
    try:
        with torch.no_grad(), MemoryLimit():
            found = module(*inputs)
    except SlimnetError:
        raise
    except Exception as error:
        source = module.program.sources[at[-1]] if at else None
        raise TraceError("the graph cannot be followed" if source is None else failed(source, error)) from error
    finally:
        for handle in handles:
            handle.remove()
    return list(found) if isinstance(found, tuple) else [found]


class OnMeta(EagerMode):
    """Runs ops without values: tensors that are stored elsewhere are taken for empty ones."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        moved = pytree.tree_map_only(torch.Tensor, as_meta, (args, kwargs or {}))
        return run_on_meta(func, *moved)


def trace_sizes(module: nn.Module, inputs: Sequence[torch.Tensor]) -> None:
    """One forward of a module whose tensors are on the meta device, for the sizes that its nodes note."""
    with torch.no_grad(), OnMeta():
        module(*[torch.empty_like(each, device="meta") for each in inputs])
