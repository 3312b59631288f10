"""YOLO networks of ultralytics, from v5 to 12, in unmodified classes: the same boxes, masks and keypoints."""

import pytest
import torch
from yolo import dense_yolo, head_of, predictions

import slimnet
from slimnet.modules.copying import shared_copy
from slimnet.surgery.network_comparison import masked_scales

NETWORKS = (
    *("yolov5n", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n"),
    *("yolov8n-seg", "yolo11n-seg", "yolo12n-seg", "yolov8n-pose", "yolo11n-pose", "yolo12n-pose"),
)
QUICK = (("yolov8n", "eval"), ("yolov10n", "eval"), ("yolo11n-seg", "export"), ("yolo12n-pose", "eval"))
CASES = [
    pytest.param(name, mode, marks=[] if (name, mode) in QUICK else [pytest.mark.sweep])
    for name in NETWORKS
    for mode in ("eval", "export")
]
SIZES = ((64, 64), (96, 64))
EXACT, TRAINED = 1e-12, 1e-9


def images(rows: int, columns: int, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows + columns)
    return torch.rand(count, 3, rows, columns, dtype=torch.double, generator=generator)


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_a_yolo_is_slimmed_whole(name, mode):
    """Slimmed in one mode and for one size, it computes the same in every mode and size.

    Oracle: the dense network with the γ of dead channels set to 0, in double precision. YOLOv10 answers by its
    one-to-one head, end to end.
    """
    model = dense_yolo(name, end2end=name == "yolov10n").double()
    head_of(model).export = mode == "export"
    slimmed = slimnet.slim(model, images(64, 64, count=1))
    assert slimmed.plan.stop is None
    assert slimmed.plan.removed_channels > 0.4 * slimmed.plan.dead_channels
    assert slimmed.certificate.max_rel_difference < EXACT
    masked = shared_copy(model, masked_scales(model, slimmed.plan))
    for size in SIZES:
        for each in ("eval", "export", "train"):
            expected, found = predictions(masked, images(*size), each), predictions(slimmed.model, images(*size), each)
            assert expected.keys() == found.keys()
            for place, tensor in expected.items():
                scale = TRAINED * float(tensor.abs().max())
                torch.testing.assert_close(found[place], tensor, rtol=0, atol=scale)
