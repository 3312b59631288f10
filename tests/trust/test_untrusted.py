"""References to architectures that were read from files: they choose neither code nor downloads nor gigabytes."""

import json
import math
import socket
import sys
from pathlib import Path

import pytest
import torch
from bundles import basic_net, forge, make, refusal
from runs import images as run_images
from runs import recipe

from slimnet.bundle.bundle import load, verify_bundle
from slimnet.errors import ArchitectureError, BundleError, DataError, SlimnetError
from slimnet.models import Architecture, build
from slimnet.models.bounded_build import OversizeError, bounded_call
from slimnet.models.untrusted import LARGEST_NUMBER, UntrustedName, check_arguments
from slimnet.training import Recipe, TrainingRun

CODE = "canary:network"


@pytest.fixture(autouse=True)
def in_an_empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "canary", raising=False)


def reread(asked: Recipe) -> Recipe:
    return Recipe.from_json(asked.to_json())


def test_a_recipe_from_a_file_runs_no_code():
    read = reread(recipe(arch=CODE))
    message = refusal(ArchitectureError, TrainingRun, read, run_images())
    assert f"would import and call {CODE}" in message
    assert "trust=True" in message
    assert not Path("executed").exists()


def test_a_recipe_that_is_trusted_or_ones_own_does():
    assert isinstance(build(CODE), torch.nn.Sequential)
    assert Path("called").exists()
    trusted = reread(recipe(arch=CODE)).trusted()
    assert type(trusted.arch) is str
    assert build(trusted.arch, {})


def test_copies_of_a_recipe_stay_untrusted():
    import copy
    import dataclasses
    import pickle

    read = reread(recipe(arch=CODE))
    copies = [dataclasses.replace(read, seed=1), copy.deepcopy(read), pickle.loads(pickle.dumps(read)), reread(read)]
    for each in [*copies, Recipe(**dataclasses.asdict(read))]:
        assert isinstance(each.arch, UntrustedName)
    assert read == recipe(arch=CODE)


def test_an_architecture_from_a_file_runs_no_code():
    read = Architecture.from_json({"name": CODE, "args": {}})
    assert CODE in refusal(ArchitectureError, read.build)
    assert not Path("executed").exists()
    read.trusted().build()
    assert Path("called").exists()


REACHING = {
    "timm's checkpoint": ("timm:resnet18", {"checkpoint_path": "weights"}),
    "timm's download": ("timm:resnet18", {"pretrained": True}),
    "timm's address": ("timm:resnet18", {"pretrained_cfg": {"url": "http"}}),
    "timm's overlay": ("timm:resnet18", {"pretrained_cfg_overlay": {"file": "x"}}),
    "timm's cache": ("timm:resnet18", {"cache_dir": "x"}),
    "a hub by name": ("timm:hf-hub:owner/name", {}),
    "a folder by name": ("timm:local-dir:x", {}),
    "torchvision's weights": ("torchvision:resnet18", {"weights": "DEFAULT"}),
    "torchvision's old name": ("torchvision:resnet18", {"pretrained": True}),
    "weights that are true": ("torchvision:resnet18", {"weights": True}),
    "weights that are 1": ("torchvision:resnet18", {"weights": 1}),
    "a backbone's weights": ("torchvision:deeplabv3_resnet50", {"weights_backbone": "DEFAULT"}),
    "a checkpoint that is true": ("timm:resnet18", {"checkpoint_path": True}),
    "a checkpoint that is 1": ("timm:resnet18", {"checkpoint_path": 1}),
    "hidden deeper": ("timm:resnet18", {"block_args": {"inner": [{"checkpoint_path": "x"}]}}),
    "a path": ("basicnet", {"hidden": "/etc/passwd"}),
    "an address": ("basicnet", {"hidden": "http://host"}),
    "a billion": ("resnet56", {"num_classes": 10**9}),
    "no number": ("basicnet", {"width": math.inf}),
    "nested": ("basicnet", {"hidden": json.loads("[" * 20 + "]" * 20)}),
}


@pytest.mark.parametrize("what", REACHING)
def test_arguments_from_a_file_reach_for_nothing(what, monkeypatch):
    """Without the check, timm and torchvision would open a file or ask a server: a socket raises another error."""
    monkeypatch.setattr(socket, "socket", forbidden)
    name, args = REACHING[what]
    refusal(ArchitectureError, Architecture.from_json({"name": name, "args": args}).build)


