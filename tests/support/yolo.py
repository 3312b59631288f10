"""ultralytics' YOLO networks with dead channels, of its own classes; tests skip where it is missing.

Its licence (AGPL-3.0) makes it nothing that slimnet could depend on: it is used here alone.
"""

import copy
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from slimnet.modules.example_inputs import placed_tensors_in

# Before it is imported: it looks for a network, and writes settings into the home folder.
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="yolo-"))

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tasks = pytest.importorskip("ultralytics.nn.tasks", reason="ultralytics is not installed")

CLASSES, KEYPOINTS = 3, (3, 3)
"""Of every network."""

TASKS = {"": "DetectionModel", "-seg": "SegmentationModel", "-pose": "PoseModel"}
"""The class of a network by the end of its name."""

TINY: dict[str, Any] = {
    "nc": CLASSES,
    "backbone": [
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "C2f", [32, True]],
        [-1, 1, "Conv", [64, 3, 2]],
        [-1, 1, "SPPF", [64, 5]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 2], 1, "Concat", [1]],
        [-1, 1, "C2f", [32]],
        [[7, 4], 1, "Detect", ["nc"]],
    ],
}
"""The layers of YOLOv8, few of them: for what takes a time that grows with their number."""


def dense_yolo(config: str | dict[str, Any], share: float = 0.4, *, end2end: bool = False) -> nn.Module:
    """A network in evaluation mode, of which a share of the channels is dead, with statistics as after a training."""
    task = next(end for end in reversed(TASKS) if isinstance(config, dict) or config.endswith(end))
    task = "" if isinstance(config, dict) else task
    options = {"data_kpt_shape": KEYPOINTS} if task == "-pose" else {}
    cfg = copy.deepcopy(config) if isinstance(config, dict) else f"{config}.yaml"
    torch.manual_seed(0)
    model = getattr(tasks, TASKS[task])(cfg, ch=3, nc=CLASSES, verbose=False, **options).eval()
    kill(model, share)
    if end2end:
        model.end2end = True
    return model


def kill(model: nn.Module, share: float) -> None:
    """Make a share of the channels dead; all others vary, with any β."""
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_(0, 0.1)
                norm.running_var.uniform_(0.5, 1.5)
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(0, 0.1)
                norm.weight[torch.rand(norm.weight.shape) < share] = 0


def head_of(model: nn.Module) -> Any:
    """The detection head: the last layer."""
    return model.model[-1]


def predictions(model: nn.Module, images: torch.Tensor, mode: str) -> dict[str, torch.Tensor]:
    """What a copy of a network returns in a mode, by place: "eval", "train", or "export" as its exporters set it.

    The features that go into the head come out of it for their height and width alone, and are left out.
    """
    model = copy.deepcopy(model).train(mode == "train")
    head_of(model).export = mode == "export"
    with torch.no_grad():
        found = placed_tensors_in(model(images))
    return {".".join(place): tensor for place, tensor in found if "feats" not in place}


def checkpoint(model: nn.Module, path: Path) -> Path:
    """A network as the trainer of ultralytics leaves it while it trains: the average alone, in half precision."""
    stored = copy.deepcopy(model).half()
    for parameter in stored.parameters():
        parameter.requires_grad_(False)
    content = {"epoch": 0, "best_fitness": 0.1, "model": None, "ema": stored, "updates": 9, "optimizer": None}
    torch.save(content | {"train_args": {"imgsz": 64}, "date": "2026-01-01", "version": "8.4"}, path)
    return path
