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
        ("cifar10", [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
        ("halves", [0.5] * 3, [0.5] * 3),
        ("mean=0.5,0.25,-1:std=0.1,2,1e-1", [0.5, 0.25, -1.0], [0.1, 2.0, 0.1]),
        ("none", [0.0] * 3, [1.0] * 3),
    ],
)
def test_colours_are_normalised_by_the_mean_and_deviation_of_that_name(name, mean, std):
    """Oracle: the numbers that torchvision's models and most tutorials print, applied by hand."""
    data = images(3)
    found, _ = next(normalised(data, name).batches("test"))
    expected = (data.x_test / 255 - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(found, expected.permute(0, 3, 1, 2))


@pytest.mark.parametrize("channels", [1, 4])
def test_a_normalisation_that_is_the_same_for_all_channels_is_for_any_number_of_them(channels):
    assert normalised(images(channels), "halves").mean == (0.5,) * channels


def test_data_keeps_its_own():
    data = images(3)
    assert normalised(data, "data") is data


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imagenet", "noise has 1 channels, and imagenet is for 3"),
        ("mean=0,0:std=1,1", "noise has 1 channels, and mean=0,0:std=1,1 is for 2"),
        ("mnist", "there is no normalisation 'mnist'; use data, imagenet, cifar10, halves, none or mean=M"),
        ("mean=", "'mean=' is not a normalisation; write it as mean=M,...:std=S,..."),
        ("mean=0.5", "write it as mean=M,...:std=S,..."),
        ("mean=0.5:0.5", "write it as mean=M,...:std=S,..."),
        ("mean=0.5,:std=1,1", "write it as mean=M,...:std=S,..."),
        ("mean=0,0:std=1", "with as many numbers in both"),
        ("mean=0:std=0", "those of std above 0"),
        ("mean=0:std=-1", "those of std above 0"),
        ("mean=nan:std=1", "its numbers must be finite"),
        ("mean=0:std=inf", "its numbers must be finite"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(name, message):
    with pytest.raises(DataError) as caught:
        normalised(images(1), name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
