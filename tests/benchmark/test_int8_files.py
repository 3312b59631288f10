"""A file in int8 as a contender: counted as the network it was made from, and timed layer by layer."""

from pathlib import Path

import pytest
import torch
from bundles import images, small_net
from torch import nn

import slimnet
from slimnet.benchmark import Contender, Settings, compare
from slimnet.benchmark.byte_inputs import FromNormalised, example_shape, inputs_for
from slimnet.data import ImageData
from slimnet.export.telemetry import without_telemetry
from slimnet.modules.example_inputs import Inputs

PIXELS = torch.randint(0, 256, (12, 6, 6, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
DATA = ImageData.of("noise", (PIXELS, torch.arange(12) % 3), (PIXELS, torch.arange(12) % 3), "abc")


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[nn.Module, list[Contender]]:
    """A network without BatchNorm, as an ONNX file and as one in int8."""
    folder: Path = tmp_path_factory.mktemp("int8")
    network = slimnet.slim(small_net(), images()).model
    float32 = slimnet.export_onnx(network, images(), folder / "float.onnx").path
    int8 = slimnet.export_int8(network, images(), folder / "int8.onnx", DATA).path
    return network, [Contender("float", onnx=float32), Contender("int8", onnx=int8, files={"onnx": int8})]


def test_it_is_counted_and_its_layers_are_those_of_the_network(pair):
    """Oracle: the network's own sizes: 4 of 6 channels are left, on 6 × 6 pixels."""
    network, contenders = pair
    width = network.conv.out_channels
    runtimes = ("onnxruntime", "openvino")
    found = compare(contenders, images(1), Settings((1,), 1, 0.02, runtimes=runtimes, layers=True))
    convolution, linear = 6 * 6 * 9 * 2 * width, 3 * width
    weights = 9 * 2 * width + width + 3 * width + 3
    assert [(each.macs, each.params) for each in found.counts] == [(convolution + linear, weights)] * 2
    assert {each.runtime for each in found.latencies} == set(runtimes)
    for profile in found.profiles:
        rows = {(row.name, row.kind): row for row in profile.layers}
        assert set(rows) == {("conv", "conv"), ("fc", "linear")}
        assert rows["conv", "conv"].macs == (convolution, convolution)
        assert all(row.samples_ms[0] for row in rows.values())
        assert rows["conv", "conv"].samples_ms[1]
    assert next(each for each in found.profiles if each.runtime == "onnxruntime").layers[1].samples_ms[1]


def test_a_file_of_openvino_is_counted_and_timed_by_layer(pair, tmp_path):
    """The same network in OpenVINO's own format, in float32 and quantised by NNCF, has the rows of the ONNX file."""
    with without_telemetry():
        pytest.importorskip("nncf")
    network, contenders = pair
    float32 = slimnet.export_openvino(network, images(), tmp_path / "float.xml").path
    int8 = slimnet.export_int8(network, images(), tmp_path / "int8.xml", DATA).path
    models = {"onnx": contenders[0].onnx, "float": float32, "int8": int8}
    found = compare(models, images(1), Settings((1,), 1, 0.02, runtimes=("openvino",), layers=True))
    assert len({(each.macs, each.params) for each in found.counts}) == 1
    assert found.counts[1].file_bytes["openvino weights"] == float32.with_suffix(".bin").stat().st_size
    rows = {(row.name, row.kind): row for row in found.profiles[0].layers}
    assert set(rows) == {("conv", "conv"), ("fc", "linear")}
    assert all(samples for row in rows.values() for samples in row.samples_ms)
    assert len({row.macs for row in rows.values() if row.name == "conv"}.pop()) == 3


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_files_that_take_bytes_are_measured_beside_those_that_take_numbers(layout, pair, tmp_path):
    """Oracle for the accuracy: the network in torch, on the images as the data normalises them."""
    network, contenders = pair
    options = {"images": DATA.spec, "preprocessing": layout}
    of_bytes = slimnet.export_onnx(network, images(), tmp_path / "bytes.onnx", **options).path
    int8 = slimnet.export_int8(network, images(), tmp_path / "bytes int8.onnx", DATA, preprocessing=layout).path
    models = {"float": contenders[0].onnx, "bytes": of_bytes, "int8": int8}
    settings = Settings((1, 2), 1, 0.02, runtimes=("onnxruntime", "openvino"), layers=True)
    found = compare(models, images(1), settings, data=DATA)
    assert {(each.runtime, each.batch) for each in found.latencies} == {
        (runtime, batch) for runtime in settings.runtimes for batch in settings.batches
    }
    with torch.no_grad():
        expected = (network(DATA.normalise(DATA.x_test)).argmax(1) == DATA.y_test).double().mean()
    for each in found.accuracies:
        assert [value.top1 for value in each.values[:2]] == [pytest.approx(float(expected))] * 2
    for profile in found.profiles:
        assert {(row.name, row.kind) for row in profile.layers} == {("conv", "conv"), ("fc", "linear")}
    assert len({each.macs for each in found.counts}) == 1


def test_the_pixels_that_a_file_gets_are_those_of_the_image(pair, tmp_path):
    """Oracle: the bytes themselves, before they were normalised."""

    class Sums(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            assert pixels.dtype == torch.uint8
            return pixels

    normalised = DATA.normalise(DATA.x_test)
    assert torch.equal(FromNormalised(Sums(), DATA.spec, "nhwc")(normalised), DATA.x_test)
    assert torch.equal(FromNormalised(Sums(), DATA.spec, "nchw")(normalised), DATA.x_test.permute(0, 3, 1, 2))
    network, contenders = pair
    path = slimnet.export_onnx(
        network, images(), tmp_path / "net.onnx", images=DATA.spec, preprocessing="nhwc", dynamic_size=True
    ).path
    given = inputs_for(path, Inputs.of(torch.tensor([-1.0, 0.0, 1.0]).expand(2, 2, 3, 3))).tensors[0]
    assert given.shape == (2, 3, 3, 2)
    assert given[0, 0, :, 0].tolist() == [0, 128, 255]
    assert example_shape(path) == (2, 6, 6)
    assert inputs_for(contenders[0].onnx, Inputs.of(images())).tensors[0].dtype == torch.float32
    constant = inputs_for(path, Inputs.of(torch.ones(1, 2, 3, 3))).tensors[0]
    assert constant.unique().tolist() == [0]
