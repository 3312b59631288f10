"""Bundles that mean harm: whatever a manifest, plan, certificate or form says costs one line and nothing else."""

import hashlib
import json
import os
import resource
import subprocess
from pathlib import Path

import pytest
import safetensors.torch
import torch
from bundles import (
    MANIFEST,
    Tied,
    forge,
    refusal,
    sign,
)

from slimnet.bundle.bundle import load, verify_bundle
from slimnet.errors import (
    BundleError,
    SlimnetError,
)
from slimnet.models.basicnet import BasicNet

pytestmark = pytest.mark.usefixtures("operators_read_once")


MANIFESTS = {
    "a path out of the bundle": lambda d: d["files"][0].update(name="../slim/model.safetensors"),
    "an absolute path": lambda d: d["files"][0].update(name="/etc/passwd"),
    "a file more": lambda d: d["files"].append(d["files"][0]),
    "a file less": lambda d: d["files"].pop(),
    "another order": lambda d: d["files"].reverse(),
    "a field more": lambda d: d.update(more=1),
    "another format": lambda d: d.update(format=2),
    "a format of text": lambda d: d.update(format="1\n2"),
    "an infinite size": lambda d: d["files"][0].update(size=float("inf")),
}


@pytest.mark.parametrize("change", MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_asks_for_something_else_is_refused(change, nameless, copy):
    """It is signed, so that only what it says can be wrong."""
    folder = copy(nameless)
    document = json.loads((folder / MANIFEST).read_text())
    del document["digest"]
    change(document)
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(document | {"digest": digest}, sort_keys=True, indent=1) + "\n")
    for call in (load, verify_bundle):
        assert str(folder) in refusal(BundleError, call, folder)


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"3", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"format": 1}'])
def test_a_manifest_that_is_none_is_refused(content, nameless, copy):
    folder = copy(nameless)
    (folder / MANIFEST).write_bytes(content)
    for call in (load, verify_bundle):
        assert str(folder / MANIFEST) in refusal(BundleError, call, folder)


def nested(depth: int) -> list:
    found: list = []
    for _ in range(depth):
        found = [found]
    return found


def plan_with(**fields):
    return lambda d: d["plan"].update(fields)


def first(part: str, **fields):
    return lambda d: d["plan"][part][0].update(fields)


