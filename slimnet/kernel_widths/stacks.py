"""Stacks of convolutions whose time is that of one width: small networks, as modules and as ONNX files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from slimnet.planning.width_prices import PERIOD

Kernel = Literal["spatial", "pointwise", "depthwise"]
KERNELS: tuple[Kernel, ...] = ("spatial", "pointwise", "depthwise")

SIDES = {16: 32, 32: 28, 64: 14, 160: 7}
"""The height and width of the images by the number of channels around a width: fewer pixels, more channels."""

OPSET, IR_VERSION = 17, 8
BIAS = 0.1


@dataclass(frozen=True)
class Layer:
    """One convolution with a bias and a ReLU: channels read and written, the kernel's side, and the groups."""

    reads: int
    writes: int
    side: int
    groups: int = 1

    @property
    def weight(self) -> np.ndarray:
        """A weight that computes a mean, so that outputs stay near 1."""
        shape = (self.writes, self.reads // self.groups, self.side, self.side)
        return np.full(shape, 1 / np.prod(shape[1:]), dtype=np.float32)


@dataclass(frozen=True)
class Stack:
    """Layers that go from `around` channels to `width` and back, twice: each width is written and read alike.

    Of depthwise ones, `around` is a quarter of that, as in an inverted residual block.
    """

    kernel: Kernel
    width: int
    around: int

    @property
    def channels(self) -> int:
        """The number of channels of its inputs and outputs."""
        return max(PERIOD, self.around // 4) if self.kernel == "depthwise" else self.around

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Its layers in their order."""
        if self.kernel == "depthwise":
            block = (Layer(self.channels, self.width, 1), Layer(self.width, self.width, 3, self.width))
            return 2 * (*block, Layer(self.width, self.channels, 1))
        side = 3 if self.kernel == "spatial" else 1
        return 2 * (Layer(self.channels, self.width, side), Layer(self.width, self.channels, side))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape `(1, C, H, W)` of its input; cheap kernels get more pixels."""
        side = SIDES[self.around] * (1 if self.kernel == "spatial" else 2)
        return (1, self.channels, side, side)

    @property
    def macs(self) -> int:
        """Its multiply-accumulates."""
        return sum(layer.weight.size for layer in self.layers) * self.shape[2] * self.shape[3]

    def module(self) -> nn.Module:
        """The stack as a module; torch's random numbers are not used."""
        steps: list[nn.Module] = []
        for layer in self.layers:
            sizes = (layer.reads, layer.writes, layer.side)
            conv = nn.utils.skip_init(nn.Conv2d, *sizes, padding=layer.side // 2, groups=layer.groups, device="cpu")
            with torch.no_grad():
                conv.weight.copy_(torch.from_numpy(layer.weight))
                conv.bias.fill_(BIAS)
            steps += [conv, nn.ReLU()]
        return nn.Sequential(*steps)

    def write_onnx(self, path: Path) -> Path:
        """Write the stack as an ONNX file, a hundred times as fast as by an export."""
        nodes, weights, last = [], [], "input"
        for number, layer in enumerate(self.layers):
            names = [f"{name}{number}" for name in ("weight", "bias", "sum", "output")]
            arrays = (layer.weight, np.full(layer.writes, BIAS, dtype=np.float32))
            weights += [numpy_helper.from_array(each, name) for each, name in zip(arrays, names, strict=False)]
            kernel: dict[str, Any] = {"kernel_shape": [layer.side] * 2, "pads": [layer.side // 2] * 4}
            nodes.append(helper.make_node("Conv", [last, *names[:2]], [names[2]], group=layer.groups, **kernel))
            nodes.append(helper.make_node("Relu", [names[2]], [last := names[3]]))
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, self.shape) for name in ("input", last)]
        graph = helper.make_graph(nodes, "stack", ends[:1], ends[1:], weights)
        opset = helper.make_opsetid("", OPSET)
        onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION), path)
        return path
