"""What a network's images are: the numbers that they are normalised with, as a record that is checked."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import nn

from slimnet.data import ImageData
from slimnet.data.image_spec import LIMIT_NAMES, ImageSpec, images_of, record_images
from slimnet.data.normalisation import normalised
from slimnet.errors import BundleError, DataError
from slimnet.modules.copying import copy_with
from slimnet.storage.records import build

SPEC = ImageSpec((0.5, 0.25, 0.0), (0.25, 0.5, 2.0), (4, 6), ("a", "b"), (-1.0, 3.0))


def pixels(channels: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (5, 4, 6, channels), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def by_hand(images: torch.Tensor, spec: ImageSpec) -> np.ndarray:
    """Scaled to the range, minus the mean, divided by the deviation; in double precision, channels first."""
    low, high = spec.value_range
    values = images.numpy().astype(np.float64) / 255 * (high - low) + low
    return ((values - np.array(spec.mean)) / np.array(spec.std)).transpose(0, 3, 1, 2)


def test_images_are_scaled_to_the_range_and_normalised():
    """Oracle: the definition, in NumPy."""
    found = SPEC.normalise(pixels())
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), by_hand(pixels(), SPEC), rtol=1e-5, atol=1e-5)


def test_what_the_command_line_takes_for_it_normalises_images_alike():
    """`normalisation` is for values in 0..1, whatever the range of the record is."""
    labels = torch.arange(5) % 2
    data = ImageData.of("noise", (pixels(), labels), (pixels(), labels), "ab")
    found = normalised(data, SPEC.normalisation)
    np.testing.assert_allclose(found.normalise(pixels()).numpy(), by_hand(pixels(), SPEC), rtol=1e-4, atol=1e-4)


def test_a_data_set_gives_its_record():
    labels = torch.arange(5) % 2
    data = ImageData.of("noise", (pixels(1), labels), (pixels(1), labels), ("cat\n", "\u732b"))
    assert data.spec == ImageSpec(data.mean, data.std, (4, 6), ("cat\\n", "\u732b"))
    assert torch.equal(data.spec.normalise(data.x_test), data.normalise(data.x_test))
    assert normalised(data, data.spec.normalisation).spec == data.spec


def test_class_names_that_are_too_long_are_left_out():
    labels = torch.arange(5) % 2
    data = ImageData.of("noise", (pixels(), labels), (pixels(), labels), ("a", "b" * LIMIT_NAMES))
    assert data.spec.classes == ()


def test_the_metadata_are_json():
    found = SPEC.metadata("float32")
    assert (found.pop("image_layout"), found.pop("image_dtype")) == ("NCHW", "float32")
    assert {name: json.loads(value) for name, value in found.items()} == {
        "image_size": [4, 6],
        "image_value_range": [-1, 3],
        "image_mean": [0.5, 0.25, 0],
        "image_std": [0.25, 0.5, 2],
        "class_names": ["a", "b"],
    }
    assert "class_names" not in dataclasses.replace(SPEC, classes=()).metadata("float32")


BAD = {
    "no channel": ({"mean": (), "std": ()}, "give both one for each channel"),
    "one std too few": ({"std": (1.0, 1.0)}, "give both one for each channel"),
    "std 0": ({"std": (1.0, 0.0, 1.0)}, "std above 0"),
    "std below 0": ({"std": (1.0, -1.0, 1.0)}, "std above 0"),
    "no size": ({"image_size": (0, 4)}, "must be at least 1"),
    "range": ({"value_range": (1.0, 0.0)}, "the first number must be below the second"),
    "unprintable": ({"classes": ("a\x1b[31m",)}, "cannot be printed"),
    "too long": ({"classes": ("a" * LIMIT_NAMES, "b")}, "more than"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_what_is_no_record_is_refused_by_the_class_and_by_the_reader(change, message):
    with pytest.raises(DataError, match=message):
        dataclasses.replace(SPEC, **change)
    with pytest.raises(BundleError, match=r"^plan\.json: "):
        build(ImageSpec, dataclasses.asdict(SPEC) | change, "plan.json", BundleError)


@pytest.mark.parametrize(
    "change",
    [
        {"layout": "NHWC"},
        {"mean": "0.5"},
        {"mean": [True, 0.0, 0.0]},
        {"image_size": [4]},
        {"image_size": [2**63, 4]},
        {"classes": [1, 2]},
        {"more": 1},
    ],
    ids=str,
)
def test_values_of_another_type_are_refused_by_the_reader(change):
    with pytest.raises(BundleError, match=r"^plan\.json"):
        build(ImageSpec, dataclasses.asdict(SPEC) | change, "plan.json", BundleError)


def test_infinite_numbers_are_refused():
    with pytest.raises(DataError, match="finite"):
        dataclasses.replace(SPEC, mean=(0.0, float("nan"), 0.0))


@pytest.mark.parametrize("wrong", [pixels(1), pixels().float(), pixels()[0]], ids=["channels", "type", "axes"])
def test_other_images_are_refused(wrong):
    with pytest.raises(DataError, match=r"pass uint8 \(N, H, W, 3\)"):
        SPEC.normalise(wrong)


def test_it_stays_with_a_network_and_its_copies():
    model = nn.Linear(2, 2)
    assert images_of(model) is None
    record_images(model, SPEC)
    assert images_of(copy_with(model, lambda _, tensor: tensor)) == SPEC
