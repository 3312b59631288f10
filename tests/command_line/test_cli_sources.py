"""Where commands take a network from: a checkpoint, a run that knows its network and images, or a bundle."""

import json
import shutil
from pathlib import Path

import pytest
import slimnet_cli
import torch
from bundles import ARGS, SHAPE, basic_net, coded_net, images
from runs import TINY, write_run

from slimnet.bundle.bundle import load, read_blueprint, read_certificate, save, verify_bundle
from slimnet.models import build
from slimnet.pipeline import slim

pytestmark = pytest.mark.usefixtures("operators_read_once")

ARCH = ("--arch", "basicnet", "--arch-args", json.dumps(TINY))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a finished run on random images; one channel of each BatchNorm is dead in its model."""
    return write_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """The bundle of a network of 8 × 8 images in one channel."""
    return save(slim(basic_net(), torch.randn(2, *SHAPE)), tmp_path_factory.mktemp("bundles") / "slim")


def refused(arguments: list[str], capsys) -> str:
    """The one line with which the command line refuses a request."""
    capsys.readouterr()
    assert slimnet_cli.run(arguments) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.count("\n") == 1
    return written.err


@pytest.mark.parametrize("named", ["the folder", "its model"])
def test_a_run_is_slimmed_as_its_checkpoint_with_everything_said(named, run, tmp_path):
    """Oracle: the same command with architecture, arguments and images written out."""
    source = run if named == "the folder" else run / "model.pt"
    assert slimnet_cli.run(["slim", str(source), "-o", str(tmp_path / "short")]) == 0
    copied = shutil.copy(run / "model.pt", tmp_path / "net.pt")
    said = [*ARCH, "--data", str(run.parent / "noise.npz")]
    assert slimnet_cli.run(["slim", str(copied), *said, "-o", str(tmp_path / "long")]) == 0
    short, long = (tmp_path / name for name in ("short", "long"))
    assert read_blueprint(short).plan == read_blueprint(long).plan
    assert read_certificate(short) == read_certificate(long)
    assert read_certificate(short).accuracies is not None
    assert read_blueprint(short).plan.removed_channels


def test_a_run_without_its_images_is_slimmed_on_random_inputs(run, tmp_path, capsys):
    """Of the shape that the command line gives."""
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    recipe = json.loads((folder / "recipe.json").read_text()) | {"data": str(tmp_path / "moved.npz")}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    assert slimnet_cli.run(["inspect", str(folder), "--input-shape", "2,8,8", "--json"]) == 0
    written = capsys.readouterr()
    assert f"the run's images are not used: {tmp_path / 'moved.npz'}: there is no such file" in written.err
    assert json.loads(written.out)["removable_channels"] > 0


def test_a_bundle_is_inspected_with_the_inputs_it_was_saved_with(bundle, capsys):
    assert slimnet_cli.run(["inspect", str(bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    widths = {layer["name"]: layer["channels"] for layer in found["layers"]}
    assert widths == {layer.name: layer.channels_after for layer in read_blueprint(bundle).plan.layers}


def test_a_bundle_is_slimmed_to_a_budget_and_is_a_bundle_again(bundle, tmp_path):
    """Oracle: one plan for the dense network, whose remaining MACs are within half of the first bundle's."""
    half = tmp_path / "half"
    assert slimnet_cli.run(["slim", str(bundle), "--target-macs", "0.5", "-o", str(half)]) == 0
    first, second = read_blueprint(bundle).plan, read_blueprint(half).plan
    assert second.macs_before == first.macs_before
    assert second.macs_after <= first.macs_after / 2
    assert verify_bundle(half).certified
    assert load(half)(torch.randn(2, *SHAPE)).shape == (2, ARGS["num_classes"])


def test_a_bundle_is_the_first_of_a_ladder(bundle, tmp_path, capsys):
    assert slimnet_cli.run(["ladder", str(bundle), "--steps", "0.5", "-o", str(tmp_path / "ladder"), "--json"]) == 0
    dense, exact, half = json.loads(capsys.readouterr().out)["rungs"]
    assert dense["macs"] == exact["macs"] == read_blueprint(bundle).plan.macs_after
    assert half["macs"] <= dense["macs"] / 2
    assert load(tmp_path / "ladder" / half["name"])


def test_methods_are_compared_on_a_run(run, capsys):
    arguments = ["compare", str(run), "--methods", "li2017", "--budget", "0.5", "--unit", "channels", "--json"]
    assert slimnet_cli.run(arguments) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 12


def test_a_bundle_of_code_is_built_where_it_is_trusted(tmp_path, capsys):
    folder = save(slim(coded_net(), images()), tmp_path / "coded")
    assert "would import and call bundles:small_factory" in refused(["inspect", str(folder)], capsys)
    assert slimnet_cli.run(["inspect", str(folder), "--trust"]) == 0
    named = ["--arch", "bundles:small_factory", "--arch-args", '{"width": 5}']
    assert slimnet_cli.run(["inspect", str(folder), *named]) == 0


@pytest.mark.parametrize("command", ["slim", "inspect", "ladder", "compare", "analyse"])
def test_a_folder_that_is_neither_is_refused(command, tmp_path, capsys):
    more = ["-o", str(tmp_path / "out")] if command in ("slim", "ladder") else []
    line = refused([command, str(tmp_path), *more], capsys)
    assert f"{tmp_path} is neither a bundle (it has no manifest.json) nor the folder of a run (no recipe.json)" in line


def test_what_a_folder_says_is_not_said_again(run, bundle, capsys):
    line = refused(["inspect", str(run), "--arch", "vgg16"], capsys)
    assert "is a run and names its network, basicnet; leave --arch, --arch-args and --weights out" in line
    line = refused(["inspect", str(bundle), "--weights", "ema"], capsys)
    assert "is a bundle and holds one set of weights; leave --weights out" in line


def test_a_shape_that_is_assumed_is_announced_and_of_user_code_none_is(tmp_path, capsys):
    torch.save(build("resnet20").state_dict(), tmp_path / "net.pt")
    assert slimnet_cli.run(["inspect", str(tmp_path / "net.pt"), "--arch", "resnet20", "--json"]) == 0
    assert "inputs of 3 × 32 × 32 (C × H × W) are assumed, as is usual for resnet20" in capsys.readouterr().err
    torch.save(coded_net().state_dict(), tmp_path / "own.pt")
    named = ["inspect", str(tmp_path / "own.pt"), "--arch", "bundles:small_factory", "--arch-args", '{"width": 5}']
    line = refused(named, capsys)
    assert "the inputs of bundles:small_factory are not known; give their shape with --input-shape C,H,W" in line
    assert slimnet_cli.run([*named, "--input-shape", "2,6,6"]) == 0
    assert "assumed" not in capsys.readouterr().err
