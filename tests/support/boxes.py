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
    torchvision()
    from torchvision.ops import boxes

    library = torch.library.Library("torchvision", "IMPL")
    library.impl("nms", suppress, "CPU")
    try:
        # torchvision compiles its RoIAlign in plain torch, which takes longer than all runs of a test.
        with pytest.MonkeyPatch.context() as patch, torch.compiler.set_stance("force_eager"):
            # Without torchvision's own check that its compiled operators have loaded.
            patch.setattr(boxes, "nms", torch.ops.torchvision.nms)
            yield
    finally:
        library._destroy()
