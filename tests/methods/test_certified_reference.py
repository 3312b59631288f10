"""What a certificate at a budget is relative to: the masked network, corrected as one asked for."""

import pytest
import torch
from torch import nn
from wiring import chain, norm, planes

from slimnet.methods import Selection, mask_selected, remove_selected

IMAGES = planes(batch=8)
MASKED = "the dense network with the chosen channels at zero"


def network(*behind: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return chain(nn.Conv2d(2, 8, 3), *behind, nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 3, 1))


@pytest.mark.parametrize(
    ("given", "behind", "words"),
    [
        ({"recalibrate": False}, [norm(8)], ""),
        ({}, [norm(8)], " and BatchNorm statistics re-estimated"),
        ({"images": [IMAGES]}, [norm(8)], " and BatchNorm statistics re-estimated"),
        ({"images": [IMAGES], "refit": True}, [norm(8)], " and the remaining weights fitted"),
        ({"images": [IMAGES], "refit": True}, [], " and the remaining weights fitted"),
        ({"recalibrate": False}, [], ""),
    ],
)
def test_the_reference_says_what_was_corrected(given, behind, words):
    """Oracle: the masked and corrected network, whose outputs are those of the slim one."""
    selection = Selection("mine", {"0": (1, 4)})
    slimmed = remove_selected(network(*behind), IMAGES, selection, **given)
    assert slimmed.certificate.reference == MASKED + words
    expected = mask_selected(network(*behind), IMAGES, selection, **given)
    torch.testing.assert_close(slimmed.model(IMAGES), expected(IMAGES), rtol=1e-4, atol=1e-5)


def test_dead_channels_alone_are_certified_against_the_dense_network():
    slimmed = remove_selected(network(norm(8, [2])), IMAGES, Selection("mine", {}, 1e-3))
    assert slimmed.certificate.reference == "the dense network"
    assert not slimmed.certificate.is_of_masked
