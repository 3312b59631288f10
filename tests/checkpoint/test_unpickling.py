"""Files that are no checkpoints, damaged ones and malicious ones: one line each, and nothing is run."""

import fractions
import os
import pathlib
import pickle
import random
import warnings
from functools import partial

import numpy as np
import pytest
import safetensors.torch
import torch
from checkpoints import refusal, save, telling_resnet
from torch import nn

from slimnet.checkpoint import read_state_dict
from slimnet.errors import CheckpointError


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return telling_resnet()


@pytest.fixture
def state(trained) -> dict[str, torch.Tensor]:
    return trained.state_dict()


@pytest.fixture
def write(tmp_path):
    """`torch.save` into this test's own folder; returns the path."""
    return partial(save, tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty; copy or download the checkpoint again"),
        (b"hello world", "is not a checkpoint: neither torch.save nor safetensors wrote it"),
        (bytes(1000), "is not a checkpoint"),
        (b"\n<!DOCTYPE html><html>", "is a web page, not a checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "is a Git LFS pointer"),
        (b"PK\x03\x04 and no more", "is truncated or damaged"),
        (b"\x80\x02K", "is truncated or damaged"),
        (
            pickle.dumps({"epoch": 3}, protocol=2),
            "is truncated or damaged (RuntimeError: Invalid magic number",
        ),
        (pickle.dumps([1, 2], protocol=0), "is not a checkpoint"),
    ],
)
def test_other_files_are_refused(tmp_path, content, words):
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    assert words in refusal(path)


def test_paths_that_are_no_files_are_refused(tmp_path):
    assert "does not exist" in refusal(tmp_path / "absent.pt")
    assert "is a folder, not a checkpoint file; name a file in it" in refusal(tmp_path)
    (tmp_path / "plan.json").write_text("{}")
    assert "load a bundle with slimnet.load" in refusal(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    assert "is not an ordinary file" in refusal(tmp_path / "pipe.pt")


def test_a_zip_archive_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    assert "is a zip archive without a PyTorch checkpoint" in refusal(tmp_path / "arrays.npz")


def test_torchscript_is_refused_with_the_way_to_convert_it(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "script.pt")
    assert "torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)" in refusal(tmp_path / "script.pt")


@pytest.mark.parametrize("form", ["zip", "older", "safetensors"])
def test_every_truncation_is_noticed(tmp_path, write, form):
    weights = {"weight": torch.rand(3, 2), "bias": torch.rand(3)}
    if form == "safetensors":
        path = tmp_path / "whole.safetensors"
        safetensors.torch.save_file(weights, path)
    else:
        path = write(weights, _use_new_zipfile_serialization=form == "zip")
    content = path.read_bytes()
    for length in range(1, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"is truncated or damaged|is not a checkpoint|is damaged") as caught:
            read_state_dict(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["zip", "older", "safetensors"])
def test_random_damage_is_refused_or_read_but_never_crashes(tmp_path, write, form):
    """Damage to the numbers themselves cannot be seen; any other must be one line of CheckpointError."""
    weights = {"weight": torch.rand(3, 2), "bias": torch.rand(3)}
    if form == "safetensors":
        path = tmp_path / "whole.safetensors"
        safetensors.torch.save_file(weights, path)
    else:
        path = write({"state_dict": weights}, _use_new_zipfile_serialization=form == "zip")
    content, random_bytes, refused = path.read_bytes(), random.Random(0), []
    for _ in range(200):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[random_bytes.randrange(len(damaged))] = random_bytes.randrange(256)
        path.write_bytes(damaged)
        try:
            read_state_dict(path)
        except CheckpointError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert not any("\n" in message for message in refused)


class Malicious:
    """Its pickle runs a shell command that creates a file."""

    def __init__(self, marker: pathlib.Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"echo > {self.marker}",)


def test_the_malicious_pickle_of_these_tests_does_run_when_unpickled(tmp_path):
    pickle.loads(pickle.dumps(Malicious(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_malicious_checkpoint_does_not_run(tmp_path, write, state, zipped, protocol):
    content = {"state_dict": state, "extra": Malicious(tmp_path / "ran")}
    path = write(content, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    message = refusal(path)
    assert f"asks for {os.system.__module__}.system, which is not part of a plain checkpoint" in message
    assert "nothing in it was run" in message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_bare_pickle_does_not_run(tmp_path, protocol):
    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"state_dict": Malicious(tmp_path / "ran")}, protocol=protocol))
    refusal(path)
    assert not (tmp_path / "ran").exists()


def test_a_malicious_part_of_a_whole_module_is_named_before_the_way_to_convert_it(tmp_path, write):
    path = write({"model": nn.Linear(2, 2), "extra": Malicious(tmp_path / "ran")})
    assert "asks for" in refusal(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [lambda m: m, nn.DataParallel, lambda m: {"epoch": 3, "model": m}])
def test_a_pickled_whole_module_is_refused_with_the_way_to_read_it(write, trained, wrap, zipped):
    message = refusal(write(wrap(trained), _use_new_zipfile_serialization=zipped))
    assert message.startswith("is a pickled whole module, which can only be read by running code from it")
    assert message.endswith("if you trust it, and its class is importable, say so with trust=True")


def test_any_other_object_beside_the_weights_is_named(write, state):
    message = refusal(write({"state_dict": state, "share": fractions.Fraction(1, 3)}))
    assert message.startswith("asks for fractions.Fraction, which is not part of a plain checkpoint")


def test_an_unusual_pickle_protocol_is_not_taken_for_an_attack(write, state):
    assert "of an unusual pickle protocol" in refusal(write(state, pickle_protocol=4))
