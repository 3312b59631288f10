"""ONNX files quantised to int8 by onnxruntime: static, per output channel, with QuantizeLinear and DequantizeLinear."""

import contextlib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from slimnet.errors import ExportError, whole_reason

SCHEME = "static, QDQ, activations in uint8, weights in int8 of 7 bits with a scale for each output channel"
"""What onnxruntime's documentation advises for x86 CPUs. Those without VNNI add products of uint8 and int8 in pairs in
16 bits, which saturates with weights of 8 bits: on a published ResNet-56 their logits were three times as far from
those in float32 as with 7 bits. Signed activations took 2.5 times as long there, and unsigned weights 1.4 times."""

LINEAR = ("Gemm", "MatMul")

LAYERS = ("Conv", "ConvTranspose", *LINEAR)
"""The operators whose weights are quantised."""


class BatchReader(CalibrationDataReader):
    """Batches of one input, as onnxruntime's quantiser reads them."""

    def __init__(self, name: str, batches: Iterable[np.ndarray]) -> None:
        self._name, self._batches = name, iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch; None after the last one."""
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def quantise(source: Path, target: Path, batches: Iterable[np.ndarray], metadata: Mapping[str, str]) -> int:
    """Quantise a float32 ONNX file with one input; returns the number of layers whose weights are int8 now.

    The ranges of activations are the smallest and largest values on `batches`. Nodes that no module of the network
    made, which are those of its preprocessing, stay in float32. The file keeps its metadata and gets `metadata`.

    Raises:
        ExportError: onnxruntime's quantiser refuses it, or finds no layer that it can quantise.
    """
    model = onnx.load(source)
    prepared = target.with_name(f"{target.name}.prepared")
    try:
        with handled_logs():
            quant_pre_process(model, prepared, skip_optimization=True, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                target,
                BatchReader(model.graph.input[0].name, batches),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=preprocessing_nodes(model),
            )
    except Exception as error:  # the quantiser raises errors of all kinds
        raise ExportError(f"onnxruntime does not quantise {model.graph.name}: {whole_reason(error)}") from error
    finally:
        prepared.unlink(missing_ok=True)
    return finish(target, model, metadata)


@contextlib.contextmanager
def handled_logs() -> Iterator[None]:
    """Give the root logger a handler in the context: the quantiser's messages would otherwise configure logging."""
    handler, root = logging.NullHandler(), logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def preprocessing_nodes(model: onnx.ModelProto) -> list[str]:
    """The nodes that normalise images given as bytes; none in a file that takes floats.

    The exporter names nodes by their modules, and the preprocessing is outside of all of them.
    """
    if model.graph.input[0].type.tensor_type.elem_type != onnx.TensorProto.UINT8:
        return []
    return [node.name for node in model.graph.node if "/" not in node.name]


def finish(target: Path, source: onnx.ModelProto, metadata: Mapping[str, str]) -> int:
    """Write the metadata of the source and more into a quantised file; the number of layers in int8.

    Raises:
        ExportError: there is none.
    """
    model: Any = onnx.load(target)
    dequantised = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    stored = {tensor.name for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in LAYERS and dequantised.get(node.input[1]) in stored]
    if not layers:
        raise ExportError(f"onnxruntime's quantiser finds no layer in {source.graph.name} that it can quantise")
    keep_outputs_in_float(model.graph)
    del model.metadata_props[:]
    entries = {entry.key: entry.value for entry in source.metadata_props} | dict(metadata)
    onnx.helper.set_model_props(model, entries)
    model.graph.name, model.producer_name = source.graph.name, source.producer_name
    model.producer_version = source.producer_version
    target.write_bytes(model.SerializeToString())
    return len(layers)


def keep_outputs_in_float(graph: Any) -> None:
    """Return what the last linear layers compute, without a rounding to 256 values, which would make ties of classes.

    A convolution that is last stays rounded: onnxruntime computes it in integers only then.
    """
    producers = {output: node for node in graph.node for output in node.output}
    for output in graph.output:
        dequantise = made_by(producers, output.name, ("DequantizeLinear",))
        quantised = dequantise and made_by(producers, dequantise.input[0], ("QuantizeLinear",))
        layer = quantised and made_by(producers, quantised.input[0], LINEAR)
        if layer:
            graph.node.remove(quantised)
            graph.node.remove(dequantise)
            layer.output[0] = output.name
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def made_by(producers: Mapping[str, Any], name: str, kinds: Collection[str]) -> Any:
    """The node that makes a value, if it is of one of these kinds."""
    node = producers.get(name)
    return node if node is not None and node.op_type in kinds else None
