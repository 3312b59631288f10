"""Runs whose data is elsewhere by now: resumed with its new place, and found from any working directory."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import slimnet_cli
import torch
from runs import TINY, images, same, write_npz

from slimnet.data.sources import absolute_source, place_of, short_source
from slimnet.training.run.run_folder import recipe_of

OPTIONS = ("--arch", "basicnet", "--arch-args", json.dumps(TINY), "--batch-size", "5", "--no-report")


def train(*arguments: object) -> int:
    return slimnet_cli.run(["train", *map(str, arguments)])


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "model.pt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """A run of two iterations, and its data beside it."""
    place = tmp_path_factory.mktemp("begun")
    assert train(write_npz(place / "noise.npz", images()), *OPTIONS, "--iterations", 2, "-o", place / "run") == 0
    return place / "run"


@pytest.fixture
def moved(begun, tmp_path) -> Path:
    """A copy of the run, with its data at `tmp_path / "there.npz"`, and nothing at its old place."""
    folder = Path(shutil.copytree(begun, tmp_path / "run"))
    recipe = dataclasses.replace(recipe_of(begun), data=str(tmp_path / "gone.npz"))
    (folder / "recipe.json").write_text(recipe.to_json())
    shutil.copy(begun.parent / "noise.npz", tmp_path / "there.npz")
    return folder


def refused(capsys, *arguments: object) -> str:
    """The last line of a training that is refused."""
    capsys.readouterr()
    assert train(*arguments) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_run_goes_on_with_its_data_in_another_place(begun, moved, tmp_path, capsys):
    """Oracle: a run that was never interrupted, bit for bit. The new place is remembered."""
    there = tmp_path / "there.npz"
    assert train(there, *OPTIONS, "--iterations", 5, "--drops", 1, "-o", tmp_path / "whole") == 0
    capsys.readouterr()
    assert train("--resume", moved, there, "--iterations", 4, "--no-report") == 0
    assert f"the run's data is {there} from now on; it was {tmp_path / 'gone.npz'}" in capsys.readouterr().err
    assert recipe_of(moved).data == str(there)
    assert train("--resume", moved, "--iterations", 5, "--no-report") == 0
    assert same(weights(moved), weights(tmp_path / "whole"))


def test_results_of_a_finished_run_stay_where_only_its_data_has_moved(moved, tmp_path, capsys):
    assert train("--resume", moved, tmp_path / "there.npz", "--no-report") == 0
    assert not list(moved.glob("model_*.pt"))
    assert "iterations instead of" not in capsys.readouterr().err


def test_data_that_is_gone_is_an_error_with_the_remedy(moved, tmp_path, capsys):
    line = refused(capsys, "--resume", moved)
    assert f"{tmp_path / 'gone.npz'}: the run's data is not there; if it has moved, name its new place" in line
    assert line.endswith(f"slimnet train --resume {moved} DATA")


def relabelled():
    data = images()
    return dataclasses.replace(data, y_train=data.y_train.flip(0))


def reordered():
    """Images and labels of the same statistics in another order, in which a run would take other steps."""
    data = images()
    return dataclasses.replace(data, x_train=data.x_train.roll(3, 0), y_train=data.y_train.roll(3, 0))


OTHERS = {
    "more": (lambda: images(15), "its images was 12 and is 15"),
    "relabelled": (relabelled, "labels or pixels are others, or in another order"),
    "reordered": (reordered, "labels or pixels are others, or in another order"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_data_is_refused_and_not_remembered(kind, moved, tmp_path, capsys):
    make, message = OTHERS[kind]
    line = refused(capsys, "--resume", moved, write_npz(tmp_path / "other.npz", make()))
    assert f"other.npz is not what the run was begun with: {message}" in line
    assert "name the data that it was begun with, or begin a new run" in line
    assert recipe_of(moved).data == str(tmp_path / "gone.npz")


def test_a_run_without_a_checkpoint_compares_what_its_folder_says(moved, tmp_path, capsys):
    shutil.rmtree(moved / "checkpoints")
    line = refused(capsys, "--resume", moved, write_npz(tmp_path / "other.npz", images(15)))
    assert f"other.npz is not what the run in {moved} was begun with" in line
    (moved / "images.json").rename(tmp_path / "images.json")
    assert "which is not known; begin a new run" in refused(capsys, "--resume", moved, tmp_path / "there.npz")
    (tmp_path / "images.json").rename(moved / "images.json")
    assert train("--resume", moved, tmp_path / "there.npz", "--no-report") == 0


def test_a_relative_path_is_found_from_another_directory(begun, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(begun.parent / "noise.npz", tmp_path / "noise.npz")
    monkeypatch.chdir(tmp_path)
    assert train("noise.npz", *OPTIONS, "--iterations", 2, "-o", "run") == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert train("--resume", "../run", "--iterations", 3, "--no-report") == 0
    assert train("--resume", "../run", "../noise.npz", "--iterations", 4, "--no-report") == 0
    assert place_of(recipe_of(tmp_path / "run").data).resolve() == tmp_path / "noise.npz"


def test_names_of_data_sets_stay_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    (tmp_path / "photos").mkdir()
    sources = ("digits", "cifar10", "cifar100:photos", "photos", "photos/", "letters", "nothing.npz")
    found = [absolute_source(source) for source in sources]
    photos = str(tmp_path / "photos")
    assert found == ["digits", "cifar10", f"cifar100:{photos}", photos, photos, "letters", "nothing.npz"]
    assert [short_source(source) for source in found[:4]] == ["digits", "cifar10", "cifar100", "photos"]
