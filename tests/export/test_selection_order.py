"""Networks that sort by score: a file may order equal scores in another way, and nothing else."""

import onnx
import pytest
import torch
from sorting import BestBoxes, with_dead_channels

import slimnet
from slimnet.bundle.bundle import verify_bundle
from slimnet.errors import ExportError
from slimnet.export import onnx_graph
from slimnet.export.onnx import export_onnx
from slimnet.export.onnx_runner import OnnxRunner
from slimnet.modules.example_inputs import Inputs

IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
TOLERANCE = 1e-4


@pytest.fixture
def network() -> BestBoxes:
    torch.manual_seed(0)
    return BestBoxes().eval()


@pytest.mark.parametrize("sort", [False, True])
def test_a_file_that_orders_equal_scores_in_another_way_is_written_and_says_so(sort, tmp_path):
    """Oracle: plain comparison fails, and the boxes are the same as a set where every score of one level is taken."""
    torch.manual_seed(0)
    module = BestBoxes(sort=sort).eval()
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


def test_a_file_that_returns_other_boxes_is_refused(network, tmp_path, monkeypatch):
    """The box of another position under the right order: a fault of the file, which no order explains."""
    translate = onnx_graph.translate

    def shifted(captured, opset):
        model = translate(captured, opset)
        for weight in model.graph.initializers.values():
            if weight.name.endswith("box.bias"):
                weight.const_value = onnx_graph.ir.tensor(weight.const_value.numpy() + 0.5)
        return model

    monkeypatch.setattr(onnx_graph, "translate", shifted)
    with pytest.raises(ExportError, match="as ONNX differs from the network by"):
        export_onnx(network, IMAGES, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_sorts_has_nothing_to_follow(tmp_path):
    torch.manual_seed(0)
    plain = BestBoxes().features.eval()
    export_onnx(plain, IMAGES, tmp_path / "net.onnx")
    runner = OnnxRunner(tmp_path / "net.onnx")
    assert runner.selections(Inputs.of(IMAGES)) == []


def test_a_bundle_of_such_a_network_is_saved_and_verified(network, tmp_path):
    slimmed = slimnet.slim(with_dead_channels(network, 3), IMAGES)
    assert slimmed.plan.removed_channels == 3
    folder = slimnet.save(slimmed, tmp_path / "slim")
    verified = verify_bundle(folder, model=BestBoxes())
    assert verified.differences["model.onnx"] < TOLERANCE
    names = [output.name for output in onnx.load(folder / "model.onnx").graph.output]
    assert len(names) == 1, "indices are outputs of the compared copy only"
