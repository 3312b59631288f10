"""torchvision's detectors where its compiled ops do not load: non-maximum suppression in plain torch."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from slimnet.compat import torchvision


def suppress(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """The boxes `(N, 4)` that overlap none of a higher score by more than a threshold, the best first."""
    ops = torchvision().ops
    overlaps = ops.box_iou(boxes, boxes) > iou_threshold
    kept: list[int] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        if not any(overlaps[index, other] for other in kept):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.int64)


@contextmanager
def boxes_selected() -> Iterator[None]:
    """While the context lasts, torchvision's NMS runs on the CPU; on meta tensors it raises, as it always does."""

    def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
        if boxes.is_meta:
            return torch.ops.torchvision.nms(boxes, scores, iou_threshold)
        return suppress(boxes, scores, iou_threshold)

    torchvision()
    from torchvision.ops import boxes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boxes, "nms", nms)
        yield
