"""Files with the right form and the wrong content: each is refused in one line, and in reasonable time."""

import json
import zipfile

import bundles
import numpy as np
import pytest
import torch
from checkpoints import refusal, save
from torch import nn

import slimnet
from slimnet.checkpoint import load_checkpoint, read_state_dict
from slimnet.checkpoint.weights import AVERAGES, WRAPPERS, found_in
from slimnet.data.npz import load_npz
from slimnet.errors import CheckpointError, DataError, PlanError, SlimnetError
from slimnet.models import build
from slimnet.surgery.plan import SurgeryPlan
from slimnet.sweep import read_grid


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return build("resnet20").state_dict()


def nested() -> torch.Tensor:
    """A tensor without a shape, as old `torch.nested.nested_tensor` makes it."""
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


UNUSUAL = {
    "nested": lambda weight: nested(),
    "sparse_coo": lambda weight: weight.to_sparse(),
    "quantised": lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
    "meta (empty)": lambda weight: weight.to("meta"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", UNUSUAL)
def test_a_weight_that_is_no_ordinary_tensor_is_refused_by_name(kind, state, tmp_path):
    path = save(tmp_path, {**state, "conv1.weight": UNUSUAL[kind](state["conv1.weight"])})
    assert refusal(path) == f"holds conv1.weight as a {kind} tensor; save an ordinary one"


@pytest.mark.filterwarnings("ignore")
def test_a_nested_tensor_in_an_entry_is_refused_by_every_reader(tmp_path):
    path = save(tmp_path, {"state_dict": {"extra": nested()}})
    with pytest.raises(CheckpointError, match="holds extra as a nested tensor; save an ordinary one"):
        read_state_dict(path)


def test_a_dictionary_that_holds_itself_under_every_name_is_looked_into_once(state):
    content = dict(state)
    for entry in (*WRAPPERS, *AVERAGES):
        content[entry] = content
    assert [(each.place, each.tensors.keys()) for each in found_in(content)] == [("", state.keys())]


def test_a_checkpoint_with_compressed_parts_is_refused(tmp_path):
    """A gigabyte of zeros takes a megabyte; torch.save compresses nothing."""
    path, packed = tmp_path / "net.pt", tmp_path / "packed.pt"
    torch.save({"weight": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as copy:
        for name in archive.namelist():
            copy.writestr(name, archive.read(name))
    assert "compressed parts" in bundles.refusal(CheckpointError, load_checkpoint, packed, "basicnet")


@pytest.mark.parametrize("field", ["params_before", "params_after", "macs_before", "macs_after"])
def test_a_plan_has_no_negative_counts(field):
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 1, 1)).eval()
    document = json.loads(slimnet.slim(network, torch.randn(1, 1, 2, 2)).plan.to_json())
    assert field in bundles.refusal(PlanError, SurgeryPlan.from_json, json.dumps(document | {field: -1}))
    document["layers"][0]["channels_after"] = -1
    assert "channels_after" in bundles.refusal(PlanError, SurgeryPlan.from_json, json.dumps(document))


GRIDS = {
    "cells of numbers": "[base]\narch = 'basicnet'\ndata = 'digits'\niterations = 1\n[[cells]]\n[grid]\nl2 = 1",
    "a cell": "cells = [1]",
    "an optimiser": "[base]\narch = 'basicnet'\ndata = 'digits'\niterations = 1\noptimiser = [1]",
    "nested": "a = " + "[" * 500 + "]" * 500,
    "no end of cells": "[base]\narch = 'basicnet'\ndata = 'digits'\niterations = 1\n[grid]\n"
    + "\n".join(f"{name} = [{', '.join(map(str, range(1, 1001)))}]" for name in ("seed", "crop", "batch_size", "l2")),
}


@pytest.mark.parametrize("what", GRIDS)
def test_a_grid_that_is_none_is_one_line(what, tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(GRIDS[what])
    bundles.refusal(SlimnetError, read_grid, path)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_images_that_are_packed_badly_are_one_line(method, tmp_path):
    """LZMA's own errors, and those of a stream that is cut off in the middle."""
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            with archive.open(f"{name}.npy", "w") as file:
                shape = (2, 4, 4, 1) if name.startswith("x") else (2,)
                np.lib.format.write_array(file, np.zeros(shape, np.uint8))
    content = bytearray(path.read_bytes())
    begin = content.index(b"x_train.npy") + 11
    content[begin : begin + 30] = b"\xff" * 30
    path.write_bytes(content)
    bundles.refusal(DataError, load_npz, path)


def test_encrypted_images_are_one_line(tmp_path):
    """The flag of encryption is set in every header, as zip programs do."""
    path = tmp_path / "x.npz"
    np.savez(path, x_train=np.zeros(1), y_train=np.zeros(1), x_test=np.zeros(1), y_test=np.zeros(1))
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(signature)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(signature, at + 4)
    path.write_bytes(content)
    bundles.refusal(DataError, load_npz, path)


def test_dictionaries_that_are_shared_without_end_are_one_line():
    """Each level holds the next one under every name: 13 ** 8 ways to a tensor."""
    content: dict = {"weight": torch.ones(1)}
    for _ in range(7):
        content = dict.fromkeys(WRAPPERS, content)
    with pytest.raises(CheckpointError, match="nested dictionaries"):
        found_in(content)


@pytest.mark.parametrize(
    "header", ["{'descr': '|u1', 'fortran_order': False, 'shape': (2, ", "{'descr': L, 'shape': 1L}"]
)
def test_an_array_with_a_damaged_header_is_one_line(header, tmp_path):
    """NumPy reads old headers as Python's tokens, and its tokenizer has errors of its own; found by the fuzzer."""
    path, text = tmp_path / "x.npz", header.ljust(117) + "\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
    bundles.refusal(DataError, load_npz, path)
