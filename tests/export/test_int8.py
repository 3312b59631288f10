"""Networks in int8: the quantised numbers and what they compute by hand, the certificate, and what is refused."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from bundles import SmallNet, lived_in, refusal, small_net
from torch import nn

import slimnet
from slimnet.accuracy import Accuracy
from slimnet.data import ImageData, load_data
from slimnet.data.image_spec import ImageSpec
from slimnet.errors import DataError, ExportError, UsageError
from slimnet.export.int8.certificate import Int8Certificate
from slimnet.export.int8.export import export_int8
from slimnet.export.int8.verify import verify_int8
from slimnet.modules.digest import weights_digest
from slimnet.storage.files import sha256_of

EXAMPLE = torch.zeros(2, 2, 6, 6)


def noise(train: int = 40, test: int = 12, channels: int = 2) -> ImageData:
    """Random images of three classes."""
    pixels = torch.randint(0, 256, (train + test, 6, 6, channels), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(train + test) % 3
    parts = (pixels.to(torch.uint8), labels)
    return ImageData.of("noise", tuple(part[:train] for part in parts), tuple(part[train:] for part in parts), "abc")


def tensors(path: Path) -> dict[str, np.ndarray]:
    """What a file stores."""
    return {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}


def outputs(path: Path, images: torch.Tensor) -> np.ndarray:
    """What onnxruntime computes."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]


