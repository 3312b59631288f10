"""Unfinished runs in one file: another machine goes on where this one stopped."""

import dataclasses
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import unfinished

from slimnet.errors import UsageError
from slimnet.reproduction.catalogue import entry
from slimnet.reproduction.scales import recipe_of
from slimnet.reproduction.variation import Variation
from slimnet.training import Recipe
from slimnet.training.run.checkpoints import newest

CELL = "table4-32-0.25x-cifar10"
RECORD = '{"iteration": 20, "total": 400, "sparsity": 0.25, "macs": 8, "macs_left": 4}\n'


def run_folder(path, recipe):
    """The folder of a run with one checkpoint and one line of its record."""
    (path / "checkpoints").mkdir(parents=True)
    (path / "recipe.json").write_text(recipe.to_json())
    (path / "metrics.jsonl").write_text(RECORD)
    (path / "lock").touch()
    state = {"recipe": recipe.to_json(), "iteration": 20, "state_dict": {"weight": torch.arange(3.0)}}
    torch.save(state, path / "checkpoints" / "00000020.pt")
    return path


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """A run of a network of the paper, packed, and its recipe without a path of images."""
    monkeypatch.setattr(unfinished, "FOLDER", tmp_path / "unfinished")
    recipe = recipe_of(entry("table4", "32-0.25x", "cifar10"), "full", variation=Variation(precision="bf16"))
    own = dataclasses.replace(recipe, data=str(tmp_path / "somewhere" / "cifar10.npz"))
    return unfinished.pack(run_folder(tmp_path / "run", own), CELL), recipe


def test_a_run_is_packed_without_a_path_and_unpacked_for_the_images_here(packed, tmp_path, monkeypatch):
    """Oracle: the files of the run as they were, but for the path of the images, which holds in any working folder."""
    archive, recipe = packed
    with tarfile.open(archive) as file:
        contents = b"".join(file.extractfile(member).read() for member in file.getmembers())
        assert "lock" not in file.getnames()
    assert str(tmp_path).encode() not in contents
    root = tmp_path / "images"
    root.mkdir()
    np.savez(root / "cifar10.npz", x=np.zeros(1))
    monkeypatch.chdir(tmp_path)
    folder = unfinished.unpack(CELL, Path("images"), tmp_path / "out")
    placed = Recipe.from_json((folder / "recipe.json").read_text())
    assert placed == dataclasses.replace(recipe, data=str(root / "cifar10.npz"))
    found = newest(folder / "checkpoints")
    assert torch.equal(found.state["state_dict"]["weight"], torch.arange(3.0))
    assert Recipe.from_json(found.state["recipe"]) == placed
    assert (folder / "metrics.jsonl").read_text() == RECORD
    line = unfinished.lines()[0]
    assert f"{CELL}, 20 of 400 iterations, 25 % of the filters dead by γ, 50 % of the MACs left" in line


def test_a_run_that_has_removed_nothing_yet_has_all_its_macs(tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "FOLDER", tmp_path / "unfinished")
    folder = run_folder(tmp_path / "run", recipe_of(entry("table4", "32-0.25x", "cifar100"), "full"))
    (folder / "metrics.jsonl").write_text('{"iteration": 20, "total": 400, "sparsity": 0.0, "macs": 8}\n')
    unfinished.pack(folder, "table4-32-0.25x-cifar100")
    assert "0 % of the filters dead by γ, 100 % of the MACs left" in unfinished.lines()[0]


def test_a_run_without_a_checkpoint_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "FOLDER", tmp_path / "unfinished")
    recipe = recipe_of(entry("table4", "32-0.25x", "cifar10"), "full")
    folder = run_folder(tmp_path / "run", recipe)
    (folder / "checkpoints" / "00000020.pt").unlink()
    with pytest.raises(UsageError, match="has no checkpoint"):
        unfinished.pack(folder, CELL)
    assert not (tmp_path / "unfinished").exists()