PLANS = {
    "not an object": lambda d: [],
    "no plan": lambda d: d.pop("plan") and None,
    "a plan of text": lambda d: d.update(plan="plan"),
    "another format": lambda d: d.update(format=99),
    "another version": plan_with(version=99),
    "inputs a list": lambda d: d.update(inputs=[]),
    "a field less": lambda d: d["plan"].pop("cuts") and None,
    "a field more": plan_with(run="os.system"),
    "cuts of text": plan_with(cuts="cuts"),
    "cuts nested": plan_with(cuts=nested(300)),
    "a channel outside": first("cuts", keep=[10**9]),
    "a negative channel": first("cuts", keep=[-1]),
    "a channel twice": first("cuts", keep=[1, 1]),
    "no channel": first("cuts", keep=[]),
    "channels of text": first("cuts", keep=["0"]),
    "channels that are true": first("cuts", keep=[True]),
    "half a channel": first("cuts", keep=[0.5]),
    "an axis outside": first("cuts", axis=9),
    "an unknown tensor": first("cuts", tensor="nothing"),
    "fewer channels": first("cuts", keep=[0]),
    "a tensor in lines": first("cuts", tensor="a\nb\x1b[2J"),
    "a network in lines": plan_with(network="a\nb"),
    "a tensor's shape in lines": lambda d: d["plan"]["shapes"].update({"a\nb": [1]}),
    "the attribute of a class": first("cuts", tensor="__class__"),
    "infinite": plan_with(threshold=float("inf")),
    "another shape": lambda d: d["plan"]["shapes"].update({"features.conv1.weight": [1, 2, 3]}),
    "no shapes": plan_with(shapes={}),
    "padding": plan_with(paddings=[{"module": "features", "before": 10**12, "after": 10**12}]),
    "groups": plan_with(
        groups=[
            {
                "weight": "features.conv2.weight",
                "groups_before": 10**12,
                "groups_after": 10**12,
                "inputs": [0],
                "outputs": [0],
            }
        ]
    ),
    "a bias for no layer": plan_with(
        folds=[{"reader": "features.pool", "bias": "features.bias", "channels": 1, "increments": [1.0]}]
    ),
    "a bias for nothing": plan_with(
        folds=[{"reader": "nowhere", "bias": "nowhere.at.all.bias", "channels": 1, "increments": [1.0]}]
    ),
    "a bias of another length": plan_with(
        folds=[{"reader": "features.conv1", "bias": "features.conv1.bias", "channels": 1, "increments": [1.0] * 99}]
    ),
    "merges": plan_with(
        merges=[
            {"weight": "features.conv1.weight", "axis": 7, "carriers": [0], "sources": [0], "ratios": [1.0]},
        ]
    ),
    "code": lambda d: d.update(architecture={"name": "os:system", "args": {"command": "touch executed"}}),
    "code in a text of lines": lambda d: d.update(architecture={"name": "os:sys\ntem", "args": {}}),
    "an architecture of text": lambda d: d.update(architecture="basicnet"),
    "an unknown architecture": lambda d: d["architecture"].update(name="evilnet"),
    "an unknown one in lines": lambda d: d["architecture"].update(name="evil\nnet"),
    "a field too many": lambda d: d["architecture"].update(more=1),
    "arguments that are none": lambda d: d["architecture"].update(args=[1]),
    "arguments nested": lambda d: d["architecture"]["args"].update(width=nested(900)),
    "an unknown argument": lambda d: d["architecture"]["args"].update(evil=1),
    "an argument in lines": lambda d: d["architecture"]["args"].update({"a\nb": 1}),
    "a huge width": lambda d: d["architecture"]["args"].update(width=1e9),
    "an infinite width": lambda d: d["architecture"]["args"].update(width=float("inf")),
    "a width of text": lambda d: d["architecture"]["args"].update(width="1"),
    "a huge hidden layer": lambda d: d["architecture"]["args"].update(hidden=10**12),
    "another network": lambda d: d["architecture"].update(name="resnet20", args={}),
    "a path as a network": lambda d: d["architecture"].update(name="timm:hf-hub:evil/net", args={}),
    "a hub as a network": lambda d: d["architecture"].update(name="torchvision:../evil", args={}),
    "frozen of numbers": lambda d: d.update(frozen=[1]),
    "frozen of text": lambda d: d.update(frozen="all"),
    "training nothing": lambda d: d.update(training=None),
    "inputs of another shape": lambda d: d["inputs"]["args"]["tuple"][0]["tensor"].update(shape=[2, 7, 8, 8]),
    "huge inputs": lambda d: d["inputs"]["args"]["tuple"][0]["tensor"].update(shape=[2, 1, 10**6, 10**6]),
    "no inputs": lambda d: d.update(inputs={}),
    "inputs nested": lambda d: d["inputs"]["args"].update(tuple=nested(900)),
    "an input too many": lambda d: d["inputs"]["kwargs"]["dict"].update(evil={"value": "os.system"}),
}


NEVER_BUILT = "code"
"""What `load` refuses and `verify` leaves out: it checks the two other forms."""

ONLY_VERIFIED = [name for name in PLANS if "inputs" in name and "list" not in name] + ["an input too many"]
"""What `load` does not look at."""

ABSURD_NETWORKS = ("a huge width", "a huge hidden layer")
"""Networks that torch itself finds too large."""


@pytest.fixture
def watched(monkeypatch, tmp_path):
    """Fails where a command is run; lets nobody have more than two gigabytes."""

    def forbidden(*_, **__):
        raise AssertionError("a command was run")

    monkeypatch.chdir(tmp_path)
    for module, name in ((os, "system"), (os, "popen"), (subprocess, "Popen"), (subprocess, "run")):
        monkeypatch.setattr(module, name, forbidden)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**31, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("what", PLANS)
