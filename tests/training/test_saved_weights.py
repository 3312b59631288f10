"""Weights that are saved during training: readable, replaced as a whole, and never half-written."""

import os
import resource
from pathlib import Path

import pytest
import torch
from runs import TINY, finished, images, recipe, same
from torch import nn

from slimnet.checkpoint import load_checkpoint
from slimnet.errors import CheckpointError
from slimnet.training import Recipe, save_checkpoint, train

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_checkpoint_is_read_safely_by_torch_and_by_slimnet(tmp_path):
    run = train(recipe(), images())
    finished(run)
    path = save_checkpoint(run.model, tmp_path / "last.pt", run.recipe, run.iteration)
    content = torch.load(path, weights_only=True)
    assert Recipe.from_json(content["recipe"]) == run.recipe
    assert content["iteration"] == 7
    assert same(run.model.state_dict(), content["state_dict"])
    assert all(tensor.is_contiguous() for tensor in content["state_dict"].values())
    assert same(run.model.state_dict(), load_checkpoint(path, "basicnet", TINY).state_dict())


def test_a_checkpoint_replaces_the_last_one_and_leaves_nothing_else(tmp_path):
    model = train(recipe(), images()).model
    for iteration in (1, 2):
        save_checkpoint(model, tmp_path / "last.pt", recipe(), iteration)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert torch.load(tmp_path / "last.pt", weights_only=True)["iteration"] == 2


@pytest.fixture
def no_room_for_files():
    """Files may not grow beyond 1 kB, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_checkpoint_alone(tmp_path, no_room_for_files):
    path = tmp_path / "last.pt"
    path.write_bytes(b"old")
    with pytest.raises(CheckpointError, match=r"cannot write .*last\.pt: .+; free disk space, or choose another path"):
        save_checkpoint(train(recipe(), images()).model, path, recipe(), 1)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["last.pt"]


@pytest.mark.parametrize("where", ["missing/last.pt", "file/last.pt", "."])
def test_a_place_that_cannot_be_written_is_named(tmp_path, where):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot write \S+: .+; \w+") as caught:
        save_checkpoint(nn.Linear(1, 1), Path(tmp_path, where), recipe(), 1)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["file"]
