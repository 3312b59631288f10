"""The ONNX graph of a captured network: translated, optimised, and cleared of traces of where it was made."""

import re

import torch
from onnxscript import ir

from slimnet.errors import ExportError, reason
from slimnet.export.capture import BATCH, Captured
from slimnet.export.quiet_torch import quiet


def translate(captured: Captured, opset: int | None) -> ir.Model:
    """The optimised ONNX graph of a captured network; its BatchNorms are part of the layers before them.

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
    except Exception as error:  # the exporter passes on whatever the translation of an operator raises
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
    """What went wrong in the end: the innermost of the exceptions that the exporter wraps in each other."""
    while error.__cause__ is not None:
        error = error.__cause__
    return reason(error)


def tidy(model: ir.Model, network: str) -> None:
    """Name the graph and its batch axis; drop what only says how the exporter came to it (paths, stack traces)."""
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
    """Drop what the exporter notes on a value."""
    value.metadata_props.clear()
    value.doc_string = None


def name_batch(graph: ir.Graph) -> None:
    """Call the dynamic axis by its name: torch's exporter numbers it, as in `s77`."""
    symbols = {str(dim) for value in graph.inputs for dim in value.shape or () if isinstance(dim, ir.SymbolicDim)}
    if len(symbols) != 1:
        return
    symbol = re.compile(rf"\b{re.escape(symbols.pop())}\b")
    for value in (*graph.inputs, *(output for node in graph.all_nodes() for output in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([renamed(dim, symbol) for dim in value.shape])


def renamed(dim: int | ir.SymbolicDim, symbol: re.Pattern[str]) -> int | ir.SymbolicDim:
    """A dimension with the batch by its name."""
    if isinstance(dim, int) or dim.value is None:
        return dim
    return ir.SymbolicDim(symbol.sub(BATCH, str(dim.value)))
