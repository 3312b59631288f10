"""Files that take images as bytes beside networks that take numbers: the same images, as each of them takes them."""

from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from slimnet.benchmark.counts import onnx_input_shape
from slimnet.benchmark.openvino_counts import openvino_input_shape
from slimnet.data.image_spec import MAX_BYTE, ImageSpec
from slimnet.export.onnx_file import read_onnx
from slimnet.export.openvino_graph import entries_of
from slimnet.export.openvino_model import GRAPH, read_graph
from slimnet.export.preprocessing import IMAGE_AXES, Layout
from slimnet.modules.example_inputs import Inputs

LAYOUT = "image_layout"
"""The entry of the metadata that says how the axes of images are ordered."""


def byte_layout(path: Path) -> Layout | None:
    """The order of the axes of the images that a file takes as bytes; None if it takes something else.

    Without metadata the channels are taken for the last axis if that is fixed to 1, 3 or 4, as in image files.

    Raises:
        UsageError: the file cannot be read.
    """
    return _layout_of_graph(path) if path.suffix == GRAPH else _layout_of_onnx(path)


def _layout_of_onnx(path: Path) -> Layout | None:
    model = read_onnx(path)
    kind = model.graph.input[0].type.tensor_type
    if kind.elem_type != onnx.TensorProto.UINT8 or len(kind.shape.dim) != IMAGE_AXES:
        return None
    stated = next((entry.value for entry in model.metadata_props if entry.key == LAYOUT), "")
    return _layout(stated, kind.shape.dim[-1].dim_value)


def _layout_of_graph(path: Path) -> Layout | None:
    network: Any = read_graph(path)
    kind = network.inputs[0]
    shape = kind.partial_shape
    if kind.get_element_type().get_type_name() != "u8" or shape.rank.is_dynamic or len(shape) != IMAGE_AXES:
        return None
    return _layout(entries_of(network).get(LAYOUT, ""), 0 if shape[3].is_dynamic else shape[3].get_length())


def _layout(stated: str, last: int) -> Layout:
    if stated in ("NHWC", "NCHW"):
        return "nhwc" if stated == "NHWC" else "nchw"
    return "nhwc" if last in (1, 3, 4) else "nchw"


def example_shape(path: Path) -> tuple[int, ...] | None:
    """The shape of one image `(C, H, W)` that a file takes, however it orders their axes; None if it is not fixed.

    Raises:
        UsageError: the file cannot be read.
    """
    shape = openvino_input_shape(path) if path.suffix == GRAPH else onnx_input_shape(path)
    if shape is None or byte_layout(path) != "nhwc":
        return shape
    height, width, channels = shape
    return channels, height, width


def inputs_for(path: Path, inputs: Inputs) -> Inputs:
    """Images `(N, C, H, W)` as a file takes them: where it takes bytes, their values spread over 0..255.

    Other inputs, and bytes, are given as they are.

    Raises:
        UsageError: the file cannot be read.
    """
    tensors = inputs.tensors
    if len(tensors) != 1 or tensors[0].ndim != IMAGE_AXES or not tensors[0].is_floating_point():
        return inputs
    layout = byte_layout(path)
    return inputs if layout is None else inputs.map(lambda images: in_layout(spread(images), layout))


def spread(images: torch.Tensor) -> torch.Tensor:
    """Images of numbers as bytes, the smallest number as 0 and the largest as 255."""
    low, high = images.min(), images.max()
    return ((images - low) / (high - low).clamp(min=torch.finfo(images.dtype).tiny) * MAX_BYTE).round().to(torch.uint8)


def in_layout(pixels: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Pixels `(N, C, H, W)` with their axes in an order."""
    return (pixels.permute(0, 2, 3, 1) if layout == "nhwc" else pixels).contiguous()


class FromNormalised(nn.Module):
    """A module that scores images as bytes, for images `(N, C, H, W)` that were normalised as `images` says."""

    def __init__(self, network: nn.Module, images: ImageSpec, layout: Layout):
        super().__init__()
        self.network, self.layout = network, layout
        self.scale, self.shift = (torch.tensor(factors)[:, None, None] for factors in images.factors)

    def forward(self, images: torch.Tensor) -> Any:
        """The logits of the bytes that these images were."""
        pixels = ((images.cpu() - self.shift) / self.scale).round().clamp(0, MAX_BYTE).to(torch.uint8)
        return self.network(in_layout(pixels, self.layout))
