"""Labelled images on the command line: normalised as one says, for whatever they are used."""

import json
from pathlib import Path

import pytest
import slimnet_cli
import torch
from cifar import checkpoint_file, load_cifar10_test, predictions
from test_cli_targets import ARGS, NETWORK
from torch import nn

from slimnet.bundle.bundle import read_blueprint
from slimnet.data import load_data
from slimnet.data.image_spec import ImageSpec
from slimnet.models import build


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A network that was shown the digits' test images a few times, normalised by themselves."""
    torch.manual_seed(0)
    model, data = build("basicnet", ARGS), load_data("digits")
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for images, labels in data.batches("test", 40):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    path = tmp_path_factory.mktemp("dense") / "net.pt"
    torch.save(model.state_dict(), path)
    return path


def result(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    """What a command says in JSON."""
    assert slimnet_cli.run([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def expected(checkpoint: Path, normalise: str) -> float:
    """The share of the digits' test images that the network tells rightly, by our own arithmetic on bytes."""
    data = load_data("digits")
    pixels = data.x_test.permute(0, 3, 1, 2).double() / 255
    of_training = data.x_train.double() / 255
    mean, std = {"halves": (0.5, 0.5), "none": (0.0, 1.0)}.get(
        normalise, (of_training.mean().item(), of_training.std(correction=0).item())
    )
    model = build("basicnet", ARGS)
    model.load_state_dict(torch.load(checkpoint))
    scores = model.eval().double()((pixels - mean) / std)
    return (scores.argmax(1) == data.y_test).double().mean().item()


@pytest.fixture(scope="module")
def slimmed(checkpoint, tmp_path_factory, operators_read_once) -> Path:
    """Its bundle, of images that are taken as they are."""
    folder = tmp_path_factory.mktemp("bundle") / "slim"
    line = ["slim", str(checkpoint), *NETWORK, "--data", "digits", "--normalise", "none", "-o", str(folder)]
    assert slimnet_cli.run(line) == 0
    return folder


def test_a_bundle_knows_its_images_and_is_verified_and_trained_with_the_same_normalisation(
    checkpoint, slimmed, tmp_path, capsys
):
    """Oracle for the accuracies: our own arithmetic on bytes."""
    known = read_blueprint(slimmed).images
    assert known == ImageSpec((0.0,), (1.0,), (16, 16), tuple("0123456789"))
    right = pytest.approx(expected(checkpoint, "none"), abs=1e-9)
    capsys.readouterr()
    verified = result(capsys, "verify", slimmed, "--dense", checkpoint, "--data", "digits")
    assert verified["measured"]["accuracies"][0]["top1"] == right
    assert verified["images"]["classes"] == list("0123456789")
    quick = ("--iterations", "1", "--tests", "1", "--threads", "1")
    tuned = result(capsys, "finetune", slimmed, "--data", "digits", *quick, "-o", tmp_path / "tuned")
    assert tuned["accuracy"]["before"] == right
    assert read_blueprint(tmp_path / "tuned").images == known
    measured = ("--seconds", "0.01", "--runtime", "torch", "--threads", "1", "--batch", "1")
    compared = result(capsys, "benchmark", slimmed, tmp_path / "tuned", "--data", "digits", *measured)
    assert compared["accuracies"][0]["values"][0]["top1"] == right


def test_a_normalisation_alone_is_kept_with_the_size_of_the_inputs(checkpoint, tmp_path, capsys):
    """And what does not fit the network's channels is refused before the work."""
    line = ["slim", str(checkpoint), *NETWORK, "--input-shape", "1,16,12", "-o", str(tmp_path / "slim"), "--normalise"]
    for wrong, message in {
        "data": "--normalise data is measured on the training images; give them with --data",
        "imagenet": "an input has 1 channels, and imagenet is for 3",
        "mean=0:std=0": "those of std above 0",
        "mnist": "'mnist' is not one of data, imagenet, cifar10, halves, none, and not mean=M,...:std=S,...",
    }.items():
        assert slimnet_cli.run([*line, wrong]) == 2
        written = capsys.readouterr()
        assert message in written.err
        assert written.err.count("\n") == 1
        assert not list(tmp_path.iterdir())
    assert slimnet_cli.run([*line, "mean=0.25:std=0.5"]) == 0
    assert read_blueprint(tmp_path / "slim").images == ImageSpec((0.25,), (0.5,), (16, 12))


@pytest.mark.parametrize("normalise", [pytest.param("data", marks=pytest.mark.sweep), "none"])
def test_slim_verify_and_benchmark_normalise_images_as_the_network_was_trained(checkpoint, tmp_path, capsys, normalise):
    """Without the option it is `data`."""
    given = ("--data", "digits", *(() if normalise == "data" else ("--normalise", normalise)))
    right = pytest.approx(expected(checkpoint, normalise), abs=1e-9)
    bundle = tmp_path / "slim"
    slimmed = result(capsys, "slim", checkpoint, *NETWORK, *given, "-o", bundle)
    assert slimmed["accuracy"]["before"]["top1"] == right
    assert [each["top1"] for each in slimmed["certificate"]["accuracies"]] == [right, right]
    verified = result(capsys, "verify", bundle, "--dense", checkpoint, *given)
    assert verified["measured"]["accuracies"][0]["top1"] == right
    quick = ("--seconds", "0.01", "--runtime", "torch", "--threads", "1", "--batch", "1")
    compared = result(capsys, "benchmark", checkpoint, bundle, *NETWORK, *given, *quick)
    assert compared["accuracies"][0]["values"][0]["top1"] == right


def test_the_three_normalisations_are_distinguished(checkpoint):
    """Else the test above could not fail."""
    assert len({expected(checkpoint, normalise) for normalise in ("data", "halves", "none")}) == 3


def test_a_ladder_does_not_go_on_with_images_normalised_otherwise(checkpoint, tmp_path, capsys):
    line = ["ladder", str(checkpoint), *NETWORK, "--data", "digits", "--steps", "1", "-o", str(tmp_path / "rungs")]
    rungs = result(capsys, *line, "--normalise", "none")["rungs"]
    assert [rung["accuracy"] for rung in rungs[:2]] == [pytest.approx(expected(checkpoint, "none"), abs=1e-9)] * 2
    assert slimnet_cli.run([*line, "--normalise", "halves"]) == 2
    assert "is a ladder with normalise 'none', not 'halves'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["ladder", "benchmark", "verify"])
def test_a_normalisation_without_images_is_refused(checkpoint, slimmed, tmp_path, capsys, command):
    """One line that names what is missing."""
    if command == "verify":
        checkpoint = slimmed
    bundle = [str(checkpoint)] if command == "benchmark" else []
    network = [] if command == "verify" else NETWORK
    out = ["-o", str(tmp_path / "out")] if command == "ladder" else []
    assert slimnet_cli.run([command, str(checkpoint), *bundle, *network, *out, "--normalise", "none"]) == 2
    assert "--normalise, --cache, --download and --skip-broken belong to --data" in capsys.readouterr().err


def test_images_that_the_network_does_not_take_are_refused_before_the_work(checkpoint, tmp_path, capsys):
    """Grey digits for a network of four classes."""
    arguments = ARGS | {"num_classes": 4}
    path = tmp_path / "four.pt"
    torch.save(build("basicnet", arguments).state_dict(), path)
    line = ["slim", str(path), "--arch", "basicnet", "--arch-args", json.dumps(arguments), "--data", "digits"]
    assert slimnet_cli.run([*line, "-o", str(tmp_path / "slim")]) == 2
    said = capsys.readouterr().err
    assert "give the number of classes in its arch_args" in said
    assert "certificate" not in said
    assert not (tmp_path / "slim").exists()


def test_a_published_network_reads_real_images_as_published(tmp_path, capsys):
    """ResNet-20 on the first 300 of CIFAR-10's test images; oracle: torchvision's normalisation, written out."""
    import numpy as np

    images, labels = (part[:300] for part in load_cifar10_test())
    scale = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1) * 255
    shift = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1) * 255
    pixels = (images * scale + shift).round().byte().permute(0, 2, 3, 1).numpy()
    file = tmp_path / "some.npz"
    np.savez(file, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    path = checkpoint_file("resnet20")
    model = build("resnet20")
    weights = torch.load(path, "cpu", weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("module."): tensor for name, tensor in weights.items()})
    right = (predictions(model, images) == labels).double().mean().item()
    line = ("slim", path, "--arch", "resnet20", "--data", file, "--normalise", "imagenet", "-o", tmp_path / "slim")
    found = result(capsys, *line)["accuracy"]
    assert (found["before"]["top1"], found["after"]["top1"]) == (pytest.approx(right), pytest.approx(right))
    assert right > 0.88


def test_a_certificate_can_be_measured_on_fewer_images(checkpoint, tmp_path, capsys):
    """Spread over all test images, as the accuracy that is shown with it."""
    line = ["slim", checkpoint, *NETWORK, "--data", "digits", "--certificate-images", 40, "-o", tmp_path / "slim"]
    found = result(capsys, *line)
    assert found["certificate"]["samples"] == 40
    assert found["accuracy"]["after"]["n"] == 40
    without = ["slim", str(checkpoint), *NETWORK, "--certificate-images", "40", "-o", str(tmp_path / "other")]
    assert slimnet_cli.run(without) == 2
    assert "--certificate-images are test images; name them with --data" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
