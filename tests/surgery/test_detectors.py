"""torchvision's detectors as a whole: everything in front of the selection of boxes is slimmed."""

import pytest
import torch
from boxes import boxes_selected
from torch import nn

import slimnet
from slimnet.bundle.manifest import ONNX, PROGRAM, read_manifest, write_manifest
from slimnet.compat import torchvision
from slimnet.errors import ChangedBundleError

SIDE, EXACT = 64, 1e-12
SMALL = {"weights": None, "weights_backbone": None, "num_classes": 5}
RESIZED = {"min_size": SIDE, "max_size": SIDE}
ONE_STAGE = {"topk_candidates": 20, "score_thresh": 0.0}
TWO_STAGES = {"rpn_pre_nms_top_n_test": 20, "rpn_post_nms_top_n_test": 10, "box_score_thresh": 0.0}

DETECTORS = {
    "retinanet_resnet50_fpn": (RESIZED | ONE_STAGE, ("backbone", "head")),
    "fcos_resnet50_fpn": (RESIZED | ONE_STAGE, ("backbone", "head")),
    "ssdlite320_mobilenet_v3_large": (ONE_STAGE, ("backbone", "head")),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (RESIZED | TWO_STAGES, ("backbone", "rpn.head")),
    "maskrcnn_resnet50_fpn": (RESIZED | TWO_STAGES, ("backbone", "rpn.head")),
}
"""What each detector is built with, so that few boxes are selected, and the modules whose outputs are compared."""

SLOW = ("fcos_resnet50_fpn", "maskrcnn_resnet50_fpn")
CHOSEN = [pytest.param(name, marks=[pytest.mark.sweep] if name in SLOW else []) for name in DETECTORS]


def detector(name: str) -> nn.Module:
    """A detector with dead channels and random heads."""
    torch.manual_seed(0)
    settings, _ = DETECTORS[name]
    model = getattr(torchvision().models.detection, name)(**SMALL, **settings).double().eval()
    with torch.no_grad():
        for norm in model.modules():
            if type(norm).__name__ in ("BatchNorm2d", "FrozenBatchNorm2d"):
                dead = torch.rand(norm.weight.numel()) < 0.4
                norm.weight[dead], norm.bias[dead] = 0, -0.1
    return model


def images(seed: int) -> list[torch.Tensor]:
    return [torch.rand(3, SIDE, SIDE, dtype=torch.double, generator=torch.Generator().manual_seed(seed))]


def in_one_order(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Boxes by label, score and place: those of equal scores come in an order that rounding decides."""
    rows = torch.column_stack((found["labels"], found["scores"], found["boxes"])).mul(1e6).round().long().tolist()
    order = sorted(range(len(rows)), key=rows.__getitem__)
    return {name: values[order] for name, values in found.items()}


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # of torchvision's RoI heads
@pytest.mark.parametrize("name", CHOSEN)
def test_a_detector_is_slimmed_as_a_whole(name):
    """Oracle: the dense detector's boxes, scores and masks in double precision, on an image it has not seen."""
    model = detector(name)
    with boxes_selected():
        slimmed = slimnet.slim(model, (images(0),))
        fresh = images(1)
        with torch.no_grad():
            (expected,), (found,) = model(fresh), slimmed.model(fresh)
    assert slimmed.plan.removed_channels > 200
    assert slimmed.plan.stop is not None
    assert slimmed.plan.stop.watched == DETECTORS[name][1]
    assert slimmed.certificate.samples == 1
    assert slimmed.certificate.max_rel_difference < EXACT
    assert len(expected["boxes"])
    assert found.keys() == expected.keys()
    expected, found = in_one_order(expected), in_one_order(found)
    for key in expected:
        assert found[key].shape == expected[key].shape
        torch.testing.assert_close(found[key], expected[key], rtol=1e-9, atol=1e-9)


def test_a_detector_is_saved_and_read_back_without_exports(tmp_path):
    """Oracle: the slim network's own boxes."""
    model = slimnet.build("torchvision:ssdlite320_mobilenet_v3_large", {"num_classes": 5, **ONE_STAGE}).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.weight.data[::3], norm.bias.data[::3] = 0, -0.1
    given = [image.float() for image in images(0)]
    with boxes_selected():
        slimmed = slimnet.slim(model, (given,))
        folder = slimnet.save(slimmed, tmp_path / "bundle")
        assert {path.name for path in folder.iterdir()} == {
            "model.safetensors",
            "plan.json",
            "certificate.json",
            "manifest.json",
        }
        checked = slimnet.verify_bundle(folder, dense=model)
        assert checked.certified
        assert checked.differences == {}
        with torch.no_grad():
            (expected,), (found,) = slimmed.model(given), slimnet.load(folder).eval()(given)
    assert torch.equal(found["boxes"], expected["boxes"])


def test_a_bundle_of_another_network_must_have_its_exports(tmp_path):
    """Otherwise they could be left out unnoticed."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    folder = slimnet.save(slimnet.slim(net, torch.randn(1, 3, 8, 8)), tmp_path / "bundle")
    digest = read_manifest(folder).plan_digest
    for name in (PROGRAM, ONNX):
        (folder / name).unlink()
    write_manifest(folder, None, digest)
    with pytest.raises(ChangedBundleError, match=f"has no {ONNX}"):
        slimnet.verify_bundle(folder, net)
