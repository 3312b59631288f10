"""Certificates of networks that sort by score: an order of equal scores that differs is no difference, all else is."""

import pytest
import torch
from sorting import BestBoxes, with_dead_channels
from torch import nn

import slimnet
from slimnet.surgery.certificate import certify
from slimnet.surgery.selection_order import FollowedSelections, RecordedSelections, run_in_order

IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
TOLERANCE = 1e-4


@pytest.fixture
def network() -> BestBoxes:
    """Scores differ by rounding alone, so that a sum over fewer channels sorts them in another order."""
    torch.manual_seed(0)
    return with_dead_channels(BestBoxes(levels=None), 3)


def test_a_network_that_sorts_scores_which_differ_by_rounding_is_certified_in_the_slim_order(network):
    """Oracle: the boxes of the slim network are other ones, and each is a box of the dense network."""
    slimmed = slimnet.slim(network, IMAGES)
    assert slimmed.plan.removed_channels == 3
    assert slimmed.certificate.holds
    assert slimmed.certificate.reordered
    assert slimmed.certificate.max_rel_difference < 1e-6
    assert "with scores that are equal but for rounding in the slim network's order" in str(slimmed.certificate)
    with torch.no_grad():
        expected, actual = network(IMAGES), slimmed.model(IMAGES)
        every = network.box(network.features(IMAGES)).flatten(2).transpose(1, 2)
    assert not torch.allclose(expected, actual, atol=1e-3)
    nearest = torch.cdist(actual, every, compute_mode="donot_use_mm_for_euclid_dist").min(-1).values
    assert nearest.max() < 1e-5
    assert slimnet.Certificate.from_json(slimmed.certificate.to_json()) == slimmed.certificate


def test_scores_of_a_few_levels_are_sorted_alike(network):
    torch.manual_seed(0)
    slimmed = slimnet.slim(with_dead_channels(BestBoxes(levels=4), 3), IMAGES)
    assert not slimmed.certificate.reordered
    assert "order" not in str(slimmed.certificate)


def test_another_box_under_the_right_order_is_a_difference(network):
    slimmed = slimnet.slim(network, IMAGES)
    with torch.no_grad():
        slimmed.model.box.bias += 0.5
    certificate = certify(network, slimmed.model, slimmed.plan, IMAGES)
    assert not certificate.holds
    assert not certificate.reordered


def test_another_selection_of_scores_that_are_not_equal_is_a_difference():
    torch.manual_seed(0)
    network = with_dead_channels(BestBoxes(levels=60), 3)
    slimmed = slimnet.slim(network, IMAGES)
    with torch.no_grad():
        slimmed.model.score.weight *= -1
    certificate = certify(network, slimmed.model, slimmed.plan, IMAGES)
    assert not certificate.holds
    assert not certificate.reordered


@pytest.mark.parametrize(
    ("change", "followed"),
    [
        (lambda indices: indices, True),
        (lambda indices: indices.flip(1), False),
        (lambda indices: torch.zeros_like(indices), False),
        (lambda indices: indices[:, :10], False),
        (lambda indices: indices + 1000, False),
        (lambda indices: indices - 1000, False),
    ],
    ids=["its own", "the worst first", "one of them twenty times", "too few", "outside", "negative"],
)
def test_only_an_order_that_a_sort_could_have_chosen_is_followed(change, followed):
    """Oracle: the network itself, whose best 20 of 144 scores have several levels."""
    torch.manual_seed(0)
    network = BestBoxes(levels=60).eval()
    mode = FollowedSelections([change(each) for each in selections(network)], TOLERANCE)
    with torch.no_grad(), mode:
        answer = network(IMAGES)
    assert mode.followed is followed
    with torch.no_grad():
        torch.testing.assert_close(answer, network(IMAGES))


@pytest.mark.parametrize("count", [0, 2])
def test_as_many_orders_are_needed_as_the_network_sorts(network, count):
    mode = FollowedSelections(selections(network) * count, TOLERANCE)
    with torch.no_grad(), mode:
        network(IMAGES)
    assert not mode.followed
    assert run_in_order(lambda: [IMAGES], [], TOLERANCE) is None


def selections(module: nn.Module) -> list[torch.Tensor]:
    """The indices that the network's sorts return."""
    with torch.no_grad(), RecordedSelections() as mode:
        module(IMAGES)
    return mode.indices
