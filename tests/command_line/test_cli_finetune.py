"""slimnet finetune: a bundle is trained into another one, over interruptions, with the last or the best weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import slimnet_cli
import torch
from bundles import assert_same_state, lived_in
from runs import TINY
from runs import images as noise

from slimnet.bundle.bundle import load, read_blueprint, save, verify_bundle
from slimnet.models import build
from slimnet.pipeline import slim
from slimnet.training import evaluate
from slimnet.training.finetune import Finetuning

pytestmark = pytest.mark.usefixtures("operators_read_once")

SHORT = ("--iterations", "6", "--batch-size", "5", "--tests", "3", "--device", "cpu", "--threads", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "noise.npz"
    np.savez(path, **{name: getattr(noise(), name).numpy() for name in ("x_train", "y_train", "x_test", "y_test")})
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    slimmed = slim(lived_in(build("basicnet", TINY)).eval(), torch.randn(2, 2, 8, 8))
    return save(slimmed, tmp_path_factory.mktemp("bundles") / "slim", source="net.pt")


def finetune(bundle: Path, data: Path, out: Path, *more: str) -> int:
    return slimnet_cli.run(["finetune", str(bundle), "--data", str(data), "-o", str(out), *SHORT, *more])


@pytest.fixture(scope="module")
def tuned(bundle, data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "tuned"
    assert finetune(bundle, data, out) == 0
    return out


def test_the_network_of_a_bundle_is_trained_into_a_bundle(bundle, tuned):
    """Oracle: the plan and the shapes stay, the weights do not, and the forms agree."""
    assert read_blueprint(tuned).plan == read_blueprint(bundle).plan
    before, after = load(bundle).state_dict(), load(tuned).state_dict()
    assert {name: each.shape for name, each in before.items()} == {name: each.shape for name, each in after.items()}
    assert not torch.equal(before["features.conv1.weight"], after["features.conv1.weight"])
    found = verify_bundle(tuned)
    assert found.certificate.trained_since
    assert not load(tuned).training
    assert [path.name for path in tuned.parent.iterdir()] == [tuned.name], "its state is gone"


def test_what_it_says_is_the_accuracy_of_both_networks(bundle, data, tmp_path, capsys):
    assert finetune(bundle, data, tmp_path / "out", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    for name, place in (("before", bundle), ("after", tmp_path / "out")):
        assert said["accuracy"][name] == evaluate(load(place), noise()).top1
    assert said["iteration"] == 6
    assert [iteration for iteration, _ in said["course"]] == [2, 4, 6]
    assert said["course"][-1][1] == pytest.approx(1 - said["accuracy"]["after"])


@pytest.mark.parametrize("how", ["a signal", "a kill"])
def test_interrupted_it_goes_on_to_the_same_weights(how, bundle, data, tuned, tmp_path, monkeypatch, capsys):
    """A kill leaves the last checkpoint. Oracle: the weights of the fine-tuning that was not interrupted."""
    step = Finetuning.__next__

    def stopped(self):
        progress = step(self)
        if how == "a kill":
            raise KeyboardInterrupt
        self.run.stop()
        return progress

    with monkeypatch.context() as patch:
        patch.setattr(Finetuning, "__next__", stopped)
        assert finetune(bundle, data, tmp_path / "out") == 130
    assert ("the same command resumes" in capsys.readouterr().err) == (how == "a signal")
    assert not (tmp_path / "out").exists()
    assert finetune(bundle, data, tmp_path / "out") == 0
    assert_same_state(load(tmp_path / "out").state_dict(), load(tuned).state_dict())


def test_the_weights_with_the_lowest_error_on_held_out_images_are_kept(bundle, data, tmp_path, capsys):
    assert finetune(bundle, data, tmp_path / "out", "--validate", "0.25", "--lr", "0.3", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    errors = dict(said["course"])
    assert errors[said["iteration"]] == min(errors.values())
    assert said["accuracy"]["after"] == evaluate(load(tmp_path / "out"), noise()).top1


def test_other_settings_than_those_of_an_interrupted_one_name_its_folder(bundle, data, tmp_path, monkeypatch, capsys):
    """A kill leaves its state in a folder with a name of its own; once that is deleted, the command begins anew."""
    kill_after_two_steps(monkeypatch, bundle, data, tmp_path / "out")
    (folder,) = tmp_path.glob("out.*.finetune")
    begun = "the run was begun with iterations 6, not 4"
    held_out = "is not what the run was begun with: its images was 12 and is 9"
    for options, problem in ((("--iterations", "4"), begun), (("--validate", "0.25"), held_out)):
        capsys.readouterr()
        assert finetune(bundle, data, tmp_path / "out", *options) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert f"{folder} holds an interrupted fine-tuning with other settings: " in line
        assert problem in line
        assert "give the same options as then to resume it, or delete that folder to begin anew" in line
    shutil.rmtree(folder)
    assert finetune(bundle, data, tmp_path / "out", "--iterations", "4") == 0


def test_an_interrupted_one_cannot_end_before_its_state(bundle, data, tmp_path, monkeypatch, capsys):
    kill_after_two_steps(monkeypatch, bundle, data, tmp_path / "out", "--constant")
    capsys.readouterr()
    assert finetune(bundle, data, tmp_path / "out", "--constant", "--iterations", "1") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "the checkpoint is of iteration 2 of 1; give the same options as then to resume it" in line


def kill_after_two_steps(monkeypatch, bundle: Path, data: Path, out: Path, *more: str) -> None:
    """Fine-tune for two steps, and leave a checkpoint as a killed process does."""
    step = Finetuning.__next__

    def killed(training: Finetuning) -> None:
        step(training)
        step(training)
        assert training.run.iteration == 2
        training.save()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Finetuning, "__next__", killed)
        assert finetune(bundle, data, out, *more) == 130


def test_what_it_cannot_do_is_refused_in_one_line(bundle, data, tmp_path, capsys):
    def refused(*arguments: object) -> str:
        capsys.readouterr()
        assert slimnet_cli.run(["finetune", *map(str, arguments)]) == 2
        written = capsys.readouterr()
        assert (written.out, written.err.count("\n")) == ("", 1)
        return written.err

    out = ("-o", tmp_path / "out")
    assert "give the labelled images with --data" in refused(bundle, *out)
    assert "that folder is not empty" in refused(bundle, "--data", data, "-o", bundle)
    torch.save(build("basicnet", TINY).state_dict(), tmp_path / "net.pt")
    named = ("--arch", "basicnet", "--arch-args", json.dumps(TINY))
    assert "slimnet train --from" in refused(tmp_path / "net.pt", *named, "--data", data, *out)
    assert "cannot be held out" in refused(bundle, "--data", data, *out, "--validate", "0.01")
    assert "digits" in refused(bundle, "--data", "digits", *out)
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]
