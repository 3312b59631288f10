"""slimnet slim and inspect with --criterion: on the training images that plain hooks see as well, or in one line."""

import json
from pathlib import Path

import pytest
import slimnet_cli
import torch
from networks import lively
from torch import nn

import slimnet.bundle.bundle
from slimnet.data import load_data
from slimnet.models import build
from slimnet.planning.dead_channels import CRITERIA
from slimnet.surgery.plan import SurgeryPlan

ARGS = {"widths": [8, 12], "pool_after": [1], "hidden": 16, "in_channels": 1}
NETWORK = ["--arch", "basicnet", "--arch-args", json.dumps(ARGS)]
ACTIVATION = ["--criterion", "activation", "--data", "digits"]


def said(capsys, *arguments: str) -> tuple[int, str, str]:
    code = slimnet_cli.run([*arguments])
    out, err = capsys.readouterr()
    return code, " ".join(out.split()), " ".join(err.split())


def peaks(model: nn.Module, split: str) -> torch.Tensor:
    """The largest response of each first-layer channel to each image, `(N, C)`, by a hook on its ReLU."""
    seen = []
    relu = next(module for module in model.modules() if isinstance(module, nn.ReLU))
    handle = relu.register_forward_hook(lambda _, __, out: seen.append(out.amax((2, 3))))
    with torch.no_grad():
        for images, _ in load_data("digits").batches(split):
            model(images)
    handle.remove()
    return torch.cat(seen)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two first-layer channels never fire; a third fires on training images alone ("rare"), or test images ("unseen").

    With the number of first-layer channels that are silent on the training images, by hooks.
    """
    folder, found = tmp_path_factory.mktemp("dense"), {}
    for name, only in (("rare", "train"), ("unseen", "test")):
        torch.manual_seed(0)
        model = lively(build("basicnet", ARGS))
        norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
        with torch.no_grad():
            norm.bias[:] = 40.0
            here, there = (peaks(model, split).amax(0) for split in (only, "test" if only == "train" else "train"))
            channel = int((here - there).argmax())
            assert here[channel] > there[channel], "no channel answers this split more than the other"
            norm.bias[channel] -= (here[channel] + there[channel]) / 2
            norm.bias[[c for c in range(8) if c != channel][:2]] = -1e4
        silent = int((peaks(model, "train") == 0).all(0).sum())
        torch.save(model.state_dict(), folder / f"{name}.pt")
        found[name] = (str(folder / f"{name}.pt"), silent)
    return found


def test_inspect_counts_what_is_silent_on_all_training_images(checkpoints, capsys):
    """Oracle: hooks on a plain forward. A channel that fires on a few of 1,438 images is alive."""
    (rare, silent), (unseen, more) = checkpoints["rare"], checkpoints["unseen"]
    assert (silent, more) == (2, 3)
    for path, count in ((rare, silent), (unseen, more)):
        code, out, _ = said(capsys, "inspect", path, *NETWORK, *ACTIVATION, "--json")
        document = json.loads(out)
        assert code == 0
        assert next(layer["dead"] for layer in document["layers"] if "conv1" in layer["name"]) == count
        assert document["criterion"] == "max |a| ≤ 1e-12 on 1,438 examples"


def test_inspect_says_what_dead_means(checkpoints, capsys):
    path, _ = checkpoints["rare"]
    code, out, _ = said(capsys, "inspect", path, *NETWORK, *ACTIVATION)
    assert code == 0
    assert "channels are dead (max |a| ≤ 1e-12 on 1,438 examples), " in out
    assert "threshold" not in out
    code, out, _ = said(capsys, "inspect", path, *NETWORK, "--input-shape", "1,16,16")
    assert code == 0
    assert "0 channels are dead (|γ| < 0.001), 0 can be removed." in out


def test_slim_removes_it_and_certifies_on_the_test_images(checkpoints, capsys, tmp_path, monkeypatch):
    """Oracle: the dense network's own outputs on the test images. What would be written is taken before it is."""
    monkeypatch.setattr(slimnet_cli.output.terminal, "SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setattr(slimnet_cli.output.phases, "FIRST_LINE", 0)
    path, silent = checkpoints["rare"]
    made = []
    monkeypatch.setattr(
        slimnet.bundle.bundle, "save", lambda slimmed, folder, **_: made.append(slimmed) or Path(folder)
    )
    code, out, err = said(capsys, "slim", path, *NETWORK, *ACTIVATION, "-o", str(tmp_path / "slim"))
    assert code == 0
    assert "dead: max |a| ≤ 1e-12 on 1,438 examples" in out
    assert "finding and cutting dead channels 100 %, 1,438 of 1,438 images" in err
    (slimmed,) = made
    plan = slimmed.plan
    assert plan.criterion == "max |a| ≤ 1e-12 on 1,438 examples"
    assert slimmed.certificate.samples == 359
    dense, narrow = build("basicnet", ARGS).eval(), slimmed.model
    dense.load_state_dict(torch.load(path))
    assert next(narrow.parameters()).shape[0] == ARGS["widths"][0] - silent
    with torch.no_grad():
        for images, _ in load_data("digits").batches("test"):
            torch.testing.assert_close(narrow(images), dense(images), rtol=1e-4, atol=1e-4)
    code, out, _ = said(capsys, "slim", path, *NETWORK, *ACTIVATION, "--dry-run", "--json")
    assert code == 0
    assert SurgeryPlan.from_json(out) == plan


def test_a_channel_that_wakes_on_test_images_is_reported_and_nothing_is_written(checkpoints, capsys, tmp_path):
    path, _ = checkpoints["unseen"]
    code, out, err = said(
        capsys, "slim", path, *NETWORK, *ACTIVATION, "--tolerance", "1e-9", "-o", str(tmp_path / "slim")
    )
    assert (code, out) == (1, "")
    assert err.startswith("error: certificate does NOT hold")
    assert "find dead channels on more data" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--criterion", "activations"],
            "error: there is no criterion 'activations'; did you mean activation? (gamma, ",
        ),
        (["--criterion", "activation"], "error: criterion activation is measured on data; pass --data"),
    ],
)
def test_misuse_is_one_line_before_anything_is_read(arguments, message, capsys, tmp_path):
    (tmp_path / "empty.pt").touch()
    for command in (["inspect"], ["slim", "--dry-run"], ["slim", "-o", str(tmp_path / "slim")]):
        code, out, err = said(capsys, *command, str(tmp_path / "empty.pt"), *NETWORK, *arguments)
        assert (code, out) == (2, "")
        assert err.startswith(message)


def test_a_budget_takes_gamma_alone(capsys, tmp_path):
    (tmp_path / "empty.pt").touch()
    line = ["slim", str(tmp_path / "empty.pt"), *NETWORK, *ACTIVATION, "--target-macs", "0.5"]
    line += ["-o", str(tmp_path / "slim")]
    code, out, err = said(capsys, *line)
    assert (code, out) == (2, "")
    assert "a budget needs --criterion gamma, not activation" in err


@pytest.mark.parametrize("command", ["slim", "inspect"])
def test_help_names_every_criterion_and_the_images(command, capsys):
    _, out, _ = said(capsys, command, "--help")
    option = out.partition("--criterion TEXT")[2].partition("--threshold FLOAT")[0]
    assert all(name in option for name in CRITERIA)
    assert "all training images of --data" in option
