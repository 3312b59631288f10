"""Form: how an exported file takes its inputs, and the network captured in it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from slimnet.data.image_spec import ImageSpec
from slimnet.export.capture import Captured, capture, private_copy, with_batch
from slimnet.export.dynamic_size import at_another_size, check_other_size
from slimnet.export.preprocessing import (
    SIZE_AXES,
    Layout,
    check_images,
    check_one_image,
    image_metadata,
    with_preprocessing,
)
from slimnet.modules.example_inputs import ExampleInputs, Inputs
from slimnet.surgery.equivalence import BATCHES

CAPTURING, CHECKING = "capturing the network", "translating and comparing"
EXPORT = CAPTURING, CHECKING
"""The steps of an export."""


@dataclass(frozen=True)
class Form:
    """How an exported file takes its inputs.

    `images` is how images become inputs of the network. With `preprocessing` the file takes them as bytes, `nhwc` or
    `nchw`, and does so itself. With `dynamic_size` it takes images of any height and width.
    """

    images: ImageSpec | None = None
    preprocessing: Layout | None = None
    dynamic_size: bool = False

    def inputs_of(self, pixels: torch.Tensor) -> torch.Tensor:
        """Images as bytes `(N, H, W, C)` as a file of this form takes them; their normalisation is known."""
        if self.preprocessing is None:
            assert self.images is not None, "without it images do not become inputs"
            return self.images.normalise(pixels).contiguous()
        return pixels if self.preprocessing == "nhwc" else pixels.permute(0, 3, 1, 2).contiguous()


def capture_form(model: nn.Module, example_inputs: ExampleInputs | Inputs, form: Form) -> Captured:
    """Capture a network in a form.

    Raises:
        InputError, UsageError: the example inputs do not fit the network or the form.
        ExportError: the network cannot be captured, or does not take images of any size.
    """
    inputs = Inputs.of(example_inputs)
    if form.preprocessing is None and not form.dynamic_size:
        if form.images is not None:
            check_images(form.images, inputs)
        return capture(model, inputs)
    inputs.check_against(model)
    inputs = inputs.map(lambda tensor: tensor.detach().cpu().contiguous())
    if form.dynamic_size:
        check_one_image(inputs, "a dynamic size")
        two = with_batch(inputs, 2)
        check_other_size(private_copy(model), two, at_another_size(two, SIZE_AXES["nchw"]))
    name = type(model).__name__
    if form.preprocessing is not None:
        model, inputs = with_preprocessing(model, inputs, form.images, form.preprocessing)
    axes = SIZE_AXES[form.preprocessing or "nchw"]
    return capture(model, inputs, axes if form.dynamic_size else None, name)


def metadata_of(form: Form, example_inputs: ExampleInputs | Inputs) -> dict[str, str]:
    """The entries about images in the metadata of an ONNX file of this form."""
    inputs = Inputs.of(example_inputs)
    entries = image_metadata(form.images, inputs, form.preprocessing)
    if not form.dynamic_size:
        return entries
    return {"image_size": json.dumps(inputs.tensors[0].shape[2:]), "dynamic_size": "true"} | entries


def checked_sizes(captured: Captured) -> tuple[tuple[int, int], ...]:
    """Height and width of the images on which a file is compared with its network, if they are dynamic."""
    axes = captured.size_axes
    if axes is None:
        return ()
    both = (captured.inputs, at_another_size(captured.inputs, axes))
    shapes = [inputs.tensors[0].shape for inputs in both]
    return tuple((shape[axes[0]], shape[axes[1]]) for shape in shapes)


def conditions(batches: Sequence[int], sizes: Sequence[tuple[int, int]]) -> str:
    """Batch sizes and sizes of images, in words."""
    text = f"at batch {' and '.join(map(str, batches))}"
    return f"{text}, images of {' and '.join(f'{height} × {width}' for height, width in sizes)}" if sizes else text


def checked_inputs(captured: Captured) -> list[Inputs]:
    """The inputs on which a file is compared with its network: every batch size, and two sizes of images if any."""
    sizes = [captured.inputs]
    if captured.size_axes is not None:
        sizes.append(at_another_size(captured.inputs, captured.size_axes))
    return [with_batch(inputs, batch) for inputs in sizes for batch in BATCHES]
