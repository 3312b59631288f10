"""A file in int8 as a contender: counted as the network it was made from, and timed layer by layer."""

from pathlib import Path

import pytest
import torch
from bundles import images, small_net
from torch import nn

import slimnet
from slimnet.benchmark import Contender, Settings, compare
from slimnet.data import ImageData


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[nn.Module, list[Contender]]:
    """A network without BatchNorm, as an ONNX file and as one in int8."""
    folder: Path = tmp_path_factory.mktemp("int8")
    network = slimnet.slim(small_net(), images()).model
    pixels = torch.randint(0, 256, (12, 6, 6, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = ImageData.of("noise", (pixels, torch.arange(12) % 3), (pixels, torch.arange(12) % 3), "abc")
    float32 = slimnet.export_onnx(network, images(), folder / "float.onnx").path
    int8 = slimnet.export_int8(network, images(), folder / "int8.onnx", data).path
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
