"""torchvision's two-stage detectors: heads that run on the selected boxes lose their dead units as well."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import torch
from boxes import boxes_selected
from torch import nn

import slimnet
from slimnet.compat import torchvision

SIDE, SHARE, EXACT = 64, 0.4, 1e-9

SETTINGS = {
    "weights": None,
    "weights_backbone": None,
    "num_classes": 3,
    "min_size": SIDE,
    "max_size": SIDE,
    "rpn_pre_nms_top_n_test": 20,
    "rpn_post_nms_top_n_test": 4,
    "box_score_thresh": 0.0,
    "box_detections_per_img": 2,
}
"""Few boxes on small images, of which all pass."""

HEADS = {
    "fasterrcnn_resnet50_fpn": ("box_predictor",),
    "fasterrcnn_resnet50_fpn_v2": ("box_predictor",),
    "maskrcnn_resnet50_fpn": ("box_predictor", "mask_predictor"),
    "maskrcnn_resnet50_fpn_v2": ("box_predictor", "mask_predictor"),
    "keypointrcnn_resnet50_fpn": ("box_predictor", "keypoint_predictor"),
}
"""The modules behind the selection whose outputs the certificate compares."""

OUTPUTS = ("cls_score", "bbox_pred", "mask_fcn_logits", "kps_score_lowres")
"""The layers whose channels are outputs of the heads."""

SLOW = ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2", "keypointrcnn_resnet50_fpn")
CHOSEN = [pytest.param(name, marks=[pytest.mark.sweep] if name in SLOW else []) for name in HEADS]
SCRIPTED = pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # of torchvision's RoI heads


def kill_units(layer: nn.Module) -> int:
    """Make some output channels of a layer zero, by their filters and biases; returns how many."""
    weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
    dead = torch.rand(len(weight)) < SHARE
    weight[dead], layer.bias[dead] = 0, 0
    return int(dead.sum())


def kill_channels(norm: nn.Module) -> int:
    """Make some γ of a BatchNorm zero, with a β that a ReLU makes zero; returns how many."""
    dead = torch.rand(len(norm.weight)) < SHARE
    norm.weight[dead], norm.bias[dead] = 0, -0.1
    return int(dead.sum())


def has_bias(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and module.bias is not None


@cache
def detector(name: str) -> tuple[nn.Module, int]:
    """A detector with dead channels everywhere, and how many of them are in its heads."""
    torch.manual_seed(0)
    model = getattr(torchvision().models.detection, name)(**SETTINGS).double().eval()
    in_heads = 0
    with torch.no_grad():
        for path, module in model.named_modules():
            found = 0
            if type(module).__name__ in ("BatchNorm2d", "FrozenBatchNorm2d"):
                found = kill_channels(module)
            elif path.startswith("roi_heads.") and not path.endswith(OUTPUTS) and has_bias(module):
                found = kill_units(module)
            in_heads += found * path.startswith("roi_heads.")
    return model, in_heads


def images(seed: int, count: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(3, SIDE, SIDE, dtype=torch.double, generator=generator) for _ in range(count)]


@contextmanager
def limit_of_scores(limit: float, *models: nn.Module) -> Iterator[None]:
    """While the context lasts, only boxes of a higher score pass."""
    for model in models:
        model.roi_heads.score_thresh = limit
    try:
        yield
    finally:
        for model in models:
            model.roi_heads.score_thresh = 0.0


def run(model: nn.Module, given: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """What the modules in front of the selection return, and the boxes with their masks or keypoints."""
    front: list[torch.Tensor] = []
    hook = model.rpn.head.register_forward_hook(lambda _, __, found: front.extend([*found[0], *found[1]]))
    with torch.no_grad():
        found = model(given)
    hook.remove()
    return front, found


def check_equal(dense: nn.Module, slim: nn.Module, given: list[torch.Tensor]) -> int:
    """Compare both in front of the selection and behind it; returns how many boxes there are."""
    (front, expected), (other, found) = run(dense, given), run(slim, given)
    torch.testing.assert_close(other, front, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)
    return sum(len(each["boxes"]) for each in expected)


@SCRIPTED
@pytest.mark.parametrize("name", CHOSEN)
def test_the_heads_of_a_detector_lose_their_dead_units(name):
    """Oracle: the dense detector in double precision on other images, two at once, and without any box."""
    model, in_heads = detector(name)
    with boxes_selected():
        slimmed = slimnet.slim(model, (images(0),))
        assert check_equal(model, slimmed.model, images(1)) == 2
        assert check_equal(model, slimmed.model, images(2, 2)) == 4
        with limit_of_scores(0.99, model, slimmed.model):
            assert check_equal(model, slimmed.model, images(3)) == 0
    heads = [layer for layer in slimmed.plan.layers if layer.name.startswith("roi_heads.")]
    assert sum(layer.channels_before - layer.channels_after for layer in heads) == in_heads
    assert sum(layer.macs_before for layer in heads) == 0
    assert slimmed.plan.removed_channels > in_heads + 3000
    assert slimmed.plan.stop is not None
    assert slimmed.plan.stop.behind == tuple(f"roi_heads.{head}" for head in HEADS[name])
    assert slimmed.certificate.behind_max_rel_difference < EXACT
    assert slimmed.certificate.results_follow is True


@SCRIPTED
@pytest.mark.sweep
def test_a_two_stage_detector_is_saved_read_back_and_slimmed_again(tmp_path):
    """Oracles: the slim network's own boxes, and the dense network's."""
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    torch.manual_seed(0)
    model = slimnet.build(f"torchvision:{name}", SETTINGS).eval()
    head = model.roi_heads.box_head
    with torch.no_grad():
        head.fc6.weight[:512], head.fc6.bias[:512] = 0, 0
    given = [image.float() for image in images(0)]
    with boxes_selected():
        first = slimnet.slim(model, (given,))
        folder = slimnet.save(first, tmp_path / "bundle")
        assert slimnet.verify_bundle(folder, dense=model).certified
        loaded = slimnet.load(folder).eval()
        with torch.no_grad():
            assert torch.equal(loaded(given)[0]["boxes"], first.model(given)[0]["boxes"])
            loaded.roi_heads.box_head.fc7.weight[::2] = 0
            loaded.roi_heads.box_head.fc7.bias[::2] = 0
        second = slimnet.slim(loaded, (given,))
        both = first.plan.then(second.plan)
        assert both.stop == first.plan.stop == second.plan.stop
        assert {layer.name: layer.channels_after for layer in both.layers if "box_head" in layer.name} == {
            "roi_heads.box_head.fc6": 512,
            "roi_heads.box_head.fc7": 512,
        }
        changed = second.model
        with torch.no_grad():
            changed.roi_heads.box_predictor.cls_score.weight.mul_(1.5)
        proof = slimnet.certify(loaded, changed, second.plan, (given,))
    assert not proof.holds
    assert proof.behind_max_rel_difference > 0.01
