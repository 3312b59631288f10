"""The ONNX graph of a captured network: translated, optimised, and without paths and stack traces."""

import ast
import re
from collections.abc import Mapping

import torch
from onnxscript import ir

from slimnet.errors import ExportError, reason
from slimnet.export.capture import BATCH, Captured, unique
from slimnet.export.dynamic_size import NAMES, SizeAxes
from slimnet.export.onnx_lowering import LoweredProgram
from slimnet.export.quiet_torch import quiet

SCOPES = "pkg.torch.onnx.name_scopes"
"""The exporter's annotation of a node: the paths of the modules around it and its own name, as a list of Python."""

WEIGHT = ".weight"


def translate(captured: Captured, opset: int | None) -> ir.Model:
    """The optimised ONNX graph of a captured network; BatchNorms are folded into the preceding layers.

    Raises:
        ExportError: an operator has no counterpart in ONNX, or not in this opset.
    """
    network = captured.name
    try:
        with quiet():
            program = torch.onnx.export(
                LoweredProgram(captured.program),
                opset_version=opset,
                input_names=captured.input_names,
                output_names=captured.output_names,
                verbose=False,
            )
    except Exception as error:  # the translation of an operator may raise anything
        raise ExportError(f"{network} cannot be written as ONNX: {root_cause(error)}") from error
    assert program is not None, "torch.onnx.export returns a program unless it is given a file"
    model = program.model
    if opset is not None and model.opset_imports[""] != opset:
        raise ExportError(
            f"{network} cannot be written in opset {opset}, only in {model.opset_imports['']}; leave opset out"
        )
    tidy(model, captured)
    return model


def serialise(model: ir.Model) -> bytes:
    """The content of the file of a graph."""
    return bytes(ir.to_proto(model).SerializeToString())


def root_cause(error: BaseException) -> str:
    """The message of the innermost of the nested exceptions of the exporter."""
    while error.__cause__ is not None:
        error = error.__cause__
    return reason(error)


def tidy(model: ir.Model, captured: Captured) -> None:
    """Name graph, nodes and dynamic axes; drop the exporter's annotations, such as paths and stack traces."""
    graph = model.graph
    graph.name, graph.doc_string, model.doc_string = captured.name, None, None
    for holder in (model, graph):
        holder.metadata_props.clear()
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        clear(value)
    name_nodes(graph)
    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            clear(value)
    rename(graph, names_of_axes(graph, captured.size_axes))


def name_nodes(graph: ir.Graph) -> None:
    """Name each node by its module and its operator, such as `features.conv1/Conv`, with numbers for further ones."""
    nodes = list(graph.all_nodes())
    names = unique([f"{module}/{node.op_type}" if (module := module_of(node)) else node.op_type for node in nodes])
    for node, name in zip(nodes, names, strict=True):
        node.name = name


def module_of(node: ir.Node) -> str:
    """The path of the module that a node comes from; of layers into which others were folded, the module of its weight.

    Empty for the forward of the network itself, and where the exporter does not say.
    """
    for value in node.inputs:
        if value is not None and value.is_initializer() and (value.name or "").endswith(WEIGHT):
            return (value.name or "").removesuffix(WEIGHT)
    try:
        *modules, _operator = ast.literal_eval(node.metadata_props.get(SCOPES, "['']"))
    except (ValueError, SyntaxError):
        return ""
    return str(modules[-1]) if modules else ""


def clear(value: ir.Value) -> None:
    """Drop the exporter's annotations of a value."""
    value.metadata_props.clear()
    value.doc_string = None


def names_of_axes(graph: ir.Graph, size_axes: SizeAxes | None) -> dict[str, str]:
    """The names of the dynamic axes of a graph, by the symbols of torch's exporter, such as `s77`."""
    first = graph.inputs[0].shape if graph.inputs else None
    names = {}
    if size_axes is not None and first is not None:
        names = {str(first[axis]): name for axis, name in zip(size_axes, NAMES, strict=True)}
    symbols = {str(dim) for value in graph.inputs for dim in value.shape or () if isinstance(dim, ir.SymbolicDim)}
    batches = symbols - names.keys()
    if len(batches) == 1:
        names[batches.pop()] = BATCH
    return {symbol: name for symbol, name in names.items() if symbol.isidentifier()}


def rename(graph: ir.Graph, names: Mapping[str, str]) -> None:
    """Rename the symbols in all shapes of a graph."""
    if not names:
        return
    symbols = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b")
    for value in (*graph.inputs, *(output for node in graph.all_nodes() for output in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([renamed(dim, symbols, names) for dim in value.shape])


def renamed(dim: int | ir.SymbolicDim, symbols: re.Pattern[str], names: Mapping[str, str]) -> int | ir.SymbolicDim:
    """A dimension in which symbols are replaced by the names of their axes."""
    if isinstance(dim, int) or dim.value is None:
        return dim
    return ir.SymbolicDim(symbols.sub(lambda found: names[found[0]], str(dim.value)))
