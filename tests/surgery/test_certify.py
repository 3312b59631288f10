"""How two networks' outputs are compared: in double precision, piece by piece; and with the classes of a loader."""

import copy

import pytest
import torch
from torch import nn

import slimnet
from slimnet import Certificate, SurgeryPlan, certify
from slimnet.accuracy import Accuracy
from slimnet.surgery.equivalence import PIECE, distance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("size", [1, PIECE - 1, PIECE, 2 * PIECE + 1])
def test_the_largest_difference_is_found_wherever_it_is(size, dtype):
    generator = torch.Generator().manual_seed(size)
    expected, actual = torch.randn(2, 1, size, generator=generator).to(dtype)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    left, right = expected.to(wide), actual.to(wide)
    found = distance(expected, actual)
    assert found.largest == pytest.approx((left - right).abs().max().item(), rel=1e-15)
    assert found.scale == pytest.approx(left.abs().max().item(), rel=1e-15)


def test_a_difference_in_the_last_of_many_outputs_counts():
    expected = torch.zeros(3, PIECE)
    actual = expected.clone()
    actual[-1, -1] = 0.5
    assert distance(expected, actual).largest == 0.5


@pytest.mark.parametrize("place", [0, PIECE, 3 * PIECE - 1])
def test_a_value_that_is_no_number_is_the_largest_difference_of_all(place):
    expected, actual = torch.ones(2, 3, PIECE)
    actual.view(-1)[place] = float("nan")
    found = distance(expected, actual)
    assert found.largest != found.largest


def test_outputs_of_whole_numbers_and_of_truths_are_compared_too():
    assert distance(torch.tensor([[3, 7]]), torch.tensor([[3, 9]])).largest == 2
    assert distance(torch.tensor([[True, False]]), torch.tensor([[True, True]])).largest == 1
    assert distance(torch.zeros(0, 4), torch.zeros(0, 4)).largest == 0


class BoxesAndScores(nn.Module):
    """Two heads of different size: pixels, and numbers in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm = nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16)
        self.boxes, self.scores = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.norm(self.body(x)).relu().mean((2, 3), keepdim=True)
        return {"boxes": self.boxes(y) * 1000, "scores": self.scores(y).sigmoid()}


def test_each_output_is_compared_with_its_own_values():
    """Oracle: the differences of both, by hand; next to boxes of a thousand pixels, that of the scores is nothing."""
    torch.manual_seed(1)
    model, images = BoxesAndScores().eval(), torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        model.norm.weight[:9], model.boxes.weight[:, :9] = 9.9e-4, 0
        model.norm.running_var.fill_(1e-4)
    found = slimnet.slim(model, images, tolerance=1)
    with torch.no_grad():
        pairs = [(model(images)[name], found.model(images)[name]) for name in ("boxes", "scores")]
    apart = [float((left - right).abs().max() / left.abs().max()) for left, right in pairs]
    assert apart[0] < 1e-6 < 1e-3 < apart[1]
    assert found.certificate.max_rel_difference == pytest.approx(apart[1], rel=1e-3)


def labelled(batches: int = 3) -> tuple[nn.Module, nn.Module, SurgeryPlan, list[tuple[torch.Tensor, torch.Tensor]]]:
    """A network of seven classes, one with another last layer, a plan between them, and batches of 5 with classes."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 7)).eval()
    loader = [(torch.randn(5, 1, 4, 4), torch.randint(0, 7, (5,))) for _ in range(batches)]
    other = copy.deepcopy(dense)
    nn.init.normal_(other[4].weight)
    return dense, other, slimnet.slim(dense, loader[0][0]).plan, loader


def test_with_a_loader_of_labelled_images_both_networks_accuracy_is_measured():
    """Oracle: sorted scores of all images at once, best first."""
    dense, other, plan, loader = labelled()
    images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    found = certify(dense, other, plan, iter(loader))
    assert found.accuracies is not None
    for network, accuracy in zip((dense, other), found.accuracies, strict=True):
        order = network(images).argsort(1, descending=True)
        places = [row.tolist().index(label) for row, label in zip(order, labels.tolist(), strict=True)]
        assert accuracy == Accuracy(sum(p == 0 for p in places) / 15, sum(p < 5 for p in places) / 15, 15)
    assert found.accuracies[0] != found.accuracies[1]
    assert f"accuracy {100 * found.accuracies[0].top1:.2f} % → {100 * found.accuracies[1].top1:.2f} %" in str(found)
    assert Certificate.from_json(found.to_json()) == found


def test_without_classes_no_accuracy_is_measured():
    dense, other, plan, loader = labelled()
    maps = [(images, torch.zeros(5, 4, 4, dtype=torch.long)) for images, _ in loader]
    for unlabelled in ([images for images, _ in loader], maps):
        found = certify(dense, other, plan, iter(unlabelled))
        assert found.samples == 15
        assert found.accuracies is None
        assert "accuracy" not in str(found)
        assert Certificate.from_json(found.to_json()) == found
