"""Architectures by name: right ones are built and remembered, wrong ones answered in one line."""

import copy
import json
import sys
import time

import pytest
import torch
from torch import nn

from slimnet import compat
from slimnet.errors import ArchitectureError
from slimnet.models import (
    VGG,
    Architecture,
    BasicNet,
    CifarDenseNet,
    CifarResNet,
    PreActResNet,
    architecture,
    architecture_of,
    build,
)


def error_of(arch, arch_args=None) -> str:
    """The message with which `build` refuses, checked to be one line."""
    with pytest.raises(ArchitectureError) as caught:
        build(arch, arch_args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("arch", list(architecture.BUILTIN_ARCHITECTURES))
def test_own_names_build_and_are_remembered(arch):
    model = build(arch, {"num_classes": 4})
    assert isinstance(model, BasicNet | VGG | CifarResNet | PreActResNet | CifarDenseNet)
    assert model.training
    assert architecture_of(copy.deepcopy(model)) == Architecture(arch, {"num_classes": 4})
    assert "slimnet_architecture" not in "".join(model.state_dict())


def test_building_has_no_seed_of_its_own():
    torch.manual_seed(3)
    first, second = build("resnet20"), build("resnet20")
    torch.manual_seed(3)
    again = build("resnet20")
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, second.conv1.weight)


def test_a_module_that_was_not_built_here_has_no_reference():
    assert architecture_of(CifarResNet(20)) is None
    impostor = nn.Linear(1, 1)
    impostor.slimnet_architecture = "resnet20"
    assert architecture_of(impostor) is None


def test_reference_survives_json():
    model = build("vgg11", {"hidden": (16, 8), "num_classes": 3})
    text = json.dumps(architecture_of(model).to_json())
    again = Architecture.from_json(json.loads(text)).build()
    assert [p.shape for p in again.parameters()] == [p.shape for p in model.parameters()]
    assert str(architecture_of(again)) == "vgg11 (hidden=[16, 8], num_classes=3)"


def test_reference_is_safe_from_later_changes_of_the_arguments():
    arguments = {"hidden": [16]}
    model = build("vgg11", arguments)
    arguments["hidden"].append(8)
    assert architecture_of(model).args == {"hidden": [16]}


def test_arguments_that_json_does_not_know_are_refused_when_written():
    reference = Architecture("torchvision:resnet18", {"norm_layer": nn.BatchNorm2d})
    with pytest.raises(ArchitectureError, match=r"arguments of torchvision:resnet18 cannot be written down"):
        reference.to_json()


@pytest.mark.parametrize(
    "data", [None, [], {}, {"name": "vgg16"}, {"name": 1, "args": {}}, {"name": "vgg16", "args": [1]}]
)
def test_malformed_references_are_refused(data):
    with pytest.raises(ArchitectureError):
        Architecture.from_json(data)


def test_a_reference_says_whether_building_it_imports_foreign_code():
    names = ["vgg16", "torchvision:resnet18", "timm:resnet18", "package.module:factory", "os:system"]
    assert [Architecture(name).imports_code for name in names] == [False, False, False, True, True]


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "inception_v3", "fcn_resnet50", "lraspp_mobilenet_v3_large"])
def test_torchvision_networks_come_without_weights_and_quickly(name, monkeypatch):
    """Nothing is downloaded, not even for the backbone, and no slow initialisation runs."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    start = time.process_time()
    model = build(f"torchvision:{name}", {"num_classes": 5})
    assert time.process_time() - start < 10
    assert architecture_of(model) == Architecture(f"torchvision:{name}", {"num_classes": 5})


def test_torchvision_arguments_overrule_ours():
    model = build("torchvision:googlenet", {"init_weights": True, "aux_logits": False, "num_classes": 5})
    # Its own initialisation draws with a standard deviation of 0.01; torch's default has 0.018 here.
    assert model.fc.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert model.aux1 is None


def test_timm_networks_come_without_weights():
    compat.torchvision()
    pytest.importorskip("timm")
    model = build("timm:resnet18", {"num_classes": 5, "in_chans": 1})
    assert model.conv1.in_channels == 1
    assert architecture_of(model) == Architecture("timm:resnet18", {"num_classes": 5, "in_chans": 1})


FACTORIES = """
import sys
from torch import nn

class Net(nn.Sequential):
    def __init__(self, width, depth=1):
        super().__init__(*[nn.Linear(width, width) for _ in range(depth)])

class Zoo:
    net = Net

ready = nn.Linear(1, 1)

def no_module(width=1):
    return {"width": width}

def failing(reason="nothing"):
    raise ValueError(f"first {reason}\\nsecond line")

def silent():
    raise RuntimeError

def leaving():
    sys.exit("usage: ...")

