"""Images are normalised as the network that looks at them was trained with."""

import pytest
import torch

from slimnet.data import ImageData
from slimnet.data.normalisation import normalised
from slimnet.errors import DataError


def images(channels: int) -> ImageData:
    pixels = torch.randint(0, 256, (6, 4, 4, channels), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6) % 2
    return ImageData.of("noise", (pixels, labels), (pixels, labels), "ab")


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("imagenet", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ("halves", [0.5] * 3, [0.5] * 3),
        ("none", [0.0] * 3, [1.0] * 3),
    ],
)
def test_colours_are_normalised_by_the_mean_and_deviation_of_that_name(name, mean, std):
    """Oracle: the numbers that torchvision's models and most tutorials print, applied by hand."""
    data = images(3)
    found, _ = next(normalised(data, name).batches("test"))
    expected = (data.x_test / 255 - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(found, expected.permute(0, 3, 1, 2))


def test_grey_images_have_one_mean():
    assert normalised(images(1), "halves").mean == (0.5,)


def test_data_keeps_its_own():
    data = images(3)
    assert normalised(data, "data") is data


@pytest.mark.parametrize("name", ["imagenet", "mnist"])
def test_what_does_not_fit_is_refused(name):
    with pytest.raises(DataError, match=name):
        normalised(images(1), name)
