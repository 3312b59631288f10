"""A captured network in the operators that torch's ONNX exporter translates, without tracing it again.

The exporter traces every program once more to decompose its operators, which takes longer than all else it does. Of a
convolutional network only a few need it: activations in place, BatchNorm, a global average, dropout. These are replaced
here one by one; if that is not all, or not surely the same, the program is decomposed as usual.
"""

import copy
import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature

aten = torch.ops.aten

FRESH = {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.linear.default,
    aten.batch_norm.default,
    aten.max_pool2d.default,
    aten.adaptive_avg_pool2d.default,
}
"""Composite operators whose result never shares memory with an input. Of others the schema does not say it."""

TRANSLATED = {aten.flatten.using_ints, aten.reshape.default, aten.contiguous.default, aten.chunk.default}
"""Composite operators with results that share memory, which torch always decomposes, but translates as well."""


class LoweredProgram(ExportedProgram):
    """A program whose operators are ready for ONNX; one that has others is decomposed from the `original`."""

    def __init__(self, original: ExportedProgram) -> None:
        graph = copy.deepcopy(original.graph)
        lower(graph)
        super().__init__(
            original.graph_module,
            graph,
            signature_of(graph, original.graph_signature),
            original.state_dict,
            original.range_constraints,
            original.module_call_graph,
            constants=original.constants,
            verifiers=original.verifiers,
        )
        self.original = original

    def run_decompositions(
        self, decomp_table: Mapping[Any, Callable[..., Any]] | None = None, decompose_custom_triton_ops: bool = False
    ) -> ExportedProgram:
        """The program itself if none of its operators is in the table or writes to its inputs."""
        if decomp_table is not None and all(is_final(node, decomp_table) for node in self.graph.nodes):
            return self
        return self.original.run_decompositions(decomp_table, decompose_custom_triton_ops)  # type: ignore[arg-type]


def signature_of(graph: fx.Graph, original: ExportGraphSignature) -> ExportGraphSignature:
    """The signature of a copied program: steps may have been renamed, and those that make its outputs replaced."""
    inputs = [
        replace(spec, arg=replace(spec.arg, name=step.name))
        for spec, step in zip(original.input_specs, graph.find_nodes(op="placeholder"), strict=True)
    ]
    outputs = [
        replace(spec, arg=replace(spec.arg, name=step.name)) if isinstance(step, fx.Node) else spec
        for spec, step in zip(original.output_specs, graph.output_node().args[0], strict=True)  # type: ignore[arg-type]
    ]
    return ExportGraphSignature(inputs, outputs)


def is_final(node: fx.Node, table: Mapping[Any, Callable[..., Any]]) -> bool:
    """Whether decomposing would leave a step of a program as it is."""
    if node.op != "call_function":
        return node.op in ("placeholder", "output")
    target = node.target
    if not isinstance(target, OpOverload):
        return target is operator.getitem
    if target in table or target._schema.is_mutable:
        return False
    return target in TRANSLATED or not (is_composite(target) and returns_alias(target))


def lower(graph: fx.Graph) -> None:
    """Replace the operators for which there is a rule, in order, so that a rule sees what was made of earlier steps."""
    for node in list(graph.nodes):
        rule = RULES.get(node.target) if node.op == "call_function" else None
        if rule is not None:
            rule(graph, node)
        elif node.op == "call_function" and is_in_place(node.target):
            without_writing(graph, node)


def without_writing(graph: fx.Graph, node: fx.Node) -> None:
    """Let a step in place, such as `relu_`, return a new tensor, which later steps read instead of the overwritten one.

    That is the same unless another tensor shares the memory that is written to.
    """
    written, order = node.args[0], {each: number for number, each in enumerate(graph.nodes)}
    functional = functional_form(node.target)
    if functional is None or not isinstance(written, fx.Node) or not owns_its_memory(written, node):
        return
    new = put_before(graph, node, functional, node.args, node.kwargs, node.meta["val"])
    node.replace_all_uses_with(new)
    written.replace_all_uses_with(new, lambda user: order.get(user, -1) > order[node])
    graph.erase_node(node)


