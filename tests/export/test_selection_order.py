"""Networks that sort by score: a file may order equal scores in another way, and nothing else."""

from collections.abc import Callable

import onnx
import pytest
import torch
from torch import nn

import slimnet
from slimnet.bundle.bundle import verify_bundle
from slimnet.errors import ExportError
from slimnet.export import onnx as onnx_export
from slimnet.export import onnx_graph
from slimnet.export.onnx import export_onnx
from slimnet.export.onnx_runner import OnnxRunner
from slimnet.modules.example_inputs import Inputs
from slimnet.surgery.selection_order import FollowedSelections, RecordedSelections, difference_if_followed

IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
TOLERANCE = 1e-4


class BestBoxes(nn.Module):
    """The boxes of the positions with the highest scores, best first; `levels` is the number of different scores."""

    def __init__(self, sort: bool = False, levels: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.score, self.box = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 4, 1)
        self.sort, self.levels = sort, levels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.features(images)
        scores = torch.round(self.score(found).sigmoid() * self.levels).flatten(1)
        boxes = self.box(found).flatten(2).transpose(1, 2)
        best = scores.sort(dim=1, descending=True) if self.sort else scores.topk(20, dim=1)
        order = best.indices[:, :20]
        return boxes.gather(1, order[..., None].expand(-1, -1, 4))


@pytest.fixture
def network() -> BestBoxes:
    torch.manual_seed(0)
    return BestBoxes().eval()


def selections(
    module: nn.Module, inputs: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]
) -> list[torch.Tensor]:
    """The indices of torch's own sort, changed, as a file would report them."""
    mode = RecordedSelections()
    with torch.no_grad(), mode:
        module(inputs)
    return [change(each) for each in mode.indices]


@pytest.mark.parametrize("sort", [False, True])
def test_a_file_that_orders_equal_scores_in_another_way_is_written_and_says_so(sort, tmp_path):
    """Oracle: plain comparison fails, and the boxes are the same as a set where every score of one level is taken."""
    torch.manual_seed(0)
    module = BestBoxes(sort).eval()
    export = export_onnx(module, IMAGES, tmp_path / "net.onnx")
    with torch.no_grad():
        expected = module(IMAGES)
    (actual,) = OnnxRunner(tmp_path / "net.onnx")(Inputs.of(IMAGES))
    assert not torch.allclose(expected, actual, atol=1e-3), "torch and onnxruntime order equal scores alike here"
    assert export.reordered
    assert export.max_rel_difference < 1e-5
    assert "scores that are equal but for rounding are sorted in another order" in str(export)


def test_without_equal_scores_nothing_is_said(tmp_path):
    torch.manual_seed(0)
    export = export_onnx(BestBoxes(levels=10_000_000).eval(), IMAGES, tmp_path / "net.onnx")
    assert not export.reordered
    assert "order" not in str(export)


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
def test_only_an_order_that_torch_could_have_chosen_is_followed(change, followed):
    """Oracle: the network itself, whose best 20 of 144 scores are of several levels."""
    torch.manual_seed(0)
    network = BestBoxes(levels=60).eval()
    mode = FollowedSelections(selections(network, IMAGES, change), TOLERANCE)
    with torch.no_grad(), mode:
        answer = network(IMAGES)
    assert mode.followed is followed
    with torch.no_grad():
        torch.testing.assert_close(answer, network(IMAGES))


@pytest.mark.parametrize("count", [0, 2])
def test_as_many_sorts_are_needed_as_the_network_has(network, count):
    own = selections(network, IMAGES, lambda indices: indices)
    mode = FollowedSelections(own * count, TOLERANCE)
    with torch.no_grad(), mode:
        network(IMAGES)
    assert not mode.followed


def test_a_file_that_returns_other_boxes_is_refused(network, tmp_path, monkeypatch):
    """The box of another position under the right order: a fault of the file, which no order explains."""
    translate = onnx_graph.translate

    def shifted(captured, opset):
        model = translate(captured, opset)
        for weight in model.graph.initializers.values():
            if weight.name.endswith("box.bias"):
                weight.const_value = onnx_graph.ir.tensor(weight.const_value.numpy() + 0.5)
        return model

    monkeypatch.setattr(onnx_export, "translate", shifted)
    with pytest.raises(ExportError, match="as ONNX differs from the network by"):
        export_onnx(network, IMAGES, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_sorts_has_nothing_to_follow(tmp_path):
    torch.manual_seed(0)
    plain = BestBoxes().features.eval()
    export_onnx(plain, IMAGES, tmp_path / "net.onnx")
    runner = OnnxRunner(tmp_path / "net.onnx")
    assert runner.selections(Inputs.of(IMAGES)) == []
    assert difference_if_followed(lambda: [IMAGES], [IMAGES], [], TOLERANCE) == float("inf")


def test_a_bundle_of_such_a_network_is_saved_and_verified(network, tmp_path):
    with torch.no_grad():
        network.features[1].weight[:3] = 0
        network.features[1].bias[:3] = -1
    slimmed = slimnet.slim(network, IMAGES)
    assert slimmed.plan.removed_channels == 3
    folder = slimnet.save(slimmed, tmp_path / "slim")
    verified = verify_bundle(folder, model=BestBoxes())
    assert verified.differences["model.onnx"] < TOLERANCE
    names = [output.name for output in onnx.load(folder / "model.onnx").graph.output]
    assert len(names) == 1, "indices are outputs of the compared copy only"