def test_a_plan_that_means_harm_is_refused_in_one_line(what, basic, copy, watched):
    """It is signed, so that only what it says can be wrong."""
    folder = copy(basic)
    forge(folder, "plan.json", PLANS[what])
    for call in (load, verify_bundle):
        if call is load and what in ONLY_VERIFIED:
            assert isinstance(load(folder), BasicNet)
        elif call is verify_bundle and what == NEVER_BUILT:
            assert verify_bundle(folder).reference == "model.pt2"
        else:
            message = refusal(SlimnetError, call, folder)
            assert len(message) < 500
            assert message.isprintable()
            assert "allocate" not in message or what in ABSURD_NETWORKS
    assert not Path("executed").exists()


CERTIFICATES = {
    "not an object": lambda d: [d],
    "a field less": lambda d: d.pop("samples") and None,
    "a field more": lambda d: d.update(more=1),
    "a difference of text": lambda d: d.update(max_rel_difference="0"),
    "a difference of nothing": lambda d: d.update(max_rel_difference=None),
    "samples that are true": lambda d: d.update(samples=True),
    "a number of lines": lambda d: d.update(dtype=["float32\n"]),
    "nested": lambda d: d.update(dtype=nested(900)),
    "not a number": lambda d: d.update(tolerance=float("nan")),
    "infinite": lambda d: d.update(tolerance=float("inf")),
    "does not hold": lambda d: d.update(max_rel_difference=1.0),
    "an accuracy that is none": lambda d: d.update(accuracies=[{"top1": float("nan"), "top5": 1.0, "n": 3}] * 2),
    "one accuracy": lambda d: d.update(accuracies=[{"top1": 1.0, "top5": 1.0, "n": 3}]),
    "accuracies of text": lambda d: d.update(accuracies="12"),
    "another network": lambda d: d.update(plan_digest="0" * 64),
}


@pytest.mark.parametrize("change", CERTIFICATES.values(), ids=CERTIFICATES)
def test_a_certificate_that_is_none_is_refused(change, nameless, copy):
    folder = copy(nameless)
    forge(folder, "certificate.json", change)
    assert refusal(BundleError, verify_bundle, folder).startswith(str(folder))


FORMS = ("model.safetensors", "model.pt2", "model.onnx")


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 8 + b"{}", b"PK\x03\x04" + bytes(100)])
def test_a_form_that_is_none_is_refused(name, content, nameless, copy):
    folder = copy(nameless)
    (folder / name).write_bytes(content)
    sign(folder)
    message = refusal(SlimnetError, verify_bundle, folder, Tied())
    assert name in message
    if name == "model.safetensors":
        assert str(folder / name) in refusal(BundleError, load, folder, Tied())


@pytest.mark.parametrize("name", FORMS)
def test_a_form_of_another_network_is_refused(name, nameless, coded, copy):
    """It takes the same inputs and returns as many numbers, so that only what it computes tells."""
    folder = copy(nameless)
    (folder / name).write_bytes((coded.folder / name).read_bytes())
    sign(folder)
    assert name in refusal(SlimnetError, verify_bundle, folder, Tied())


def test_recorded_inputs_that_the_program_does_not_take_are_refused(nameless, copy):
    """There is no other form to try them on first."""
    folder = copy(nameless)
    forge(folder, "plan.json", lambda d: d["inputs"]["args"]["tuple"][0]["tensor"].update(shape=[3, 4, 6, 6]))
    assert "does not take the recorded inputs" in refusal(BundleError, verify_bundle, folder)


@pytest.mark.parametrize("change", ["types", "shapes", "names"])
def test_weights_of_another_network_are_refused(change, nameless, copy):
    folder = copy(nameless)
    path = folder / "model.safetensors"
    stored = safetensors.torch.load_file(path)
    if change == "types":
        stored = {name: tensor.double() for name, tensor in stored.items()}
    elif change == "shapes":
        stored["fc.bias"] = torch.zeros(7)
    else:
        stored["fc.bais"] = stored.pop("fc.bias")
    safetensors.torch.save_file(stored, path)
    sign(folder)
    if change == "types":
        refusal(SlimnetError, verify_bundle, folder, Tied())
    else:
        assert "fc.b" in refusal(BundleError, load, folder, Tied())
