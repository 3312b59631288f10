"""A slim YOLO in the trainer of ultralytics itself: its loss, average, checkpoints, fused copy, and slimmed again."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from yolo import CLASSES, TINY, checkpoint, dense_yolo, kill

import slimnet
from slimnet.compat import torchvision

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "slim.md"
SIDE, PER_PART = 64, 4
SHORT = (
    "batch=4, nbs=4, warmup_epochs=0, optimizer='SGD', workers=0, device='cpu', amp=False, plots=False, name='run', "
    "project=str(FOLDER)"
)
"""Settings for a few steps on a processor, of which each changes the weights."""


@pytest.fixture
def data(tmp_path: Path) -> None:
    """A data set in the format of ultralytics: a bright square on noise in each image."""
    random = np.random.default_rng(0)
    for part in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / part).mkdir(parents=True)
        for number in range(PER_PART):
            pixels = random.integers(0, 128, (SIDE, SIDE, 3), dtype=np.uint8)
            pixels[16:40, 16:40] = 255
            Image.fromarray(pixels).save(tmp_path / "images" / part / f"{number}.png")
            label = f"{number % CLASSES} 0.4375 0.4375 0.375 0.375\n"
            (tmp_path / "labels" / part / f"{number}.txt").write_text(label)
    names = ", ".join(f"{number}: class{number}" for number in range(CLASSES))
    settings = f"path: {tmp_path}\ntrain: images/train\nval: images/val\nnames: {{{names}}}\n"
    (tmp_path / "data.yaml").write_text(settings)


@pytest.fixture
def suppression(monkeypatch):
    """Non-maximum suppression by ultralytics in place of torchvision's, which is not compiled for every torch."""
    from ultralytics.utils.nms import TorchNMS

    monkeypatch.setattr(torchvision().ops, "nms", TorchNMS.nms)


def guide(section: str) -> str:
    """The Python of a section of the guide."""
    _, _, text = GUIDE.read_text(encoding="utf-8").partition(f"## {section}\n")
    found = re.search(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.filterwarnings("ignore")  # those of ultralytics, its data loader and its table of results
@pytest.mark.usefixtures("data", "suppression")
def test_a_slim_yolo_is_trained_by_its_own_trainer_and_slimmed_again(tmp_path, monkeypatch):
    """As the guide says, on few and small images.

    It stays as narrow, and its checkpoint knows the cuts: the plan of the next ones begins with them.
    """
    monkeypatch.chdir(tmp_path)
    checkpoint(dense_yolo(TINY), tmp_path / "best.pt")
    code = guide("A YOLO").replace("640", str(SIDE))
    assert "epochs=10)" in code
    names: dict[str, Any] = {"FOLDER": tmp_path}
    exec(code.replace("epochs=10)", f"epochs=2, {SHORT})"), names)
    slimmed, yolo = names["slimmed"], names["yolo"]

    assert torch.isfinite(yolo.trainer.loss).all()
    before, after = slimmed.model.state_dict(), yolo.trainer.model.state_dict()
    assert {name: tensor.shape for name, tensor in before.items()} == {name: t.shape for name, t in after.items()}
    assert not torch.equal(before["model.0.conv.weight"], after["model.0.conv.weight"])

    last = tmp_path / "run" / "weights" / "last.pt"
    trained = slimnet.load_checkpoint(last, trust=True).eval()
    kill(trained, 0.3)
    again = slimnet.slim(trained, torch.rand(1, 3, SIDE, SIDE))
    assert again.certificate.holds
    assert again.plan.removed_channels > 0
    assert again.whole_plan.removed_channels == slimmed.plan.removed_channels + again.plan.removed_channels
    fused = names["YOLO"](last).model.fuse(verbose=False)
    assert not any("bn" in name for name, _ in fused.named_parameters())
