"""Our networks against published numbers and other implementations; architectures by name."""

import copy
import json
import sys
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from slimnet import compat
from slimnet.errors import ArchitectureError
from slimnet.models import (
    VGG,
    Architecture,
    BasicNet,
    CifarResNet,
    PadShortcut,
    architecture,
    architecture_of,
    build,
)


def count_macs(model: nn.Module) -> int:
    """Multiply-accumulates for one 32 × 32 image by torch's own counter, which counts each as two FLOPs."""
    with FlopCounterMode(display=False) as counter:
        model.eval().to("meta")(torch.empty(1, 3, 32, 32, device="meta"))
    return counter.get_total_flops() // 2


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def randomise_statistics(model: nn.Module) -> nn.Module:
    """Give every BatchNorm statistics and a scale of its own, so that skipping one changes the output."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.running_var, 0.5), (module.bias, -0.5)):
                nn.init.uniform_(tensor, low, low + 1)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
    return model.eval()


def error_of(arch, arch_args=None) -> str:
    """The message with which `build` refuses, checked to be one line."""
    with pytest.raises(ArchitectureError) as caught:
        build(arch, arch_args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- published numbers ---


@pytest.mark.parametrize(
    ("arch", "arch_args", "macs", "parameters"),
    [
        # Li et al. 2017 print them rounded in table 1; these are the counts that round to what they print.
        ("vgg16", {}, 313_463_808, 14_987_722),
        ("resnet56", {}, 125_485_696, 853_018),
        ("resnet110", {}, 252_887_680, 1_727_962),
    ],
)
def test_size_is_that_of_li_2017(arch, arch_args, macs, parameters):
    model = build(arch, arch_args)
    assert count_parameters(model) == parameters
    assert count_macs(model) == macs


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_resnet_size_is_that_of_he_2016_table_6(depth, millions):
    digits = 1 if depth == 110 else 2
    assert round(count_parameters(build(f"resnet{depth}")) / 1e6, digits) == millions


def test_vgg19_with_one_linear_layer_has_the_size_of_liu_2017_table_1():
    """20.04 M parameters; 7.97e8 FLOPs, twice the multiply-accumulates and a little more (0.1 %)."""
    model = build("vgg19", {"hidden": []})
    assert round(count_parameters(model) / 1e6, 2) == 20.04
    assert 2 * count_macs(model) == pytest.approx(7.97e8, rel=1e-3)


@pytest.mark.parametrize(("depth", "channels"), [(11, 2752), (16, 4224), (19, 5504)])
def test_vgg_has_the_channels_that_mehta_2019_count(depth, channels):
    """Tables 9, 8 and 10: the features of all the convolutions."""
    model = build(f"vgg{depth}")
    assert sum(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)) == channels


# --- the function they compute ---


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_vgg_features_equal_torchvisions(depth):
    """With the same weights (and torchvision's convolution biases at zero) both give the same features."""
    ours = randomise_statistics(VGG(depth)).features
    theirs = getattr(compat.torchvision().models, f"vgg{depth}_bn")(
        num_classes=2, init_weights=False
    ).features
    theirs.load_state_dict(ours.state_dict(), strict=False)
    for module in theirs:
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.bias)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs.eval()(images))


