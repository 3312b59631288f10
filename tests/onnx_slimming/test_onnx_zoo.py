"""Networks of torchvision and timm as ONNX files: as much goes as from the network itself, in each form of a file.

The oracle is `slim` of the network in torch: the same widths, layer by layer, from a file with BatchNorms, from one in
which onnxruntime has folded them, and from slimnet's own export, which folds them too.
"""

import warnings
from pathlib import Path

import onnxruntime
import pytest
import torch
import zoo
from onnx_graphs import difference

import slimnet

SIDE = 64
QUICK = ["torchvision:resnet18", "torchvision:shufflenet_v2_x0_5", "torchvision:mobilenet_v3_small"]
MORE = [
    "torchvision:mobilenet_v2",
    "torchvision:densenet121",
    "torchvision:efficientnet_b0",
    "torchvision:googlenet",
    "timm:regnetx_002",
    "timm:resnet26d",
    "timm:ghostnet_100",
    "timm:cspresnet50",
    "timm:mobilevit_xxs",
]
EXACT = 1e-4


def dying(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    """A network of which two in five channels of each BatchNorm are dead, with γ as training leaves them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        arguments = {"aux_logits": False, "init_weights": False} if name.endswith("googlenet") else {}
        model, images = slimnet.build(name, arguments).eval(), zoo.images(name, 2, SIDE)
    zoo.scatter_dead(model, images, 0.4, "negative")
    with torch.no_grad():
        for norm in zoo.batch_norms(model):
            norm.weight[norm.weight.abs() < 1e-3] = 1e-8
    return model, images


def with_norms(model: torch.nn.Module, images: torch.Tensor, path: Path) -> Path:
    """The file of torch's older exporter, which keeps BatchNorms and computes sizes in the graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (images,), str(path), dynamo=False, do_constant_folding=False, opset_version=13,
            training=torch.onnx.TrainingMode.PRESERVE, input_names=["x"], dynamic_axes={"x": {0: "n"}},
        )  # fmt: skip
    return path


def folded(path: Path) -> Path:
    """The file as onnxruntime's basic optimisations leave it: BatchNorms are part of the convolutions."""
    options, target = onnxruntime.SessionOptions(), path.with_suffix(".folded.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return target


def widths(plan: slimnet.SurgeryPlan) -> list[tuple[int, int, int]]:
    """What becomes of each layer; onnxruntime puts branches in an order of its own."""
    return sorted((layer.channels_before, layer.channels_after, layer.macs_after) for layer in plan.layers)


def check(path: Path, expected: slimnet.SurgeryPlan) -> None:
    result = slimnet.slim_onnx(path, path.with_suffix(".slim.onnx"))
    assert widths(result.plan) == widths(expected)
    assert result.plan.macs_after == expected.macs_after
    assert difference(path, result.path, (3, 3, SIDE, SIDE)) < EXACT


def check_forms(name: str, folder: Path) -> None:
    model, images = dying(name)
    expected = slimnet.slim(model, images).plan
    assert expected.removed_channels > 100
    path = with_norms(model, images, folder / "net.onnx")
    check(path, expected)
    check(folded(path), expected)


@pytest.mark.parametrize("name", QUICK)
def test_as_much_goes_from_a_file_as_from_the_network(name, tmp_path):
    check_forms(name, tmp_path)


def test_as_much_goes_from_the_files_of_slimnets_own_export(tmp_path):
    """With literal widths in its reshapes, a shuffle among them."""
    model, images = dying("torchvision:shufflenet_v2_x0_5")
    path = slimnet.export_onnx(model, images, tmp_path / "net.onnx").path
    check(path, slimnet.slim(model, images).plan)


@pytest.mark.sweep
@pytest.mark.parametrize("name", MORE)
def test_as_much_goes_from_more_networks(name, tmp_path):
    if not name.endswith("mobilevit_xxs"):
        check_forms(name, tmp_path)
    model, images = dying(name)
    check(slimnet.export_onnx(model, images, tmp_path / "own.onnx").path, slimnet.slim(model, images).plan)
