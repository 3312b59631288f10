"""Held-out images: a random part of the training images, each in one place."""

from dataclasses import replace

import pytest
import torch
from runs import images

from slimnet.data.validation import hold_out
from slimnet.errors import DataError, UsageError


def rows(tensor: torch.Tensor) -> list[bytes]:
    return sorted(each.numpy().tobytes() for each in tensor)


def test_every_training_image_is_in_one_of_both_parts_with_its_label():
    data = images(12)
    split = hold_out(data, 0.25)
    assert (len(split.x_train), len(split.x_test)) == (9, 3)
    assert rows(torch.cat([split.x_train, split.x_test])) == rows(data.x_train)
    label = {image.numpy().tobytes(): int(y) for image, y in zip(data.x_train, data.y_train, strict=True)}
    for pixels, labels in ((split.x_train, split.y_train), (split.x_test, split.y_test)):
        assert [label[each.numpy().tobytes()] for each in pixels] == labels.tolist()
    assert (split.mean, split.std) == (data.mean, data.std)


def test_the_same_images_are_held_out_every_time_and_no_random_number_is_drawn():
    before = torch.get_rng_state()
    one, two = hold_out(images(), 0.5), hold_out(images(), 0.5)
    assert torch.equal(one.x_test, two.x_test)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.01])
def test_a_share_that_leaves_nothing_is_refused(share):
    with pytest.raises(UsageError, match="of 12 training images cannot be held out"):
        hold_out(images(12), share)


def test_images_on_the_disk_are_not_copied():
    with pytest.raises(DataError, match="no part of it is held out"):
        hold_out(replace(images(), mapped=True), 0.5)