def forbidden(*_, **__):
    raise AssertionError("a socket was opened")


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("basicnet", {"widths": "32-0.25x", "num_classes": 10, "hidden": [64]}),
        ("resnet20", {"shortcut": "B"}),
        ("timm:resnet18", {"pretrained": False, "drop_path_rate": 0.1, "act_layer": "hard_swish"}),
        ("torchvision:googlenet", {"weights": None, "aux_logits": False, "init_weights": False}),
    ],
)
def test_ordinary_arguments_from_a_file_are_taken(name, args):
    assert Architecture.from_json({"name": name, "args": args}).build()


def test_the_largest_number_is_the_limit():
    check_arguments("x", {"width": LARGEST_NUMBER})
    refusal(ArchitectureError, check_arguments, "x", {"width": LARGEST_NUMBER + 1})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("untrusted") / "bundle"
    make(basic_net(), torch.randn(3, 1, 16, 16), folder)
    return folder


@pytest.fixture
def copied(bundle, tmp_path):
    import shutil

    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def test_nothing_in_load_or_verify_opens_a_socket(copied, monkeypatch):
    monkeypatch.setattr(socket, "socket", forbidden)
    load(copied)
    verify_bundle(copied)
    name, args = REACHING["timm's address"]
    forge(copied, "plan.json", lambda d: d.update(architecture={"name": name, "args": args}))
    for call in (load, verify_bundle):
        refusal(SlimnetError, call, copied)


def test_a_bundle_runs_code_that_is_trusted_alone(copied):
    forge(copied, "plan.json", lambda d: d.update(architecture={"name": CODE, "args": {}}))
    assert f"would import and call {CODE}" in refusal(BundleError, load, copied)
    assert verify_bundle(copied).reference == "model.pt2"
    assert not Path("executed").exists()
    with pytest.raises(SlimnetError):  # it is another network
        load(copied, trust=True)
    assert Path("called").exists()


SIZES = {
    "width": {"width": 12},
    "wide": {"width": 1000},
    "layers": {"hidden": [60_000] * 50},
    "deep": {"hidden": [4] * 50_000},
}


@pytest.mark.parametrize("what", SIZES)
def test_a_network_larger_than_its_plan_takes_no_memory(what, copied):
    """Oracle: torch is not asked for a tensor of more than the spare numbers."""
    forge(copied, "plan.json", lambda d: d["architecture"]["args"].update(SIZES[what]))
    assert "larger than the one that the file describes" in refusal(SlimnetError, load, copied)


def test_a_plan_with_absurd_shapes_is_refused_by_what_the_weights_hold(copied):
    def widen(document):
        document["plan"]["shapes"] = {name: [*shape[:-1], 10**6] for name, shape in document["plan"]["shapes"].items()}

    forge(copied, "plan.json", widen)
    assert "claims a dense network" in refusal(BundleError, load, copied)


def test_what_is_built_within_the_bounds_is_the_network_itself():
    torch.manual_seed(0)
    wanted = build("resnet20")
    torch.manual_seed(0)
    found = bounded_call(lambda: build("resnet20"), {name: tuple(t.shape) for name, t in wanted.state_dict().items()})
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in wanted.state_dict().items())
    with pytest.raises(ArchitectureError) as caught:
        bounded_call(lambda: build("resnet20", {"num_classes": 10**6}), {"fc.weight": (10, 64)})
    assert isinstance(caught.value.__cause__, OversizeError)


@pytest.mark.parametrize("shape", [[2, 1, 8192, 8192], [2, 1, 7000, 7000]])
def test_inputs_with_which_a_forward_would_take_gigabytes_are_refused(shape, copied):
    forge(copied, "plan.json", lambda d: d["inputs"]["args"]["tuple"][0]["tensor"].update(shape=shape))
    refusal(BundleError, verify_bundle, copied)


def test_labels_of_an_npz_do_not_make_a_billion_classes(tmp_path):
    import numpy as np

    from slimnet.data import load_data

    pixels, labels = np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 2**40])
    np.savez(tmp_path / "x.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    assert "classes" in refusal(DataError, load_data, str(tmp_path / "x.npz"))
