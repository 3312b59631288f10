"""slimnet analyse: which network and data it takes, what it says of them, and what it refuses."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from runs import TINY, images
from slimnet_cli.commands.analyse import analyse as command
from slimnet_cli.commands.analyse import sparks
from torch import nn

from slimnet.data import ImageData, load_data
from slimnet.errors import CheckpointError, DataError, UsageError
from slimnet.models import build
from slimnet.training import Recipe, save_checkpoint
from slimnet.training.analysis.universality import analyse
from slimnet.training.loop.training_run import train
from slimnet.training.run.checkpoints import save
from slimnet.training.run.resumable_run import KeptRun
from slimnet.training.run.run_folder import create_run

ARCH = ("--arch", "basicnet", "--arch-args", json.dumps(TINY))


def write(data: ImageData, path) -> str:
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(path, **{name: getattr(data, name).numpy() for name in names})
    return str(path)


def network() -> nn.Module:
    """A BasicNet in which the first channel of every BatchNorm is dead."""
    torch.manual_seed(1)
    model = build("basicnet", TINY)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data[0] = 1e-6
            module.bias.data[0] = -1.0
    return model


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write(images(), tmp_path_factory.mktemp("data") / "noise.npz")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("checkpoint") / "net.pt"
    torch.save(network().state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory, data) -> str:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    recipe = Recipe(arch="basicnet", arch_args=TINY, data=data, iterations=6, batch_size=5, gamma_init=1.5e-3, lr=2e-4)
    with create_run(folder, recipe) as held:
        kept = KeptRun(held, lambda state: train(recipe, load_data(data), threads=1, every=2, state=state))
        for _ in kept:
            pass
        kept.close()
    return str(folder)


def said(*arguments: str) -> str:
    result = CliRunner().invoke(command, [*arguments, "--device", "cpu"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout.replace("\u202f", " ")


def refused(*arguments: str) -> str:
    """The one line that a misuse is answered with."""
    result = CliRunner().invoke(command, [*arguments])
    if isinstance(result.exception, UsageError):
        return str(result.exception)
    assert result.exit_code == 2, result.output
    return result.stderr


def test_a_checkpoint_gives_a_row_for_every_layer(checkpoint, data):
    """Oracle: one dead channel of four and one of six, by construction, and so silent behind a ReLU."""
    lines = [line.split() for line in said(checkpoint, *ARCH, "--data", data).splitlines()]
    assert lines[1][:7] == ["features.conv1", "4", "1", "25", "%", "1", "25"]
    assert lines[2][:7] == ["features.conv2", "6", "1", "17", "%", "1", "17"]
    assert lines[3] == ["together", "10", "20", "%", "20", "%"]
    assert "12 training images of noise" in " ".join(lines[-2])
    assert lines[-1][:4] == ["next:", "slimnet", "slim", checkpoint]


def test_json_is_the_analysis(checkpoint, data):
    """Oracle: the library's own answer."""
    document = json.loads(said(checkpoint, *ARCH, "--data", data, "--json"))
    found = analyse(network(), load_data(data))
    assert document["sparsity_by_gamma"] == found.sparsity_by_gamma == 0.2
    assert document["sparsity_by_activation"] == found.sparsity_by_activation
    assert [tuple(layer["universalities"]) for layer in document["layers"]] == [
        layer.universalities for layer in found.layers
    ]
    assert document["layers"][0]["dead_by_gamma"] == document["layers"][0]["dead_by_activation"] == 1
    assert document["layers"][0]["norm"] == "features.bn1"


def test_a_run_knows_its_network_and_its_data(run, data):
    document = json.loads(said(run, "--json"))
    assert (document["data"], document["images"]) == ("noise.npz", 12)
    assert document["sparsity_by_gamma"] > 0
    assert document == json.loads(said(run, "--data", data, "--json"))


