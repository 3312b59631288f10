"""Files that take images as bytes compute what the network computes after slimnet's preprocessing."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from bundles import images as colourless
from bundles import lived_in, refusal, small_net
from sized_networks import Pooled
from torch import nn

from slimnet.data.image_spec import ImageSpec
from slimnet.errors import ExportError, UsageError
from slimnet.export.onnx import export_onnx
from slimnet.export.preprocessing import WithPreprocessing
from slimnet.export.pt2.export import export_pt2
from slimnet.modules.example_inputs import Inputs

pytestmark = pytest.mark.usefixtures("operators_read_once")

SPEC = ImageSpec((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (16, 16), ("a", "b", "c"))


class Named(Pooled):
    """Takes its image by name."""

    def forward(self, *, pixels: torch.Tensor) -> torch.Tensor:
        return super().forward(pixels)


def made(kind: type[nn.Module] = Pooled) -> nn.Module:
    torch.manual_seed(0)
    return lived_in(kind()).eval()


def pixels(layout: str, batch: int = 3) -> torch.Tensor:
    """Random images that nothing was compared on."""
    images = torch.randint(0, 256, (batch, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))
    return images if layout == "nhwc" else images.permute(0, 3, 1, 2).contiguous()


def expected(model: nn.Module, spec: ImageSpec = SPEC) -> torch.Tensor:
    """The network on the images, normalised by hand in NumPy and double precision."""
    low, high = spec.value_range
    values = pixels("nhwc").numpy().astype(np.float64) / 255 * (high - low) + low
    values = ((values - np.array(spec.mean)) / np.array(spec.std)).transpose(0, 3, 1, 2)
    with torch.no_grad():
        return Inputs.of(
            {"pixels": torch.from_numpy(values).float()}
            if isinstance(model, Named)
            else torch.from_numpy(values).float()
        ).call(model)


@pytest.mark.parametrize(
    ("layout", "kind"), [("nhwc", Pooled), ("nchw", Pooled), ("nhwc", Named)], ids=["nhwc", "nchw", "named"]
)
def test_an_onnx_file_takes_bytes(layout, kind, tmp_path):
    path, model = tmp_path / "net.onnx", made(kind)
    example = {"pixels": torch.randn(2, 3, 16, 16)} if kind is Named else torch.randn(2, 3, 16, 16)
    export_onnx(model, example, path, images=SPEC, preprocessing=layout)
    session = onnxruntime.InferenceSession(path)
    (given,) = session.get_inputs()
    assert given.type == "tensor(uint8)"
    assert given.shape == (["batch", 16, 16, 3] if layout == "nhwc" else ["batch", 3, 16, 16])
    (found,) = session.run(None, {given.name: pixels(layout).numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected(model), rtol=1e-4, atol=1e-5)
    about = session.get_modelmeta().custom_metadata_map
    assert (about["image_dtype"], about["image_layout"], about["image_value_range"]) == (
        "uint8",
        layout.upper(),
        "[0, 255]",
    )
    assert json.loads(about["class_names"]) == ["a", "b", "c"]
    # There is nothing left to be subtracted.
    assert not {"image_mean", "image_std"} & about.keys()
    assert onnx.load(path).graph.name == kind.__name__


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_an_exported_program_takes_bytes_of_any_size(layout, tmp_path):
    """And a range of values that is not 0..1."""
    path, model = tmp_path / "net.pt2", made()
    spec = ImageSpec((0.1, -0.2, 0.0), (1.0, 0.5, 2.0), (16, 16), value_range=(-1.0, 1.0))
    export_pt2(model, torch.randn(2, 3, 16, 16), path, images=spec, preprocessing=layout, dynamic_size=True)
    loaded = torch.export.load(path).module()
    torch.testing.assert_close(loaded(pixels(layout)), expected(model, spec), rtol=1e-4, atol=1e-5)
    small = (0, slice(None, 8)) if layout == "nhwc" else (0, slice(None), slice(None, 8))
    assert loaded(pixels(layout)[small][None]).shape == (1, 3)


@pytest.mark.parametrize("write", [export_onnx, export_pt2])
def test_a_file_whose_preprocessing_is_another_one_is_not_written(write, tmp_path, monkeypatch):
    """Here one that forgets the shift."""
    right = WithPreprocessing.__init__

    def without_shift(self, *arguments: object) -> None:
        right(self, *arguments)
        self.shift.zero_()

    monkeypatch.setattr(WithPreprocessing, "__init__", without_shift)
    options = {"images": SPEC, "preprocessing": "nhwc"}
    message = refusal(ExportError, write, made(), torch.randn(2, 3, 16, 16), tmp_path / "net", **options)
    assert "Pooled with its preprocessing differs by" in message
    assert "nothing was written" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [export_onnx, export_pt2])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": SPEC, "preprocessing": "hwc"}, "preprocessing is 'hwc'; it must be one of nhwc, nchw"),
        ({"preprocessing": "nhwc"}, "the normalisation of the images is not known; give it with images="),
        ({"images": SPEC, "preprocessing": "nhwc"}, "images have 3 channels (mean and std), but the network takes 2"),
        ({"images": SPEC}, "images have 3 channels (mean and std), but the network takes 2"),
    ],
    ids=["layout", "unknown", "channels", "channels without it"],
)
def test_what_cannot_be_in_a_file_is_refused(options, message, write, tmp_path):
    assert message in refusal(UsageError, write, small_net(), colourless(), tmp_path / "net", **options)
    assert not list(tmp_path.iterdir())


def test_the_model_is_left_alone(tmp_path):
    model = made().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_onnx(model, torch.randn(2, 3, 16, 16), tmp_path / "net.onnx", images=SPEC, preprocessing="nchw")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
