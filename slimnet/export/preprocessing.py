"""A network that takes images as bytes: the normalisation is part of its graph."""

from typing import Any, Literal, get_args

import torch
from torch import nn

from slimnet.data.image_spec import MAX_BYTE, ImageSpec
from slimnet.errors import ExportError, UsageError
from slimnet.export.capture import private_copy, run
from slimnet.modules.example_inputs import Inputs, tensors_in
from slimnet.surgery.equivalence import relative_difference, tolerance_for

Layout = Literal["nhwc", "nchw"]
"""The order of the axes of images as bytes."""

SIZE_AXES: dict[Layout, tuple[int, int]] = {"nhwc": (1, 2), "nchw": (2, 3)}
"""The axes of height and width."""

IMAGE_AXES = 4
"""The axes of a batch of images `(N, C, H, W)`."""


INNER = "network."
"""The beginning of the paths of a network's modules in a file with preprocessing, see `WithPreprocessing`."""


class WithPreprocessing(nn.Module):
    """A network that takes uint8 images `(N, H, W, C)` or `(N, C, H, W)` and normalises them itself.

    `dtype` is the type of the network's input, and `keyword` the name of that argument if it is not the first one.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(
        self, network: nn.Module, images: ImageSpec, layout: Layout, dtype: torch.dtype, keyword: str | None
    ) -> None:
        super().__init__()
        self.network, self.layout, self.dtype, self.keyword = network, layout, dtype, keyword
        scale, shift = (torch.tensor(factors, device="cpu")[:, None, None] for factors in images.factors)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, images: torch.Tensor) -> Any:
        """The network's outputs for images as bytes."""
        if self.layout == "nhwc":
            images = images.permute(0, 3, 1, 2)
        # In channels_last format, the graph would record the memory layout of a global average.
        floats = images.to(torch.float32, memory_format=torch.contiguous_format)
        values = (floats * self.scale + self.shift).to(self.dtype)
        return self.network(values) if self.keyword is None else self.network(**{self.keyword: values})


def check_images(images: ImageSpec, inputs: Inputs) -> None:
    """Refuse images that are not what a network takes, which must be one tensor `(N, C, H, W)`.

    Raises:
        UsageError: naming what differs.
    """
    check_one_image(inputs, "images")
    channels = inputs.tensors[0].shape[1]
    if channels != images.channels:
        raise UsageError(
            f"images have {images.channels} channels (mean and std), but the network takes {channels}; "
            "give a mean and a std for each of its channels"
        )


def check_one_image(inputs: Inputs, what: str) -> None:
    """Refuse inputs that are not one tensor `(N, C, H, W)` of floats; `what` needs it.

    Raises:
        UsageError: naming their shapes.
    """
    tensors = inputs.tensors
    if len(tensors) != 1 or tensors[0].ndim != IMAGE_AXES or not tensors[0].is_floating_point():
        shapes = " and ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise UsageError(
            f"{what} is for a network that takes one tensor (N, C, H, W) of floats, not {shapes}; leave it out"
        )


def image_metadata(images: ImageSpec | None, inputs: Inputs, layout: Layout | None = None) -> dict[str, str]:
    """The entries about images in the metadata of an ONNX file with these inputs, before preprocessing.

    With a `layout` the file takes bytes, and nothing is left to be done before it.
    """
    if images is None:
        return {}
    if layout is None:
        return images.metadata(str(inputs.tensors[0].dtype).removeprefix("torch."))
    kept = {name: text for name, text in images.metadata("uint8").items() if name not in ("image_mean", "image_std")}
    return kept | {"image_layout": layout.upper(), "image_value_range": f"[0, {MAX_BYTE}]"}


def with_preprocessing(
    model: nn.Module, inputs: Inputs, images: ImageSpec | None, layout: Layout
) -> tuple[nn.Module, Inputs]:
    """A copy of the network on the CPU that takes bytes, and random bytes as its example inputs.

    It was compared with the network after slimnet's own preprocessing.

    Raises:
        UsageError: the normalisation is not known or does not fit the inputs, or there is no such layout.
        ExportError: the outputs differ.
    """
    if layout not in get_args(Layout):
        raise UsageError(f"preprocessing is {layout!r}; it must be one of {', '.join(get_args(Layout))}")
    if images is None:
        raise UsageError("the normalisation of the images is not known; give it with images=")
    check_images(images, inputs)
    network, example = private_copy(model), inputs.tensors[0]
    wrapped = WithPreprocessing(network, images, layout, example.dtype, next(iter(inputs.kwargs), None)).eval()
    generator = torch.Generator().manual_seed(0)
    shape = [example.shape[axis] for axis in (0, 2, 3, 1)]
    pixels = torch.randint(MAX_BYTE + 1, shape, generator=generator, dtype=torch.uint8, device="cpu")
    own = inputs.map(lambda tensor: images.normalise(pixels).to(tensor.dtype).contiguous())
    given = Inputs((pixels if layout == "nhwc" else pixels.permute(0, 3, 1, 2).contiguous(),), {})
    expected, actual = tensors_in(run(network, own)), tensors_in(run(wrapped, given))
    if (difference := relative_difference(expected, actual)) > tolerance_for(expected):
        raise ExportError(
            f"{type(model).__name__} with its preprocessing differs by {difference:.1e} from the network after it, "
            f"more than {tolerance_for(expected):.0e}; nothing was written"
        )
    return wrapped, given