def functional_form(target: Any) -> OpOverload | None:
    """The operator that returns what an operator in place writes: `relu` for `relu_`."""
    name = target._schema.name.removeprefix("aten::").removesuffix("_")
    return getattr(getattr(aten, name, None), target._overloadname, None)


def owns_its_memory(tensor: fx.Node, writer: fx.Node) -> bool:
    """Whether no tensor but this one, which a step made, shares the memory that `writer` writes to."""
    if tensor.op != "call_function" or may_share_memory(tensor):
        return False
    return not any(may_share_memory(user) for user in tensor.users if user is not writer and user.op != "output")


def may_share_memory(step: fx.Node) -> bool:
    """Whether a result of a step may be a view of an input, or the input itself.

    The schema says so of operators with a kernel; a composite operator may end in one of these.
    """
    target = step.target
    if target is operator.getitem:
        source = step.args[0]
        return not isinstance(source, fx.Node) or may_share_memory(source)
    if not isinstance(target, OpOverload):
        return True
    return returns_alias(target) or (is_composite(target) and target not in FRESH)


def returns_alias(target: OpOverload) -> bool:
    """Whether a result shares memory with an input, by the schema."""
    return any(result.alias_info is not None for result in target._schema.returns)


def is_composite(target: OpOverload) -> bool:
    """Whether an operator is made of others, without a kernel of its own."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), "CompositeImplicitAutograd")


def is_in_place(target: Any) -> bool:
    """Whether an operator of ATen writes to its first input alone, and returns it."""
    if not isinstance(target, OpOverload) or target.namespace != "aten":
        return False
    written = [
        argument for argument in target._schema.arguments if argument.alias_info and argument.alias_info.is_write
    ]
    return target._schema.name.endswith("_") and written == target._schema.arguments[:1]


def batch_norm(graph: fx.Graph, node: fx.Node) -> None:
    """BatchNorm in evaluation mode as the operator that returns statistics as well."""
    tensor, weight, bias, mean, variance, training, momentum, eps, _cudnn = node.args
    if training or mean is None or variance is None:
        return
    value = node.meta["val"]
    values = (value, value.new_empty((0,)), value.new_empty((0,)))
    normalise = aten._native_batch_norm_legit_no_training.default
    all_of_it = put_before(graph, node, normalise, (tensor, weight, bias, mean, variance, momentum, eps), {}, values)
    put_instead(graph, node, operator.getitem, (all_of_it, 0))


def global_average(graph: fx.Graph, node: fx.Node) -> None:
    """Adaptive average pooling to one value a channel as a mean."""
    tensor, sizes = node.args
    if all(isinstance(size, int) and size == 1 for size in sizes):  # type: ignore[union-attr]
        axes = list(range(-1, -1 - len(sizes), -1))  # type: ignore[arg-type]
        put_instead(graph, node, aten.mean.dim, (tensor, axes, True))


def no_dropout(graph: fx.Graph, node: fx.Node) -> None:
    """Dropout in evaluation mode returns its input."""
    tensor, _probability, training = node.args
    if not training and isinstance(tensor, fx.Node):
        node.replace_all_uses_with(tensor)
        graph.erase_node(node)


def put_instead(graph: fx.Graph, node: fx.Node, target: Any, args: tuple[Any, ...]) -> None:
    """Put a step with the same result in the place of another one."""
    node.replace_all_uses_with(put_before(graph, node, target, args, {}, node.meta["val"]))
    graph.erase_node(node)


def put_before(
    graph: fx.Graph, node: fx.Node, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any
) -> fx.Node:
    """Insert a step that counts as one of the same module; `value` is the shape and type of its result."""
    with graph.inserting_before(node):
        new = graph.call_function(target, args, kwargs)
    new.meta = {**node.meta, "val": value}
    return new


RULES: dict[Any, Callable[[fx.Graph, fx.Node], None]] = {
    aten.batch_norm.default: batch_norm,
    aten.adaptive_avg_pool1d.default: global_average,
    aten.adaptive_avg_pool2d.default: global_average,
    aten.adaptive_avg_pool3d.default: global_average,
    aten.dropout.default: no_dropout,
    aten.dropout_.default: no_dropout,
}