def test_a_run_can_be_looked_at_on_other_images(run, tmp_path):
    other = write(images(9), tmp_path / "other.npz")
    assert json.loads(said(run, "--data", other, "--json"))["images"] == 9


def test_a_run_that_goes_on_is_looked_at_at_its_newest_checkpoint(run, data, tmp_path):
    folder = tmp_path / "going"
    recipe = Recipe(arch="basicnet", arch_args=TINY, data=data, iterations=600)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "recipe.json").write_text(recipe.to_json())
    assert "has no checkpoint yet" in refused(str(folder))
    other = build("basicnet", TINY)
    for iteration, model in ((99, other), (100, network())):
        save(folder / "checkpoints", {"state_dict": model.state_dict(), "iteration": iteration})
    result = CliRunner().invoke(command, [str(folder), "--json", "--device", "cpu"])
    assert "00000100.pt" in result.stderr
    assert json.loads(result.stdout)["sparsity_by_gamma"] == 0.2
    save_checkpoint(other, folder / "model.pt", recipe, 600)
    assert json.loads(said(str(folder), "--json"))["sparsity_by_gamma"] == 0


def test_the_report_of_a_run_has_its_figures(run, tmp_path):
    said(run, "--report", str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="universality"' in page
    assert "Test error" in page


def test_images_of_a_folder_are_brought_to_a_size(checkpoint, tmp_path):
    """Red squares of 12 pixels; the network, which is for two channels, is offered three of 8 × 8."""
    from PIL import Image

    for split in ("train", "test"):
        for name, colour in (("dark", 10), ("light", 240)):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            Image.new("RGB", (12, 12), (colour, 0, 0)).save(tmp_path / "photos" / split / name / "one.png")
    arguments = [checkpoint, *ARCH, "--data", str(tmp_path / "photos"), "--cache", str(tmp_path / "cache")]
    result = CliRunner().invoke(command, [*arguments, "--image-size", "8", "--device", "cpu"])
    assert isinstance(result.exception, DataError)
    assert "3 x 8 x 8" in str(result.exception)


def test_what_is_missing_or_too_much_is_said(run, checkpoint, data, tmp_path):
    assert "give the training images with --data" in refused(checkpoint, *ARCH)
    assert "name its network with --arch" in refused(checkpoint, "--data", data)
    assert "leave --arch, --arch-args and --weights out" in refused(run, *ARCH)
    assert "only a run has a report" in refused(checkpoint, *ARCH, "--data", data, "--report", "x.html")
    assert "is neither a bundle (it has no manifest.json) nor the folder of a run" in refused(str(tmp_path))
    assert "no device 'teapot'" in refused(run, "--device", "teapot")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("{checkpoint}", *ARCH, "--data", "digits"), DataError),
        (("{checkpoint}", "--arch", "resnet20", "--data", "digits"), CheckpointError),
    ],
)
def test_what_does_not_fit_is_refused_by_the_library(arguments, error, checkpoint):
    given = [argument.replace("{checkpoint}", checkpoint) for argument in arguments]
    result = CliRunner().invoke(command, given)
    assert isinstance(result.exception, error)


def test_a_network_without_convolutions_has_nothing_to_show(tmp_path, data):
    torch.save(Flat().state_dict(), tmp_path / "flat.pt")
    printed = said(str(tmp_path / "flat.pt"), "--arch", "test_cli_analyse:Flat", "--data", data)
    assert printed.startswith("The network has no convolution features.\n")


class Flat(nn.Sequential):
    """A classifier of pixels."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(128, 3))


def test_sparks_are_counts_of_tenths():
    """Oracle: by hand; the fullest tenth is a whole block, one of eight is the lowest, nothing is a space."""
    assert sparks((0.0, 0.05, 1.0) + (0.95,) * 7) == "▁        █"
    assert sparks((0.25, 0.35, 0.35)) == "  ▄█      "
    assert sparks((0.0, 0.0)) == ""
