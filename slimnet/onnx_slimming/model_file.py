"""An ONNX file that may come from anywhere: read whole, with its external data, checked, and refused where it must."""

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import Message
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from slimnet.errors import TraceError, UsageError, short_reason
from slimnet.onnx_slimming.onnx_session import session_of
from slimnet.storage.files import open_file, read_bytes

SIZE_LIMIT = (1 << 31) - 1
"""The most bytes of a model with its external data: protobuf holds no more in one file."""

OPSETS = range(9, onnx.defs.onnx_opset_version() + 1)
"""The operator sets that are read."""

QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
QUANTISED_BEGIN = "QLinear"

OPEN = "", "ai.onnx"
"""The names of the domain of ONNX's own operators."""


def read_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX model with its external data, check it, and put its local functions in the place of their calls.

    Raises:
        UsageError: it cannot be read, is no valid ONNX model, is larger than 2 GB, has external data outside its
            folder, is quantised, or has an operator set that is not read.
    """
    model = parsed(path)
    embed_external_data(model, path)
    refuse_unsuitable(model, path)
    refuse_invalid(model, path)
    try:
        return onnx.inliner.inline_local_functions(model) if model.functions else model
    except Exception as error:  # the errors of protobuf and onnx have no common base
        raise UsageError(f"the local functions of {path} cannot be followed: {short_reason(error)}") from error


def fault_of(model: onnx.ModelProto) -> str:
    """What onnx's checker says against a model; "" where it is valid."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # as above
        return short_reason(error)
    return ""


def refuse_invalid(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a model that neither onnx's checker nor onnxruntime accepts; the latter needs no shapes of outputs.

    Raises:
        UsageError: with what the checker says.
    """
    fault = fault_of(model)
    if fault:
        try:
            session_of(model, str(path))
        except TraceError as error:
            raise UsageError(f"{path} is not a valid ONNX model: {fault}") from error


def parsed(path: Path) -> onnx.ModelProto:
    """The protobuf message in a file.

    Raises:
        UsageError: it cannot be read, or is none.
    """
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise too_large(path)
        content = read_bytes(path, SIZE_LIMIT)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's errors have no common base
        raise UsageError(f"{path} is not an ONNX model, or is cut short; export it again") from error
    if not model.ir_version or not model.opset_import or not is_text(model):
        raise UsageError(f"{path} is not an ONNX model, or is cut short; export it again")
    if not model.graph.node:
        raise UsageError(f"{path} is an ONNX model that computes nothing; pass one with a network in it")
    return model


def is_text(message: Message) -> bool:
    """Whether everything in a message that should be text is: protobuf gives bytes where it is no UTF-8."""
    for kind, value in message.ListFields():
        values = [value] if isinstance(value, str | bytes | Message) else value
        if kind.type == kind.TYPE_STRING and any(isinstance(each, bytes) for each in values):
            return False
        if kind.type == kind.TYPE_MESSAGE and not all(map(is_text, values)):
            return False
    return True


def too_large(path: Path) -> UsageError:
    """The refusal of a model that does not fit into one file."""
    return UsageError(
        f"{path} holds more than 2 GB with its weights, the most that one ONNX file can; slim the network before its "
        "export, or convert it to float16"
    )


def graphs_within(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, and those in the attributes of its nodes."""
    yield graph
    for node in graph.node:
        yield from graphs_of(node)


def graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in the attributes of a node, and those within them."""
    for attribute in node.attribute:
        for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            yield from graphs_within(inner)


def nodes_of(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node of a model, in graphs within graphs and in local functions as well."""
    for graph in graphs_within(model.graph):
        yield from graph.node
    for function in model.functions:
        for node in function.node:
            yield node
            for graph in graphs_of(node):
                yield from graph.node


def stored_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that is stored in a model, in attributes of nodes as well."""
    for graph in graphs_within(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes_of(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            yield from attribute.tensors


def embed_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Read the tensors that are stored in files beside the model into it.

    Raises:
        UsageError: such a file is missing, too short, outside the folder, or all together are too large.
    """
    room = SIZE_LIMIT - model.ByteSize()
    for tensor in stored_tensors(model):
        if uses_external_data(tensor):
            content = external_bytes(tensor, path, room)
            room -= len(content)
            tensor.raw_data = content
            tensor.ClearField("external_data")
            tensor.data_location = onnx.TensorProto.DEFAULT


def external_bytes(tensor: onnx.TensorProto, path: Path, room: int) -> bytes:
    """The bytes of one tensor from the file that it names, which must be in the folder of the model.

    Raises:
        UsageError: as of `embed_external_data`.
    """
    name = f"tensor {tensor.name!r:.80} of {path}"
    try:
        found = ExternalDataInfo(tensor)
        size, offset = bytes_of(tensor), int(found.offset or 0)
        length = size if found.length is None else int(found.length)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"the place of {name} in its file is damaged; export the model again") from error
    if offset < 0 or length != size:
        raise UsageError(f"{name} names {length:,} bytes of a file, but takes {size:,}; export the model again")
    if size > room:
        raise too_large(path)
    file = file_within(found.location, path.parent, name)
    try:
        with open_file(file) as stream:
            stream.seek(offset)
            content = stream.read(size)
    except OSError as error:
        raise UsageError(
            f"{name} is stored in {found.location!r:.80}, which cannot be read: {error.strerror or error}; put that "
            "file beside the model"
        ) from error
    if len(content) != size:
        raise UsageError(f"{found.location!r:.80}, which holds {name}, is cut short; export the model again")
    return content


def file_within(location: str, folder: Path, name: str) -> Path:
    """The path of external data, which must stay in a folder, symbolic links followed.

    Raises:
        UsageError: it does not.
    """
    file = folder / location
    if not location or Path(location).is_absolute() or not file.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{name} is stored in {location!r:.80}, outside the folder of the model; it is not read")
    return file


def bytes_of(tensor: onnx.TensorProto) -> int:
    """How many bytes the values of a tensor take.

    Raises:
        KeyError, ValueError: its type has no such size, or its shape no such number of elements.
    """
    count = 1
    for size in tensor.dims:
        if size < 0:
            raise ValueError("negative size")
        count *= size
    return count * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def refuse_unsuitable(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a model that is quantised, or of an operator set that is not read, or with sparse weights.

    Raises:
        UsageError: naming what it is.
    """
    if model.ByteSize() > SIZE_LIMIT:
        raise too_large(path)
    opset = next((each.version for each in model.opset_import if each.domain in OPEN), None)
    if opset is None or opset not in OPSETS:
        raise UsageError(
            f"{path} is of opset {opset}; opsets {OPSETS[0]} to {OPSETS[-1]} are read, convert it with onnx's "
            "version_converter"
        )
    for node in nodes_of(model):
        if node.op_type in QUANTISED or node.op_type.startswith(QUANTISED_BEGIN):
            raise UsageError(
                f"{path} is quantised ({node.op_type} at node {node.name!r:.80}); slim the float model and quantise "
                "the result"
            )
    if any(graph.sparse_initializer for graph in graphs_within(model.graph)):
        raise UsageError(f"{path} has sparse weights; store them dense")