def passing(**options):
    return Net(**options)
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    """Importable modules: `slimnet_test_factories`, and two that fail while they are imported."""
    (tmp_path / "slimnet_test_factories.py").write_text(FACTORIES)
    (tmp_path / "slimnet_test_broken.py").write_text("import a_module_that_is_missing")
    (tmp_path / "slimnet_test_script.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    return "slimnet_test_factories"


@pytest.mark.parametrize("path", ["Net", "Zoo.net", "passing"])
def test_factories_of_other_packages_build_by_import_path(factories, path):
    model = build(f"{factories}:{path}", {"width": 3, "depth": 2})
    assert [layer.in_features for layer in model] == [3, 3]
    assert architecture_of(model).build().state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("path", "arch_args", "words"),
    [
        ("slimnet_test_factories:Nett", {}, "did you mean slimnet_test_factories:Net?"),
        ("slimnet_test_factories:ready", {}, "holds Linear; name a class or a function"),
        ("slimnet_test_factories:no_module", {}, "must return an nn.Module but returned dict"),
        ("slimnet_test_factories:failing", {}, "could not be built: ValueError: first nothing"),
        (
            "slimnet_test_factories:failing",
            {"reason": 7},
            "failing (reason=7) could not be built: ValueError",
        ),
        ("slimnet_test_factories:silent", {}, "could not be built: RuntimeError"),
        ("slimnet_test_factories:leaving", {}, "could not be built: SystemExit: usage"),
        ("slimnet_test_factories:Net", {}, "needs 'width' in arch_args"),
        (
            "slimnet_test_factories:Net",
            {"width": 1, "heigth": 1},
            "takes no argument 'heigth'; it takes width, depth",
        ),
        ("slimnet_test_factories:passing", {"width": 1, "heigth": 1}, "takes no argument 'heigth'"),
        ("slimnet_test_broken:Net", {}, "No module named 'a_module_that_is_missing'"),
        ("slimnet_test_script:Net", {}, "importing slimnet_test_script failed: SystemExit: 3"),
        (
            "slimnet_test_absent:Net",
            {},
            "No module named 'slimnet_test_absent'; is it installed, on PYTHONPATH or in this folder?",
        ),
        (".relative:Net", {}, "importing .relative failed: TypeError"),
    ],
)
def test_factories_that_fail_are_one_line(factories, path, arch_args, words):
    assert words in error_of(path, arch_args)


@pytest.mark.parametrize(
    ("arch", "meant"),
    [
        ("resnet-20", "resnet20"),
        ("RESNET56", "resnet56"),
        ("vgg", "vgg"),
        ("basic_net", "basicnet"),
        ("resnet50", "torchvision:resnet50"),
        ("torchvision:resnt50", "torchvision:resnet50"),
        ("torchvision:ResNet50", "torchvision:resnet50"),
    ],
)
def test_names_that_do_not_exist_are_answered_with_close_ones(arch, meant):
    message = error_of(arch)
    assert message.startswith(f"unknown architecture '{arch}'; did you mean ")
    assert meant in message


@pytest.mark.parametrize("arch", ["xyzzy", "a:", ":b", ":", "torchvision"])
def test_a_name_like_no_other_is_answered_with_all_the_forms(arch):
    assert "basicnet, vgg11" in error_of(arch)
    assert "torchvision:NAME, timm:NAME, package.module:factory or file.py:Class" in error_of(arch)


@pytest.mark.parametrize("arch", [None, 3, ""])
def test_a_name_that_is_no_text_is_refused(arch):
    assert "is named by text" in error_of(arch)


@pytest.mark.parametrize("arch_args", [[1], "num_classes", {1: 2}, 5])
def test_arguments_that_are_no_mapping_are_refused(arch_args):
    assert "arch_args map names to values" in error_of("resnet20", arch_args)


@pytest.mark.parametrize(
    ("arch", "arch_args", "words"),
    [
        (
            "resnet20",
            {"num_clases": 3},
            "resnet20 takes no argument 'num_clases'; it takes num_classes, shortcut",
        ),
        ("resnet20", {"depth": 56}, "resnet20 takes no argument 'depth'"),
        ("resnet20", {"num_classes": 0}, "resnet20: num_classes must be a whole number of at least 1, got 0"),
        ("resnet20", {"shortcut": "C"}, "resnet20: shortcut must be 'A' (zero channels) or 'B'"),
        ("vgg16", {"hidden": 512}, "vgg16: hidden must be a list of widths such as [512], or one of cifar, "),
        ("torchvision:resnet18", {"num_clases": 3}, "torchvision:resnet18 takes no argument 'num_clases'"),
        (
            "torchvision:resnet18",
            {"num_classes": "x"},
            "resnet18 (num_classes='x') could not be built: TypeError",
        ),
    ],
)
def test_wrong_arguments_are_named(arch, arch_args, words):
    assert words in error_of(arch, arch_args)


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("timm:resnet5", "did you mean timm:resnet50"),
        ("timm:hf-hub:owner/name", "unknown architecture 'timm:hf-hub:owner/name'"),
        ("timm:local-dir:/etc", "unknown architecture 'timm:local-dir:/etc'"),
        ("timm:resnet18.no_such_tag", "could not be built: RuntimeError"),
    ],
)
def test_timm_names_are_checked_before_anything_is_fetched(arch, words):
    compat.torchvision()
    pytest.importorskip("timm")
    assert words in error_of(arch)


def test_a_missing_timm_is_an_architecture_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert (
        error_of("timm:resnet18") == "timm:resnet18: timm is not installed; pip install '.[timm]' in a clone of slimnet"
    )


def test_suggestions_do_without_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert "did you mean resnet" in error_of("resnet21")
