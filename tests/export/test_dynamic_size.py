"""Files for images of any height and width, or a refusal that names the layer which fixes them."""

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from bundles import lived_in, refusal
from sized_networks import Flattened, Measuring, Pooled, Skipping, Viewed, Windows
from torch import nn

from slimnet.benchmark.counts import macs, onnx_input_shape, onnx_macs
from slimnet.errors import BundleError, ExportError, UsageError
from slimnet.export.onnx import export_onnx
from slimnet.export.pt2.export import export_pt2
from slimnet.export.pt2.runner import ProgramRunner
from slimnet.modules.example_inputs import Inputs

pytestmark = pytest.mark.usefixtures("operators_read_once")

SIZES = ((1, 3, 16, 16), (3, 3, 24, 40), (2, 3, 8, 10))
"""Sizes that are not those of the check."""


def made(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return lived_in(kind()).eval()


def example() -> torch.Tensor:
    return torch.randn(2, 3, 16, 16)


def outputs(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(images)


@pytest.mark.parametrize("kind", [Pooled, Skipping])
def test_an_onnx_file_takes_any_size(kind, tmp_path):
    """Oracle: the network itself, at sizes that nothing was compared at."""
    model = made(kind)
    result = export_onnx(model, example(), tmp_path / "net.onnx", dynamic_size=True)
    assert result.sizes == ((16, 16), (32, 48))
    assert "at batch 1 and 5, images of 16 × 16 and 32 × 48" in str(result)
    file = onnx.load(tmp_path / "net.onnx")
    (given,) = file.graph.input
    assert [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim] == [
        "batch",
        3,
        "height",
        "width",
    ]
    assert {each.key: each.value for each in file.metadata_props}["dynamic_size"] == "true"
    assert onnx_input_shape(tmp_path / "net.onnx") == (3, 16, 16)
    assert onnx_macs(tmp_path / "net.onnx") == macs(model, example())
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    for size in SIZES:
        images = torch.randn(size)
        (found,) = session.run(None, {"image": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), outputs(model, images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Pooled, Skipping])
def test_an_exported_program_takes_any_size_in_torch_and_in_our_reader(kind, tmp_path):
    """Oracle: the network itself, to the last bit. A size that the network does not take is refused."""
    model, path = made(kind), tmp_path / "net.pt2"
    assert export_pt2(model, example(), path, dynamic_size=True).sizes == ((16, 16), (32, 48))
    loaded, runner = torch.export.load(path).module(), ProgramRunner(path)
    for size in SIZES:
        images = torch.randn(size)
        expected = outputs(model, images)
        assert torch.equal(outputs(loaded, images), expected)
        assert torch.equal(runner(Inputs.of(images))[0], expected)
    if kind is Skipping:
        refusal(BundleError, runner, Inputs.of(torch.randn(1, 3, 15, 16)))


REFUSED = {
    "flatten": (Flattened, "Flattened does not take images of any size: layer head.1 (Linear) fixes height or width"),
    "view": (Viewed, "layer head (Linear) fixes height or width (it gets 12 rows instead of 2 for images of 3 × 32"),
    "number": (Measuring, "layer measured (Measured) fixes height or width (it computes with the size as a constant)"),
}


@pytest.mark.parametrize("write", [export_onnx, export_pt2])
@pytest.mark.parametrize(("kind", "message"), REFUSED.values(), ids=REFUSED)
def test_a_network_that_fixes_its_size_is_refused_with_the_layer(kind, message, write, tmp_path):
    path = tmp_path / "net"
    assert message in refusal(ExportError, write, made(kind), example(), path, dynamic_size=True)
    assert not list(tmp_path.iterdir())


def test_windows_that_torch_writes_as_constants_are_no_onnx_file(tmp_path):
    """torch computes them at every run, so the exported program is right."""
    path = tmp_path / "net.onnx"
    message = refusal(ExportError, export_onnx, made(Windows), example(), path, dynamic_size=True)
    assert "at batch 1 and 32 × 48" in message
    assert "aten.adaptive_avg_pool2d.default of layer pool depend on height and width; nothing was written" in message
    assert not list(tmp_path.iterdir())
    assert export_pt2(made(Windows), example(), tmp_path / "net.pt2", dynamic_size=True).max_rel_difference < 1e-5


class Sum(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left + right


@pytest.mark.parametrize(
    ("model", "inputs"),
    [(Sum(), (torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 4))), (nn.Linear(3, 2), torch.randn(2, 3))],
    ids=["two inputs", "no image"],
)
def test_a_network_without_one_image_is_refused(model, inputs, tmp_path: Path):
    message = refusal(UsageError, export_onnx, model.eval(), inputs, tmp_path / "net.onnx", dynamic_size=True)
    assert "a dynamic size is for a network that takes one tensor (N, C, H, W) of floats, not (2, 3" in message
