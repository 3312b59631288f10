"""What a network in OpenVINO's own format holds: its layers with their weights, and how images become its inputs."""

import math
import re
from collections.abc import Mapping
from typing import Any

LAYERS = {
    "Convolution": "conv",
    "GroupConvolution": "conv",
    "ConvolutionBackpropData": "conv",
    "GroupConvolutionBackpropData": "conv",
    "MatMul": "linear",
}
"""OpenVINO's operators with weights, with the kind of layer."""

ENTRIES = "slimnet"
"""The section of the graph's `rt_info` that holds the metadata."""

BESIDE_WEIGHTS = ("Convert", "FakeQuantize", "Multiply", "Reshape", "Squeeze", "Subtract", "Transpose", "Unsqueeze")
"""The operators between a stored weight and its layer; the weight is their first input."""

STATED_SIZE = re.compile(r"\[(\d{1,6}), ?(\d{1,6})\]")
"""Height and width in the metadata."""

QUANTISED = ("i8", "u8")
"""The types of quantised weights, as OpenVINO names them."""

WITHOUT_BIAS = "/WithoutBiases"
"""What OpenVINO appends to the name of an operator from which it separates the bias."""

SCALING = "/DequantizationMultiply"
"""What it appends for the scaling of a quantised layer's sums."""


def add_entries(network: Any, entries: Mapping[str, str]) -> None:
    """Put entries into the metadata of a network."""
    for key, value in entries.items():
        network.set_rt_info(value, [ENTRIES, key])


def entries_of(network: Any) -> dict[str, str]:
    """The metadata of a network; empty if slimnet did not write it."""
    if not network.has_rt_info([ENTRIES]):
        return {}
    return {key: network.get_rt_info([ENTRIES, key]).astype(str) for key in network.get_rt_info([ENTRIES]).value}


def weight_of(layer: Any) -> Any | None:
    """The constant that stores a layer's weight; None for a product of two activations."""
    sources = [stored(layer.input_value(number).get_node()) for number in (1, 0)]
    return next((each for each in sources if each is not None), None)


def stored(node: Any) -> Any | None:
    """The constant that a value is made from by scaling and reshaping; None if it depends on the input."""
    while node.get_type_name() in BESIDE_WEIGHTS:
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "Constant" else None


def at_one_example(network: Any) -> None:
    """Fix the shapes of the inputs: one example, and of a dynamic height and width those that the metadata state.

    Raises:
        RuntimeError: the network does not take such inputs.
    """
    stated = STATED_SIZE.fullmatch(entries_of(network).get("image_size", ""))
    shapes = {}
    for port in network.inputs:
        if port.partial_shape.rank.is_dynamic or not port.partial_shape.rank.get_length():
            continue
        shape = [1, *list(port.partial_shape)[1:]]
        free = [axis for axis, each in enumerate(shape) if axis and each.is_dynamic]
        if stated is not None and len(free) == 2:
            shape[free[0]], shape[free[1]] = int(stated[1]), int(stated[2])
        shapes[port] = shape
    network.reshape(shapes)


def layer_name(layer: Any) -> str:
    """The path of a layer's module, as slimnet's exports state it; in other files the name of the operator."""
    name = layer.get_friendly_name().removesuffix(WITHOUT_BIAS)
    return name.rpartition("/")[0] or name


def names_with_bias(layer: Any) -> list[str]:
    """The names of a layer's operator, and of those behind it that scale it and add its bias."""
    names = [layer.get_friendly_name()]
    readers = layer.output(0).get_target_inputs()
    while len(readers) == 1:
        reader = next(iter(readers)).get_node()
        if reader.get_type_name() not in ("Add", "Multiply") or not any(
            stored(reader.input_value(number).get_node()) is not None for number in (0, 1)
        ):
            break
        names.append(reader.get_friendly_name())
        readers = reader.output(0).get_target_inputs()
    return names


def layer_macs(layer: Any) -> int | None:
    """Multiply-accumulates of a layer, in a network whose shapes are fixed; None if they depend on the data."""
    kind = layer.get_type_name()
    ports = [layer.output(0), layer.input_value(0), layer.input_value(1)]
    if any(port.get_partial_shape().is_dynamic for port in ports):
        return None
    output, given, weight = (tuple(port.get_shape()) for port in ports)
    if kind == "MatMul":
        return math.prod(output) * given[-2 if layer.get_attributes()["transpose_a"] else -1]
    per_channel = weight[2:] if kind.startswith("Group") else weight[1:]
    return math.prod(given if kind.endswith("BackpropData") else output) * math.prod(per_channel)


def count_stored(network: Any) -> int:
    """The number of weights: floating-point and quantised constants, without the scales of the quantised ones."""
    constants = [node for node in network.get_ops() if node.get_type_name() == "Constant"]
    return sum(math.prod(node.get_output_shape(0)) for node in constants if is_parameter(node))


def is_parameter(constant: Any) -> bool:
    """Whether a constant is a weight of the network: no scale, zero point, range, single number, or size."""
    readers = [port.get_node() for port in constant.output(0).get_target_inputs()]
    if constant.get_element_type().get_type_name() in QUANTISED:
        return not any(gives_zero_points(reader) for reader in readers)
    is_number = constant.get_element_type().is_real() and bool(constant.get_output_shape(0))
    return is_number and not any(map(is_scaling, readers))


def gives_zero_points(reader: Any) -> bool:
    """Whether a conversion is of the zero points of a quantised weight, which are subtracted from it."""
    after = [(port.get_node(), port.get_index()) for port in reader.output(0).get_target_inputs()]
    return any(each.get_type_name() == "Subtract" and index == 1 for each, index in after)


def is_scaling(reader: Any) -> bool:
    """Whether an operator scales a quantised weight, or rounds activations."""
    if reader.get_type_name() not in ("Multiply", "Subtract"):
        return bool(reader.get_type_name() == "FakeQuantize")
    scaled = reader.input_value(0).get_node()
    return scaled.get_type_name() in ("Convert", "Subtract") and stored(scaled) is not None
