"""What fvcore does not know of torch's operators: how it counts some more, and which cost no multiply-accumulate.

fvcore calls a multiply-accumulate a flop. A handle takes the inputs and outputs of one call in a jit graph, and returns
a counter by name. The names "conv" and "linear" (with fvcore's "addmm" and "mm") are layers; "matmul", "einsum", "bmm"
and "attention" are products of activations.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

Handle = Callable[[list[Any], list[Any]], "Counter[str]"]

LAYERS = {"conv": "conv", "linear": "linear", "addmm": "linear", "mm": "linear"}
"""The operators, by fvcore's names, that are layers, with their kind."""

VIEWS = frozenset(
    f"aten::{name}"
    for name in ("t", "transpose", "permute", "reshape", "view", "expand", "squeeze", "unsqueeze", "to", "contiguous")
)

WITHOUT_MACS = frozenset(
    f"aten::{name}"
    for name in (
        # Each element alone, or with another one.
        *("abs", "abs_", "add", "add_", "celu", "clamp_max", "clamp_min", "cos", "div", "div_", "dropout_", "elu"),
        *("elu_", "erf", "exp", "gelu", "hardsigmoid", "hardsigmoid_", "hardswish", "hardswish_", "hardtanh"),
        *("hardtanh_", "leaky_relu", "leaky_relu_", "log", "maximum", "minimum", "mish", "mish_", "mul", "mul_", "ne"),
        *("neg", "pow", "prelu", "reciprocal", "relu6", "relu6_", "rsqrt", "rsub", "selu", "selu_", "sigmoid"),
        *("sigmoid_", "silu", "silu_", "sin", "softplus", "sqrt", "square", "sub", "sub_", "tanh", "tanh_", "where"),
        *("bernoulli_", "ceil", "clone", "feature_dropout", "floor_", "le", "logical_not", "lt", "round", "sign"),
        # Sums, means and the largest.
        *("adaptive_avg_pool1d", "adaptive_max_pool2d", "amax", "argmax", "avg_pool1d", "avg_pool2d", "cumsum"),
        *("linalg_norm", "linalg_vector_norm", "log_softmax", "max_pool1d", "max_pool2d", "mean", "norm", "softmax"),
        *("std", "sum", "var", "var_mean"),
        # Movements of elements, and new ones.
        *("alias", "channel_shuffle", "concat", "expand_as", "fill_", "flip", "im2col", "index_select", "meshgrid"),
        *("movedim", "new_ones", "numel", "ones_like", "pad", "pixel_shuffle", "pixel_unshuffle", "repeat"),
        *("repeat_interleave", "reshape_as", "tensor_split", "unflatten", "view_as", "zero_"),
    )
)


def handles(examples: int) -> dict[str, Handle]:
    """The handles by operator, for a network that takes `examples` tensors."""
    return {
        "aten::_convolution_mode": count_padded_convolution,
        "aten::matmul": lambda inputs, outputs: count_product(inputs, outputs, examples),
        "aten::mv": lambda inputs, outputs: count_product(inputs, outputs, examples),
        "aten::scaled_dot_product_attention": count_attention,
        "aten::_native_multi_head_attention": count_fused_attention,
    }


OUTPUTS = "outputs"
"""The name in the counters of handles under which fvcore's count of activations stands beside the operations."""


def with_outputs(fvcore_handles: Any, ours: Mapping[str, Handle]) -> dict[str, Handle]:
    """Handles of the layers and products that count the elements of their outputs as well, so that one trace is enough.

    fvcore has one analysis for operations and one for activations, and each traces the network.
    """
    theirs = {
        "aten::_convolution": ("conv", fvcore_handles.conv_flop_jit),
        "aten::addmm": ("addmm", fvcore_handles.addmm_flop_jit),
        "aten::bmm": ("bmm", fvcore_handles.bmm_flop_jit),
        "aten::einsum": ("einsum", fvcore_handles.einsum_flop_jit),
        "aten::linear": ("linear", fvcore_handles.linear_flop_jit),
        "aten::mm": ("mm", fvcore_handles.matmul_flop_jit),
    }
    outputs_of = fvcore_handles.generic_activation_jit(OUTPUTS)
    counting = {name: named(*handle) for name, handle in theirs.items()} | dict(ours)
    return {name: both(handle, outputs_of) for name, handle in counting.items()}


def named(name: str, handle: Callable[[list[Any], list[Any]], Any]) -> Handle:
    """A handle that returns a counter, of one that may return a number."""

    def count(inputs: list[Any], outputs: list[Any]) -> "Counter[str]":
        found = handle(inputs, outputs)
        return found if isinstance(found, Counter) else Counter({name: found})

    return count


def both(first: Handle, second: Handle) -> Handle:
    """A handle that counts what two count."""
    return lambda inputs, outputs: first(inputs, outputs) + second(inputs, outputs)


def shape(value: Any) -> list[int]:
    """The shape of a tensor in a jit graph."""
    found: list[int] = value.type().sizes()
    return found


def count_padded_convolution(inputs: list[Any], outputs: list[Any]) -> "Counter[str]":
    """A convolution whose padding is a word, such as "same"."""
    image, weight = shape(outputs[0]), shape(inputs[1])
    return Counter({"conv": image[0] * math.prod(image[2:]) * math.prod(weight)})


def count_product(inputs: list[Any], outputs: list[Any], examples: int) -> "Counter[str]":
    """A product of two tensors: a linear layer where one of them is a weight."""
    layer = any(is_weight(value, examples) for value in inputs)
    return Counter({"linear" if layer else "matmul": math.prod(shape(outputs[0])) * shape(inputs[0])[-1]})


def is_weight(value: Any, examples: int) -> bool:
    """Whether a tensor is a weight, or a view of one: an input of the graph behind the `examples` of the network."""
    node = value.node()
    while node.kind() in VIEWS:
        value = next(node.inputs())
        node = value.node()
    if node.kind() != "prim::Param":
        return False
    names = [each.debugName() for each in node.outputs()]
    return names.index(value.debugName()) >= examples


def count_attention(inputs: list[Any], _: list[Any]) -> "Counter[str]":
    """softmax(QKᵀ)V of `(..., L, E)`, `(..., S, E)` and `(..., S, V)`: both products."""
    query, key, value = map(shape, inputs[:3])
    return Counter({"attention": math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])})


def count_fused_attention(inputs: list[Any], _: list[Any]) -> "Counter[str]":
    """Self-attention of `(N, L, E)` with the linear layers before and behind it."""
    batch, length, width = shape(inputs[0])
    layers = math.prod(shape(inputs[5])) + math.prod(shape(inputs[7]))
    return Counter({"linear": batch * length * layers, "attention": 2 * batch * length * length * width})
