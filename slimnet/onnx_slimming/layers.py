"""Layers of a graph as layers of torch with their weights, so that they are cut and get biases like any other."""

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimnet.onnx_slimming.node_values import Settings
from slimnet.onnx_slimming.nodes import NodeSource
from slimnet.onnx_slimming.operators.pooling import CONVOLUTIONS, framed, padding_around


class FramedConvolution(nn.modules.conv._ConvNd):
    """A convolution whose padding may differ before and after, or depend on the size of its input."""

    settings: Settings

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve `(N, C, ...)`."""
        around = padding_around(self.settings, x.shape[2:], self.weight.shape[2:], self.stride, self.dilation)
        x, padding = framed(x, around)
        convolve = CONVOLUTIONS[self.weight.ndim - 2]
        return convolve(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Convolution1d(FramedConvolution, nn.Conv1d):
    """Conv of `(N, C, L)`."""


class Convolution2d(FramedConvolution, nn.Conv2d):
    """Conv of `(N, C, H, W)`."""


class Convolution3d(FramedConvolution, nn.Conv3d):
    """Conv of `(N, C, D, H, W)`."""


class Normalisation(_BatchNorm):
    """BatchNormalization of a tensor with any number of axes."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any shape is taken."""


CONVOLUTION_TYPES: dict[int, Any] = {3: Convolution1d, 4: Convolution2d, 5: Convolution3d}
TRANSPOSED_TYPES: dict[int, Any] = {3: nn.ConvTranspose1d, 4: nn.ConvTranspose2d, 5: nn.ConvTranspose3d}


BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
"""The inputs of a BatchNormalization behind the first."""


class Weight(NamedTuple):
    """A tensor of a layer: its name in the layer, which input of the node it is, and whether it is turned there."""

    name: str
    position: int
    turned: bool = False


def weights_of(source: NodeSource, ranks: dict[int, int]) -> tuple[Weight, ...]:
    """The weights of a node that is a layer; `ranks` are the numbers of axes of its inputs that are weights.

    Empty for nodes that are no layer of torch.
    """
    if not source.traceable:
        return ()
    settings = source.settings
    # Of a layer, the first input is computed and all others are weights.
    given = {position for position, name in enumerate(source.inputs) if name}
    only_weights = given - {0} == ranks.keys()
    weights: tuple[Weight, ...]
    match source.kind:
        case "Conv" | "ConvTranspose":
            plain = source.kind == "Conv" or is_plain_transposed(settings)
            fits = plain and only_weights and ranks.get(1) in CONVOLUTION_TYPES
            weights = (Weight("weight", 1), Weight("bias", 2))
        case "BatchNormalization":
            fits = ranks.keys() == {1, 2, 3, 4} and settings.outputs == 1 and not settings.get("training_mode", 0)
            weights = tuple(Weight(name, place) for place, name in enumerate(BATCH_NORM, start=1))
        case "MatMul":
            fits = ranks == {1: 2}
            weights = (Weight("weight", 1, turned=True),)
        case "Gemm":
            fits = is_linear(settings) and only_weights and ranks.get(1) == 2 and ranks.get(2, 1) == 1
            weights = (Weight("weight", 1, turned=not settings.get("transB", 0)), Weight("bias", 2))
        case _:
            return ()
    return tuple(each for each in weights if each.position in ranks) if fits else ()


def is_plain_transposed(settings: Settings) -> bool:
    """Whether a transposed convolution pads as torch's do."""
    pads = settings.get("pads", [])
    even = pads[: len(pads) // 2] == pads[len(pads) // 2 :]
    return even and settings.get("auto_pad", "NOTSET") == "NOTSET" and settings.get("output_shape") is None


def is_linear(settings: Settings) -> bool:
    """Whether a Gemm is x · W + b."""
    return not settings.get("transA", 0) and settings.get("alpha", 1.0) == 1 and settings.get("beta", 1.0) == 1


def make_layer(source: NodeSource, tensors: dict[str, Any]) -> nn.Module:
    """The layer of a node, with these parameters under the names of its weights."""
    make = {"BatchNormalization": batch_norm, "Conv": convolution, "ConvTranspose": transposed}
    layer = make.get(source.kind, linear)(source, tensors)
    for name in ("weight", "bias"):
        layer._parameters[name] = tensors.get(name)
    for name in ("running_mean", "running_var"):
        if name in tensors:
            layer._buffers[name] = tensors[name].detach()
    return layer.eval()


def batch_norm(source: NodeSource, tensors: dict[str, Any]) -> nn.Module:
    """The layer of a BatchNormalization."""
    layer = Normalisation(len(tensors["weight"]), eps=source.settings.get("epsilon", 1e-5), device="meta")
    layer._buffers["num_batches_tracked"] = None
    return layer


def convolution(source: NodeSource, tensors: dict[str, Any]) -> nn.Module:
    """The layer of a Conv."""
    weight, settings = tensors["weight"], source.settings
    groups = settings.get("group", 1)
    layer: FramedConvolution = CONVOLUTION_TYPES[weight.ndim](
        weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]), groups=groups, bias=False, device="meta"
    )
    rank = weight.ndim - 2
    layer.stride = tuple(settings.get("strides", [1] * rank))
    layer.dilation = tuple(settings.get("dilations", [1] * rank))
    layer.settings = settings
    return layer


def transposed(source: NodeSource, tensors: dict[str, Any]) -> nn.Module:
    """The layer of a ConvTranspose."""
    weight, settings = tensors["weight"], source.settings
    rank, groups = weight.ndim - 2, settings.get("group", 1)
    make: nn.Module = TRANSPOSED_TYPES[weight.ndim](
        weight.shape[0],
        weight.shape[1] * groups,
        tuple(weight.shape[2:]),
        tuple(settings.get("strides", [1] * rank)),
        tuple(settings.get("pads", [0] * rank)[:rank]),
        tuple(settings.get("output_padding", [0] * rank)),
        groups,
        bias=False,
        dilation=tuple(settings.get("dilations", [1] * rank)),
        device="meta",
    )
    return make


def linear(source: NodeSource, tensors: dict[str, Any]) -> nn.Module:
    """The layer of a Gemm or of a MatMul."""
    outputs, inputs = tensors["weight"].shape
    return nn.Linear(inputs, outputs, bias=False, device="meta")
