"""The sizes of images at which the forms of a bundle are compared."""

from collections.abc import Sequence
from pathlib import Path

from slimnet.bundle.blueprint import Blueprint
from slimnet.errors import BundleError, UsageError
from slimnet.export.dynamic_size import at_another_size
from slimnet.export.preprocessing import SIZE_AXES, check_one_image
from slimnet.modules.example_inputs import Inputs


def sizes(inputs: Inputs, blueprint: Blueprint, place: Path) -> list[Inputs]:
    """The inputs on which the forms of the bundle at `place` are compared: a second size of images if they take any.

    Raises:
        BundleError: the inputs are no images.
    """
    if not blueprint.dynamic_size:
        return [inputs]
    try:
        check_one_image(inputs, "a dynamic size")
    except UsageError as error:
        raise BundleError(f"{place}: {error}") from error
    return [inputs, at_another_size(inputs, SIZE_AXES["nchw"])]


def image_sizes(compared: Sequence[Inputs]) -> tuple[tuple[int, int], ...]:
    """Height and width of the images in several inputs; nothing for one."""
    shapes = [inputs.tensors[0].shape for inputs in compared]
    return tuple((shape[-2], shape[-1]) for shape in shapes) if len(shapes) > 1 else ()