def reference_resnet(state: dict[str, torch.Tensor], blocks: int, images: torch.Tensor) -> torch.Tensor:
    """He et al.'s section 4.2 written down once more, from the weights alone."""

    def conv_norm(x: torch.Tensor, conv: str, norm: str, stride: int, padding: int = 1) -> torch.Tensor:
        x = F.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=padding)
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return F.batch_norm(x, mean, variance, state[f"{norm}.weight"], state[f"{norm}.bias"])

    x = conv_norm(images, "conv1", "bn1", 1).relu()
    for block in [f"layer{stage}.{index}" for stage in (1, 2, 3) for index in range(blocks)]:
        widens = block in ("layer2.0", "layer3.0")
        stride = 2 if widens else 1
        inner = conv_norm(x, f"{block}.conv1", f"{block}.bn1", stride).relu()
        if f"{block}.shortcut.0.weight" in state:
            x = conv_norm(x, f"{block}.shortcut.0", f"{block}.shortcut.1", 2, padding=0)
        elif widens:
            half = torch.zeros_like(x[:, : x.shape[1] // 2, ::2, ::2])
            x = torch.cat([half, x[:, :, ::2, ::2], half], dim=1)
        x = (conv_norm(inner, f"{block}.conv2", f"{block}.bn2", 1) + x).relu()
    return F.linear(x.mean((2, 3)), state["linear.weight"], state["linear.bias"])


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_resnet_computes_the_papers_function(shortcut):
    model = randomise_statistics(build("resnet20", {"shortcut": shortcut, "num_classes": 7}))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference_resnet(model.state_dict(), 3, images))


def test_option_b_adds_two_projections_with_batchnorm():
    difference = count_parameters(build("resnet20", {"shortcut": "B"})) - count_parameters(build("resnet20"))
    assert difference == (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)


def test_pad_shortcut_follows_its_attributes():
    """Surgery narrows a network by setting `before` and `after`; the next forward must use them."""
    shortcut = PadShortcut(2, before=8, after=8)
    shortcut.before, shortcut.after = 1, 3
    x = torch.randn(2, 5, 4, 6)
    expected = torch.zeros(2, 9, 2, 3)
    expected[:, 1:6] = x[:, :, [0, 2]][:, :, :, [0, 2, 4]]
    assert torch.equal(shortcut(x), expected)
    assert not list(shortcut.parameters())


def test_a_resnet_whose_inner_width_was_cut_by_hand_still_runs():
    """Nothing in forward knows a width: a block without its zeroed channel computes what it did with it."""
    dense = randomise_statistics(build("resnet20"))
    block = dense.layer2[0]
    with torch.no_grad():
        block.bn1.weight[-1] = block.bn1.bias[-1] = 0
        slim = copy.deepcopy(dense)
        conv1, bn1, conv2 = slim.layer2[0].conv1, slim.layer2[0].bn1, slim.layer2[0].conv2
        conv1.weight = nn.Parameter(conv1.weight[:-1])
        conv2.weight = nn.Parameter(conv2.weight[:, :-1])
        bn1.weight, bn1.bias = nn.Parameter(bn1.weight[:-1]), nn.Parameter(bn1.bias[:-1])
        bn1.running_mean, bn1.running_var = bn1.running_mean[:-1], bn1.running_var[:-1]
        images = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(slim(images), dense(images))


@pytest.mark.parametrize("arch", ["vgg11", "resnet20"])
def test_any_number_of_channels_and_classes(arch):
    model = build(arch, {"in_channels": 1, "num_classes": 3}).eval()
    assert model(torch.zeros(2, 1, 64, 32)).shape == (2, 3)


def test_vgg_head_has_the_hidden_layers_it_is_given():
    widths = [m.out_features for m in VGG(11, hidden=[20, 30]).modules() if isinstance(m, nn.Linear)]
    assert widths == [20, 30, 10]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VGG(12), "depth must be one of 11, 13, 16, 19, got 12"),
        (lambda: CifarResNet(21), r"depth must be 6n \+ 2"),
        (lambda: CifarResNet(2), r"depth must be 6n \+ 2"),
        (lambda: CifarResNet(20, num_classes=True), "num_classes must be a whole number"),
        (lambda: VGG(16, hidden=[0]), "hidden must be a whole number"),
    ],
)
def test_constructors_refuse_what_makes_no_network(make, words):
    with pytest.raises(ArchitectureError, match=words):
        make()


# --- architectures by name ---


@pytest.mark.parametrize("arch", list(architecture.OWN))
def test_own_names_build_and_are_remembered(arch):
    model = build(arch, {"num_classes": 4})
    assert isinstance(model, BasicNet | VGG | CifarResNet)
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


@pytest.mark.parametrize(
    "name", ["resnet18", "googlenet", "inception_v3", "fcn_resnet50", "lraspp_mobilenet_v3_large"]
)
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
            "No module named 'slimnet_test_absent'; is it installed or on PYTHONPATH?",
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
    assert "torchvision:NAME, timm:NAME or package.module:factory" in error_of(arch)


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
        ("vgg16", {"hidden": 512}, "vgg16: hidden must be a list of widths such as [512], got 512"),
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
    assert error_of("timm:resnet18") == "timm:resnet18: timm is not installed; pip install 'slimnet[timm]'"


def test_suggestions_do_without_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert "did you mean resnet" in error_of("resnet21")