def rounded(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values as the nearest of 256 steps from low to high, as QDQ says: the zero point is a whole number."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / 255
    zero = round(-low / step)
    return (np.clip(np.rint(values / step) + zero, 0, 255) - zero) * step


def weights_rounded(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights as whole numbers of -64..64, and the step of each output channel."""
    step = np.abs(weight).reshape(len(weight), -1).max(1) / 64
    return np.rint(weight / step.reshape(-1, *[1] * (weight.ndim - 1))), step


def convolved(images: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A convolution of 3 × 3 with one pixel of zeros around, as a sum over its taps."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = images.shape[2:]
    taps = [
        np.einsum("nihw,oi->nohw", padded[:, :, y : y + height, x : x + width], weight[:, :, y, x])
        for y in range(3)
        for x in range(3)
    ]
    return sum(taps) + bias[None, :, None, None]


def test_the_file_holds_and_computes_what_quantisation_by_hand_does(tmp_path):
    """Oracle: numpy. Ranges are those of the float network on all calibration images, weights are round(w / step)."""
    torch.manual_seed(0)
    network, data = small_net(), noise()
    slim = slimnet.slim(network, EXAMPLE).model
    found = export_int8(slim, EXAMPLE, tmp_path / "net.int8.onnx", data)
    float32 = tensors(slimnet.export_onnx(slim, EXAMPLE, tmp_path / "float.onnx").path)
    weight, bias, linear = (
        float32[name].astype(np.float64) for name in ("conv.weight", "conv.weight_bias", "fc.weight")
    )
    stored = tensors(found.path)
    integers, steps = weights_rounded(weight)
    np.testing.assert_allclose(stored["conv.weight_scale"], steps, rtol=1e-6)
    assert np.array_equal(stored["conv.weight_quantized"], integers)
    assert stored["conv.weight_quantized"].dtype == np.int8

    seen = data.normalise(data.x_train).numpy().astype(np.float64)
    hidden = np.maximum(convolved(seen, weight, bias), 0)
    means = hidden.mean((2, 3))
    images = data.normalise(data.x_test).numpy().astype(np.float64)
    values = rounded(images, seen.min(), seen.max())
    values = convolved(values, integers * steps[:, None, None, None], bias)
    values = rounded(np.maximum(values, 0), 0, hidden.max()).mean((2, 3))
    integers, steps = weights_rounded(linear)
    expected = rounded(values, 0, means.max()) @ (integers * steps[:, None]).T + float32["fc.bias"]
    actual = outputs(found.path, data.normalise(data.x_test).contiguous())
    # One value may fall on the other side of a rounding, which is one step of a mean times a weight.
    assert np.abs(actual - expected).max() < means.max() / 255 * np.abs(linear).max()
    assert np.abs(actual - expected).mean() < 1e-4
    assert found.certificate.file.layers == 2


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, ImageData]:
    """A convolutional network of the digits that was trained for a second, with a third of its channels dead."""
    torch.manual_seed(0)
    data = load_data("digits")
    network = nn.Sequential(
        *(nn.Conv2d(1, 12, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.Conv2d(12, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(24 * 16, 10)),
    )
    for norm in (network[1], network[4]):
        norm.weight.data[::3] = 0
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(3):
        for images, labels in data.batches("train", 64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            for norm in (network[1], network[4]):
                norm.weight.grad[::3] = 0
            optimiser.step()
    return network.eval(), data


def test_the_certificate_holds_all_four_on_the_test_images(digits, tmp_path):
    """Oracles: torch for the float networks, onnxruntime for the int8 file; all figures counted here."""
    dense, data = digits
    example = data.normalise(data.x_test[:2])
    slim = slimnet.slim(dense, example).model
    given: list[tuple[int, int]] = []
    path = tmp_path / "net.int8.onnx"
    found = export_int8(
        slim, example, path, data, dense=dense, progress=lambda done, total, _: given.append((done, total))
    )
    assert Int8Certificate.read(tmp_path / "net.int8.onnx.json") == found.certificate
    certificate = found.certificate
    assert [each.name for each in certificate.networks] == ["dense", "slim", "dense int8", "slim int8"]
    assert (certificate.n, certificate.calibration.n, certificate.calibration.seed) == (359, 128, 0)
    assert certificate.versions["onnxruntime"] == onnxruntime.__version__
    assert certificate.file.sha256 == sha256_of(path)
    assert [each.weights for each in certificate.networks] == [weights_digest(dense), weights_digest(slim)] * 2
    with torch.no_grad():
        images = data.normalise(data.x_test).contiguous()
        scores = [dense(images).numpy(), slim(images).numpy()]
    scores.append(outputs(path, images))
    labels = data.y_test.numpy()
    for each, network in zip(scores, [*certificate.networks[:2], certificate.file], strict=True):
        best = np.argsort(-each, axis=1)
        five = (best[:, :5] == labels[:, None]).any(1).mean()
        assert network.accuracy == Accuracy((best[:, 0] == labels).mean(), five, 359)
    assert certificate.networks[0].accuracy.top1 > 0.9
    assert certificate.file.accuracy.top1 > certificate.networks[0].accuracy.top1 - 0.02
    (own,) = (each for each in certificate.agreements if (each.name, each.other) == ("slim int8", "slim"))
    apart = np.abs(scores[2] - scores[1])
    assert own.top1 == (scores[2].argmax(1) == scores[1].argmax(1)).mean()
    assert own.largest == pytest.approx(apart.max(), rel=1e-4)
    assert own.mean == pytest.approx(apart.mean(), rel=1e-4)
    assert {(each.name, each.other) for each in certificate.agreements} == {
        ("slim", "dense"),
        ("dense int8", "dense"),
        ("slim int8", "dense"),
        ("slim int8", "slim"),
        ("slim int8", "dense int8"),
    }
    assert given[0] == (0, 5)
    assert given[-1] == (5, 5)


def test_a_file_is_verified_against_its_certificate(digits, tmp_path):
    """Other bytes, another certificate and other data are refused; the right ones give the same accuracy again."""
    network, data = digits
    path, beside = tmp_path / "net.int8.onnx", tmp_path / "net.int8.onnx.json"
    # The data is given as it was loaded, and the file knows that pixels are in 0..1.
    spec = ImageSpec((0.0,), (1.0,), (16, 16))
    few = data.with_fewer_tests(100)
    export_int8(network, data.normalise(data.x_test[:2]), path, few, images=spec)
    found = verify_int8(path, data)
    assert found.holds
    assert found.measured == found.certificate.file.accuracy
    assert found.measured.n == 100
    assert "is the file of its certificate" in str(found)
    text = beside.read_text()
    assert "has 50 test images" in refusal(DataError, verify_int8, path, data.with_fewer_tests(50))
    upside_down = replace(data, x_test=255 - data.x_test)
    assert "they differ" in refusal(ExportError, verify_int8, path, upside_down)
    beside.write_text(text.replace(found.certificate.file.sha256, "0" * 64))
    assert "its SHA-256 differs" in refusal(ExportError, verify_int8, path, data)
    beside.write_text(text.replace('"n": 100', '"n": "many"'))
    assert "export the network again with --int8" in refusal(ExportError, verify_int8, path, data)
    beside.unlink()
    (tmp_path / "net.int8.json").write_text(text)
    assert verify_int8(path, data).holds, "slimnet 0.1 wrote the certificate under this name"
    (tmp_path / "net.int8.json").unlink()
    assert "net.int8.onnx has no certificate beside it" in refusal(UsageError, verify_int8, path, data)
    elsewhere = tmp_path / "elsewhere.onnx"
    onnx.save(onnx.load(path), elsewhere, save_as_external_data=True, location="weights", size_threshold=0)
    assert "are in another file" in refusal(ExportError, verify_int8, elsewhere, data)
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    assert "does not say how images become its inputs" in refusal(ExportError, verify_int8, path, data)


def test_bytes_are_normalised_in_float32(tmp_path):
    """With preprocessing the file gives what the plain one gives for normalised images, at other sizes too."""
    slim, data = slimnet.slim(small_net(), EXAMPLE).model, noise()
    plain = export_int8(slim, EXAMPLE, tmp_path / "plain.onnx", data)
    for layout in ("nhwc", "nchw"):
        path = tmp_path / f"{layout}.onnx"
        found = export_int8(slim, EXAMPLE, path, data, preprocessing=layout, dynamic_size=True)
        assert found.certificate.file.accuracy == plain.certificate.file.accuracy
        for pixels in (data.x_test, data.x_test.repeat(1, 2, 3, 1)):
            given = pixels if layout == "nhwc" else pixels.permute(0, 3, 1, 2).contiguous()
            actual = outputs(path, given)
            if pixels is data.x_test:
                expected = outputs(plain.path, data.normalise(pixels).contiguous())
                assert np.abs(actual - expected).max() < 0.01
            assert actual.shape == (12, 3)
    rounded_values = {node.output[0] for node in onnx.load(path).graph.node if node.op_type == "DequantizeLinear"}
    arithmetic = [node for node in onnx.load(path).graph.node if node.op_type in ("Mul", "Add")]
    assert len(arithmetic) == 2
    assert not rounded_values & {name for node in arithmetic for name in node.input}
    about = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert about["image_dtype"] == "uint8"
    assert about["calibration"] == "minimum and maximum on 40 training images of noise, drawn with seed 0"


def test_calibration_takes_training_images_alone_and_the_seed_says_which(tmp_path):
    slim, data = slimnet.slim(small_net(), EXAMPLE).model, noise()
    wild = ImageData.of("noise", (data.x_train, data.y_train), (255 - 0 * data.x_test, data.y_test), "abc")

    def scale(data: ImageData, **options: int) -> float:
        export = export_int8(slim, EXAMPLE, tmp_path / "net.onnx", data, images=noise().spec, **options)
        return float(tensors(export.path)["relu_scale"])

    assert scale(data) == scale(wild)
    assert scale(data, calibration_images=2, seed=1) == scale(data, calibration_images=2, seed=1)
    assert scale(data, calibration_images=2, seed=1) != scale(data, calibration_images=2, seed=2)


class Unranked(nn.Module):
    """No layer with weights."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean((2, 3)).sigmoid()


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (DataError, {"calibration_images": 41}, "noise has 40 training images, fewer than the 41 to calibrate with"),
        (UsageError, {"calibration_images": 0}, "calibration_images is 0; it must be at least 1"),
        (DataError, {"data": noise(channels=1)}, "noise has images of 1 channels, but the network takes 2"),
        (DataError, {"model": SmallNet().fc}, "slim answers"),
        (UsageError, {"model": SmallNet().double(), "example": EXAMPLE.double()}, "the network takes float64"),
        (UsageError, {"example": torch.zeros(2, 5)}, "int8 is for a network that takes one tensor (N, C, H, W)"),
        (UsageError, {"dense": SmallNet(), "name": "dense"}, "give this one another name"),
        (ExportError, {"model": Unranked()}, "finds no layer in Unranked that it can quantise"),
        (UsageError, {"opset": 3}, "opset is 3"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_nothing_is_written(kind, change, message, tmp_path):
    if message == "slim answers":
        change = {"model": lived_in(nn.Sequential(nn.Conv2d(2, 5, 6), nn.BatchNorm2d(5), nn.Flatten())).eval()}
    given = {"model": small_net(), "example": EXAMPLE, "data": noise()} | change
    model, example, data = (given.pop(name) for name in ("model", "example", "data"))
    (tmp_path / "net.onnx").write_text("what was there")
    assert message in refusal(kind, export_int8, model, example, tmp_path / "net.onnx", data, **given)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    assert (tmp_path / "net.onnx").read_text() == "what was there"


def test_what_the_quantiser_says_is_one_line_and_logging_stays_as_it_was(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        logging.warning("a word")
        raise ValueError("two lines\nof reasons")

    monkeypatch.setattr("slimnet.export.int8.quantise.quantize_static", refuse)
    before = list(logging.getLogger().handlers)
    said = refusal(ExportError, export_int8, small_net(), EXAMPLE, tmp_path / "net.onnx", noise())
    assert said == "onnxruntime does not quantise SmallNet: ValueError: two lines of reasons"
    assert logging.getLogger().handlers == before
    assert not list(tmp_path.iterdir())


def test_a_certificate_that_is_none_is_refused(tmp_path):
    path = tmp_path / "net.json"
    path.write_text(json.dumps({"data": "digits"}))
    assert "export the network again with --int8" in refusal(ExportError, Int8Certificate.read, path)
