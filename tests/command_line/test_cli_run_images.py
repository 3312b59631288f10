"""What a run says of its images: every command that reads the run uses it, also where the data is gone."""

import json
import shutil
from pathlib import Path

import onnx
import pytest
import slimnet_cli
import torch
from runs import TINY, write_run
from runs import images as noise

from slimnet.bundle.bundle import read_blueprint
from slimnet.counting import count_network
from slimnet.data import load_data
from slimnet.errors import UsageError
from slimnet.models import build
from slimnet.storage.written_folders import RUN
from slimnet.training.run.images_file import read_images

pytestmark = pytest.mark.usefixtures("operators_read_once")

USUAL = "inputs of 2 × 32 × 32 (C × H × W) are assumed"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a finished run on images of 2 × 8 × 8."""
    return write_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def moved(run, tmp_path) -> Path:
    """The same run on data that is no longer there."""
    folder = Path(shutil.copytree(run, tmp_path / "moved"))
    recipe = json.loads((folder / "recipe.json").read_text()) | {"data": str(tmp_path / "gone.npz")}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return folder


@pytest.fixture(scope="module")
def macs() -> int:
    """MACs of the run's network on its images, counted by fvcore."""
    return count_network(build("basicnet", TINY).eval(), torch.randn(1, 2, 8, 8)).macs


def output_of(capsys, *arguments: object) -> tuple[str, str]:
    """What a command that succeeds writes to stdout and to stderr."""
    capsys.readouterr()
    assert slimnet_cli.run(list(map(str, arguments))) == 0
    written = capsys.readouterr()
    return written.out, written.err


def test_a_run_describes_the_images_that_it_was_trained_on(run):
    assert read_images(run) == noise().spec


def test_the_plan_that_is_shown_is_for_the_images_of_the_run(run, macs, capsys):
    shown, notes = output_of(capsys, "slim", run, "--dry-run", "--json")
    assert json.loads(shown)["macs_before"] == macs
    assert "assumed" not in notes


