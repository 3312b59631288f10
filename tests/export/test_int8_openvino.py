"""Networks in int8 for OpenVINO, quantised by NNCF: weights by hand, the certificate, and what is refused."""

import logging
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bundles import lived_in, refusal, small_net
from test_int8 import EXAMPLE, Unranked, noise
from torch import nn

import slimnet
from slimnet.benchmark.counts import onnx_macs
from slimnet.benchmark.openvino_counts import count_openvino
from slimnet.errors import DataError, ExportError, UsageError
from slimnet.export.int8 import nncf_package
from slimnet.export.int8.certificate import Int8Certificate
from slimnet.export.int8.export import export_int8
from slimnet.export.int8.quantise_openvino import is_quantised
from slimnet.export.int8.verify import verify_int8
from slimnet.export.telemetry import without_telemetry
from slimnet.modules.digest import weights_digest

with without_telemetry():
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("nncf")


def graph(path: Path) -> object:
    """A file as OpenVINO reads it."""
    return openvino.Core().read_model(path)


def outputs(path: Path, images: torch.Tensor) -> np.ndarray:
    """What OpenVINO computes, asked for float32 where a processor has shorter types."""
    network = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return network(images.numpy())[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A slim network and its dense one, with their int8 file and certificate, beside that of onnxruntime."""
    folder = tmp_path_factory.mktemp("nncf")
    dense, data = small_net(), noise()
    slim = slimnet.slim(dense, EXAMPLE).model
    found = export_int8(slim, EXAMPLE, folder / "net.int8.xml", data, dense=dense)
    return dense, slim, data, found


def test_weights_are_rounded_to_seven_bits_by_output_channel(made):
    """Oracle: the weights of the float network, and the step that seven bits allow of them."""
    _, slim, _, found = made
    float32 = slimnet.export_onnx(slim, EXAMPLE, found.path.with_suffix(".onnx")).path
    nodes = [node for node in graph(found.path).get_ops() if is_quantised(node)]
    layers = {node.get_friendly_name().partition("/")[0]: node for node in nodes}
    assert sorted(layers) == ["conv", "fc"]
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(float32).graph.initializer}
    for name, node in layers.items():
        scale_node = node.input_value(1).get_node()
        stored = scale_node.input_value(0).get_node().input_value(0).get_node().get_data().astype(np.float64)
        scale = scale_node.input_value(1).get_node().get_data().astype(np.float64)
        weight = weights[f"{name}.weight"].astype(np.float64)
        assert np.abs(stored).max() <= 64
        assert np.abs(stored * scale - weight).max() <= np.abs(weight).max() / 64 * 0.51
        largest = np.abs(weight).reshape(len(weight), -1).max(1)
        assert np.all(np.abs(stored).reshape(len(weight), -1).max(1)[largest > 0] >= 63)


def test_the_certificate_holds_all_four_under_openvino(made):
    """Oracles: torch for the float networks, OpenVINO itself for the int8 file, counted here."""
    dense, slim, data, found = made
    certificate = found.certificate
    assert Int8Certificate.read(found.certificate_path) == certificate
    assert certificate.runtime == "openvino"
    assert [each.name for each in certificate.networks] == ["dense", "slim", "dense int8", "slim int8"]
    assert [each.weights for each in certificate.networks] == [weights_digest(dense), weights_digest(slim)] * 2
    assert (certificate.calibration.n, certificate.calibration.seed) == (40, 0)
    assert {"openvino", "nncf"} <= set(certificate.versions)
    images, labels = data.normalise(data.x_test).contiguous(), data.y_test.numpy()
    with torch.no_grad():
        scores = {"dense": dense(images).numpy(), "slim": slim(images).numpy()}
    scores["slim int8"] = outputs(found.path, images)
    for network in certificate.networks:
        if network.name in scores:
            assert network.accuracy.top1 == (scores[network.name].argmax(1) == labels).mean()
    (own,) = (each for each in certificate.agreements if (each.name, each.other) == ("slim int8", "slim"))
    apart = np.abs(scores["slim int8"] - scores["slim"])
    assert own.mean == pytest.approx(apart.mean(), rel=1e-3)
    assert 0 < own.largest == pytest.approx(apart.max(), rel=1e-3)
    assert own.largest < 0.05 * np.abs(scores["slim"]).max()
    assert found.size_bytes == sum(found.path.with_suffix(end).stat().st_size for end in (".xml", ".bin"))
    assert "net.int8.xml and " in str(found)


def test_its_macs_and_parameters_are_those_of_the_network(made):
    """Oracle: the ONNX file of the network, counted by its own shapes, and the sizes of its tensors."""
    _, slim, _, found = made
    float32 = slimnet.export_onnx(slim, EXAMPLE, found.path.with_name("float.onnx")).path
    counts = count_openvino("net", found.path, {})
    width = slim.conv.out_channels
    assert counts.macs == onnx_macs(float32)
    assert counts.params == 9 * 2 * width + width + 3 * width + 3


def test_a_file_is_verified_with_its_weights(made, tmp_path):
    """The weights are part of the hash: other ones are another file, and without them there is none."""
    _, _, data, found = made
    for each in (".xml", ".bin", ".xml.json"):
        (tmp_path / f"net{each}").write_bytes(found.path.with_suffix(each).read_bytes())
    path, weights = tmp_path / "net.xml", tmp_path / "net.bin"
    assert verify_int8(path, data).measured == found.certificate.file.accuracy
    content = bytearray(weights.read_bytes())
    content[0] ^= 1
    weights.write_bytes(content)
    assert "its SHA-256 differs" in refusal(ExportError, verify_int8, path, data)
    weights.unlink()
    assert "net.bin: cannot be read" in refusal(ExportError, verify_int8, path, data)
    os.mkfifo(weights)
    assert "net.bin: cannot be read" in refusal(ExportError, verify_int8, path, data)
    path.write_text("<net")
    weights.unlink()
    weights.write_bytes(b"")
    assert "is not a network that OpenVINO runs" in refusal(ExportError, verify_int8, path, data)


def test_bytes_are_normalised_in_float32(made, tmp_path):
    """With preprocessing the file gives what the plain one gives for normalised images."""
    _, slim, data, plain = made
    found = export_int8(slim, EXAMPLE, tmp_path / "bytes.xml", data, preprocessing="nhwc")
    assert found.certificate.file.accuracy == plain.certificate.file.accuracy
    expected = outputs(plain.path, data.normalise(data.x_test).contiguous())
    assert np.abs(outputs(found.path, data.x_test) - expected).max() < 0.01
    before = [node for node in graph(found.path).get_ordered_ops() if node.get_friendly_name() in ("Mul", "Add")]
    assert len(before) == 2
    assert all(node.input_value(0).get_node().get_type_name() != "FakeQuantize" for node in before)


def test_the_same_images_give_the_same_numbers_and_the_seed_says_which(made, tmp_path):
    _, slim, data, _ = made
    images = data.normalise(data.x_test).contiguous()

    def scores(seed: int) -> list[list[float]]:
        found = export_int8(slim, EXAMPLE, tmp_path / "net.xml", data, calibration_images=2, seed=seed)
        return outputs(found.path, images).tolist()

    first = scores(1)
    assert scores(1) == first
    assert scores(2) != first


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (DataError, {"calibration_images": 41}, "noise has 40 training images, fewer than the 41 to calibrate with"),
        (ExportError, {"model": Unranked()}, "finds no layer in the network that it can quantise"),
        (UsageError, {"opset": 20}, "opset is for ONNX files"),
        (DataError, {"model": "wide"}, "slim answers"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_nothing_is_written(kind, change, message, tmp_path):
    if change.get("model") == "wide":
        change = {"model": lived_in(nn.Sequential(nn.Conv2d(2, 5, 6), nn.BatchNorm2d(5), nn.Flatten())).eval()}
    given = {"model": small_net()} | change
    (tmp_path / "net.bin").write_text("what was there")
    assert message in refusal(kind, export_int8, given.pop("model"), EXAMPLE, tmp_path / "net.xml", noise(), **given)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["what was there"]


def test_what_nncf_says_is_one_line_and_it_neither_prints_nor_changes_logging(made, tmp_path, monkeypatch, capfd):
    _, slim, data, _ = made
    loggers = logging.getLoggerClass()
    export_int8(slim, EXAMPLE, tmp_path / "net.xml", data)
    written = capfd.readouterr()
    assert (written.out, written.err) == ("", "")
    assert logging.getLoggerClass() is loggers
    assert not logging.getLogger("nncf").disabled

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("two lines\nof reasons")

    monkeypatch.setattr("nncf.quantize", refuse)
    said = refusal(ExportError, export_int8, slim, EXAMPLE, tmp_path / "other.xml", data)
    assert said == "NNCF does not quantise the network: ValueError: two lines of reasons"
    assert not (tmp_path / "other.xml").exists()


def test_without_nncf_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(nncf_package, "installed_version", lambda _: nncf_package.NOT_INSTALLED)
    said = refusal(UsageError, export_int8, small_net(), EXAMPLE, tmp_path / "net.xml", noise())
    assert (
        said
        == "nncf is not installed, which quantises for OpenVINO; pip install '.[openvino-int8]' in a clone of slimnet"
    )
    assert not list(tmp_path.iterdir())
