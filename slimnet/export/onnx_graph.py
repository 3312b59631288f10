"""The ONNX graph of a captured network: translated, optimised, and without paths and stack traces."""

import re

import torch
from onnxscript import ir

from slimnet.errors import ExportError, reason
from slimnet.export.capture import BATCH, Captured
from slimnet.export.quiet_torch import quiet


def translate(captured: Captured, opset: int | None) -> ir.Model:
    """The optimised ONNX graph of a captured network; BatchNorms are folded into the preceding layers.

    Raises:
        ExportError: an operator has no counterpart in ONNX, or not in this opset.
    """
    network = type(captured.module).__name__
    try:
        with quiet():
            program = torch.onnx.export(
                captured.program,
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
    tidy(model, network)
    return model


def root_cause(error: BaseException) -> str:
    """The message of the innermost of the nested exceptions of the exporter."""
    while error.__cause__ is not None:
        error = error.__cause__
    return reason(error)


def tidy(model: ir.Model, network: str) -> None:
    """Name the graph and its batch axis; drop the exporter's annotations, such as paths and stack traces."""
    graph = model.graph
    graph.name, graph.doc_string, model.doc_string = network, None, None
    for holder in (model, graph):
        holder.metadata_props.clear()
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        clear(value)
    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            clear(value)
    name_batch(graph)


def clear(value: ir.Value) -> None:
    """Drop the exporter's annotations of a value."""
    value.metadata_props.clear()
    value.doc_string = None


def name_batch(graph: ir.Graph) -> None:
    """Rename the dynamic axis, which torch's exporter numbers, as in `s77`."""
    symbols = {str(dim) for value in graph.inputs for dim in value.shape or () if isinstance(dim, ir.SymbolicDim)}
    if len(symbols) != 1:
        return
    symbol = re.compile(rf"\b{re.escape(symbols.pop())}\b")
    for value in (*graph.inputs, *(output for node in graph.all_nodes() for output in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([renamed(dim, symbol) for dim in value.shape])


def renamed(dim: int | ir.SymbolicDim, symbol: re.Pattern[str]) -> int | ir.SymbolicDim:
    """A dimension in which the symbol is replaced by the name of the batch axis."""
    if isinstance(dim, int) or dim.value is None:
        return dim
    return ir.SymbolicDim(symbol.sub(BATCH, str(dim.value)))