def test_an_exported_run_states_its_images(moved, tmp_path, capsys):
    """Also where the data is gone."""
    output_of(capsys, "export", moved, "-o", tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    assert [each.dim_value for each in dimensions[1:]] == [2, 8, 8]
    stated = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(stated["image_mean"]) == list(noise().mean)
    assert json.loads(stated["image_std"]) == list(noise().std)
    assert json.loads(stated["image_size"]) == [8, 8]
    assert json.loads(stated["class_names"]) == list(noise().spec.classes)


def test_bytes_are_preprocessed_as_the_run_says(moved, tmp_path, capsys):
    """Without --normalise: the normalisation of the run is known."""
    output_of(capsys, "export", moved, "-o", tmp_path / "net.onnx", "--with-preprocessing")
    (moved / "images.json").unlink()
    arguments = ["export", str(moved), "-o", str(tmp_path / "other.onnx"), "--with-preprocessing"]
    assert slimnet_cli.run(arguments) == 2
    assert "it is not known how the network's images are normalised" in capsys.readouterr().err


def test_a_census_counts_a_run_on_its_images(moved, macs, capsys):
    (row,) = json.loads(output_of(capsys, "census", moved, "--json")[0])["checkpoints"]
    assert row["macs"][0] == macs


def test_a_run_is_slimmed_for_its_images_where_they_are_gone(moved, macs, tmp_path, capsys):
    _, notes = output_of(capsys, "slim", moved, "--round", "none", "-o", tmp_path / "slim")
    assert "the run's images are not used" in notes
    assert "assumed" not in notes
    blueprint = read_blueprint(tmp_path / "slim")
    assert blueprint.plan.macs_before == macs
    assert blueprint.images == noise().spec


def test_runs_are_measured_on_inputs_of_their_images(moved, macs, capsys):
    arguments = ("benchmark", moved, f"same={moved}", "--runtime", "torch", "--seconds", "0.02", "--batch", "1")
    found = json.loads(output_of(capsys, *arguments, "--threads", "1", "--json")[0])
    assert {each["macs"] for each in found["counts"]} == {macs}


def test_a_shape_on_the_command_line_goes_before(moved, tmp_path, capsys):
    output_of(capsys, "export", moved, "--input-shape", "2,16,16", "-o", tmp_path / "net.onnx")
    stated = {entry.key: entry.value for entry in onnx.load(tmp_path / "net.onnx").metadata_props}
    assert json.loads(stated["image_size"]) == [16, 16]


def test_other_images_are_normalised_as_those_of_the_run(run, tmp_path, capsys):
    """Oracle: --normalise with the numbers of the run."""
    other = shutil.copy(run.parent / "noise.npz", tmp_path / "other.npz")
    numbers = noise().spec.normalisation
    shown, _ = output_of(capsys, "inspect", run, "--data", other)
    assert f"--normalise {numbers}" in shown.replace("\n", " ")


def without_images(run: Path) -> Path:
    """A run of an earlier slimnet, which does not describe its images."""
    (run / "images.json").unlink(missing_ok=True)
    return run


def test_images_of_an_older_run_are_those_of_its_data(run, macs, tmp_path, capsys):
    older = without_images(Path(shutil.copytree(run, tmp_path / "older")))
    shown, notes = output_of(capsys, "slim", older, "--dry-run", "--json")
    assert json.loads(shown)["macs_before"] == macs
    assert "assumed" not in notes


def test_the_usual_shape_is_announced_for_an_older_run_whose_data_is_gone(moved, capsys):
    _, notes = output_of(capsys, "slim", without_images(moved), "--dry-run", "--json")
    assert USUAL in notes


DAMAGED = {
    "{": "is not JSON",
    "[]": "images.json",
    '{"mean": [0.5], "std": [0.0], "image_size": [8, 8]}': "std",
    '{"mean": [0.5], "std": [0.5], "image_size": [8, 8], "more": 1}': "more",
    '{"mean": [0.5, 0.5], "std": [0.5], "image_size": [8, 8]}': "mean has 2 numbers and std 1",
    '{"mean": [0.5], "std": [0.5], "image_size": [100000, 100000]}': "more than 67,108,864 numbers",
}


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_description_is_refused_in_one_line(text, moved, capsys):
    (moved / "images.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_images(moved)
    assert DAMAGED[text] in str(caught.value)
    capsys.readouterr()
    assert slimnet_cli.run(["export", str(moved), "-o", str(moved.parent / "net.onnx")]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"{moved / 'images.json'}" in line
    assert "delete it; the run is then read without it" in line


def test_a_run_that_goes_on_describes_its_images_again(run, tmp_path, capsys):
    """Also one of an earlier slimnet, or with a damaged description."""
    folder = Path(shutil.copytree(run, tmp_path / "copy"))
    (folder / "images.json").write_text("{")
    output_of(capsys, "train", "--resume", folder, "--no-report")
    assert read_images(folder) == load_data(str(run.parent / "noise.npz")).spec


def test_a_run_with_its_description_is_replaced_by_force(run):
    """Nothing in its folder is foreign."""
    assert (run / "images.json").exists()
    RUN.refuse_foreign(run, UsageError)


def test_a_bundle_is_compared_with_the_run_that_it_was_made_from(run, moved, tmp_path, capsys):
    slim, checkpoint = tmp_path / "slim", tmp_path / "net.pt"
    output_of(capsys, "slim", run, "-o", slim)
    shutil.copy(run / "model.pt", checkpoint)
    found = [
        json.loads(output_of(capsys, "verify", slim, "--dense", dense, "--json")[0])["measured"]
        for dense in (run, run / "model.pt", checkpoint)
    ]
    assert found[0] == found[1] == found[2]
    assert found[0]["holds"]
    other = tmp_path / "other"
    shutil.copytree(moved, other)
    recipe = json.loads((other / "recipe.json").read_text())
    (other / "recipe.json").write_text(json.dumps(recipe | {"arch_args": recipe["arch_args"] | {"hidden": 5}}))
    assert slimnet_cli.run(["verify", str(slim), "--dense", str(other)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_run_is_measured_beside_a_file(run, macs, tmp_path, capsys):
    """The run is exported for that; its MACs are then counted by the shapes of the graph."""
    output_of(capsys, "export", run, "-o", tmp_path / "net.onnx")
    quick = ["--seconds", 0.02, "--batch", 1, "--threads", 1, "--runtime", "onnxruntime"]
    found = json.loads(output_of(capsys, "benchmark", run, tmp_path / "net.onnx", *quick, "--json")[0])
    assert [each["macs"] for each in found["counts"]] == [macs, macs]
    assert [each["runtime"] for each in found["latencies"]] == ["onnxruntime"]
