"""YOLO networks from their checkpoints into bundles and out of them again: commands, other processes, onnxruntime."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import slimnet_cli
import torch
from torch import nn
from yolo import TINY, checkpoint, dense_yolo, head_of

import slimnet
from slimnet.modules.example_inputs import tensors_in

SHAPE = ("--input-shape", "3,64,64")
ARCH = ("--arch", "ultralytics.nn.tasks:DetectionModel")

LOADS = """
import sys, torch, slimnet
folder, dense, images, out = sys.argv[1:]
model = None if dense == "-" else slimnet.load_checkpoint(dense, trust=True)
slim = slimnet.load(folder, model=model, trust=True).eval()
with torch.no_grad():
    torch.save(slim(torch.load(images))[0], out)
"""


def run(*arguments: object) -> int:
    return slimnet_cli.run(list(map(str, arguments)))


def images(count: int, rows: int = 64, columns: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, rows, columns, generator=torch.Generator().manual_seed(count))


def check_onnx(folder: Path, dense: nn.Module, *, dynamic: bool) -> None:
    """Run the ONNX model of a bundle on images that it has not seen. Oracle: the dense network in torch."""
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    for count, *size in ((1, 64, 64), (3, 64, 64), *([(2, 96, 64)] if dynamic else [])):
        given = images(count, *size)
        found = session.run(None, {session.get_inputs()[0].name: given.numpy()})
        with torch.no_grad():
            expected = tensors_in(dense(given))
        assert [each.shape for each in found] == [tuple(each.shape) for each in expected]
        for actual, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("named", [False, pytest.param(True, marks=pytest.mark.sweep)])
def test_a_checkpoint_in_half_precision_becomes_a_bundle_that_another_process_reads(named, tmp_path, monkeypatch):
    """From the average alone, as the trainer leaves it; its ONNX model takes images of any number and size.

    Oracle: the dense network in this process.
    """
    monkeypatch.chdir(tmp_path)
    path = checkpoint(dense_yolo(TINY), tmp_path / "best.pt")
    arch = (*ARCH, "--arch-args", json.dumps({"cfg": TINY, "verbose": False})) if named else ()
    assert run("slim", path, "--trust", *arch, *SHAPE, "--round", "none", "--dynamic-size", "-o", "slim") == 0
    assert run("verify", "slim", "--trust", *([] if named else ["--dense", path])) == 0
    torch.save(images(3), "images.pt")
    arguments = ["slim", "-" if named else str(path), "images.pt", "boxes.pt"]
    subprocess.run([sys.executable, "-c", LOADS, *arguments], check=True, timeout=300)
    dense = slimnet.load_checkpoint(path, trust=True).eval()
    with torch.no_grad():
        expected, _ = dense(images(3))
    torch.testing.assert_close(torch.load("boxes.pt"), expected, rtol=1e-4, atol=1e-3)
    check_onnx(Path("slim"), dense, dynamic=True)


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["yolov5n", "yolov8n", "yolov9t", "yolov10n", "yolo11n-seg", "yolo12n-pose"])
def test_every_yolo_is_exported(name, tmp_path):
    dense = dense_yolo(name)
    head_of(dense).export = True
    slimmed = slimnet.slim(dense, images(1))
    check_onnx(slimnet.save(slimmed, tmp_path / "slim"), dense, dynamic=False)


@pytest.mark.parametrize("name", ["yolov10n", pytest.param("yolo26n", marks=pytest.mark.sweep)])
def test_boxes_that_are_sorted_by_score_are_certified_and_exported(name, tmp_path):
    """With random weights many scores are equal but for rounding, in float32 as in onnxruntime."""
    dense = dense_yolo(name, end2end=True)
    head_of(dense).export = True
    slimmed = slimnet.slim(dense, images(1, 128, 128))
    assert slimmed.plan.removed_channels > 0.4 * slimmed.plan.dead_channels
    assert slimmed.certificate.holds
    assert slimmed.certificate.reordered
    export = slimnet.export_onnx(slimmed.model, images(1, 128, 128), tmp_path / "slim.onnx")
    assert export.reordered
