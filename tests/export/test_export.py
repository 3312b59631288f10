"""ONNX files: what onnx and onnxruntime themselves say of them, and every way in which none is written."""

import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from bundles import assert_same_snapshot, everything, images, lived_in, refusal, small_net, snapshot
from torch import nn

import slimnet
from slimnet.errors import ExportError, InputError, UsageError
from slimnet.export import onnx as export
from slimnet.export import onnx_graph
from slimnet.export.onnx import OPSETS, export_onnx
from slimnet.modules.example_inputs import tensors_in

pytestmark = pytest.mark.usefixtures("operators_read_once")

ROOT = Path(__file__).parents[2]


class Foldable(nn.Module):
    """Every layer that a BatchNorm can be folded into, and several numbers of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(6, 5, 2, stride=2), nn.BatchNorm2d(5), nn.ReLU())
        self.fc = nn.Sequential(nn.Linear(5, 7, bias=False), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(0.9))
        self.out = nn.Linear(7, 3)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return self.out(self.fc(self.up(self.depthwise(self.conv(picture))).mean((2, 3))))


class Two(nn.Module):
    """Two inputs and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 4, 3), nn.Linear(5, 4)

    def forward(self, image: torch.Tensor, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.conv(image).relu()
        return features, features.mean((2, 3)) + self.fc(numbers)


@dataclass
class Found:
    """An output as libraries wrap it: a plain object."""

    logits: torch.Tensor
    hidden: torch.Tensor
    loss: None = None


class Keyed(nn.Module):
    """Returns a dict, or a plain object."""

    def __init__(self, wrap: type) -> None:
        super().__init__()
        self.conv, self.wrap = nn.Conv2d(2, 4, 3), wrap

    def forward(self, *, pixels: torch.Tensor):
        hidden = self.conv(pixels).relu()
        return self.wrap(logits=hidden.mean((2, 3)), hidden=hidden)


class HardCoded(nn.Module):
    """A forward for batches of three."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(3, -1).sum(1)


class DataDependent(nn.Module):
    """A forward that looks at the numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


class Raises(nn.Module):
    """A forward that raises over several lines."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("first line\nsecond line")


class Nothing(nn.Module):
    """A forward that returns no tensor."""

    def forward(self, x: torch.Tensor) -> int:
        return 3


class NoCounterpart(nn.Module):
    """An operator that ONNX does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x).abs()


def foldable() -> nn.Module:
    torch.manual_seed(0)
    return lived_in(Foldable(), dead=0)


def run(path: Path, **inputs: torch.Tensor) -> list[np.ndarray]:
    """Oracle: onnxruntime by itself."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})


def properties(path: Path) -> dict[str, str]:
    return {each.key: each.value for each in onnx.load(path).metadata_props}


def assert_close(model: nn.Module, path: Path, tolerance: float = 1e-5, **inputs: torch.Tensor) -> None:
    with torch.no_grad():
        expected = tensors_in(model(**inputs))
    actual = run(path, **inputs)
    assert len(actual) == len(expected)
    for left, right in zip(expected, actual, strict=True):
        assert left.numpy().dtype == right.dtype
        np.testing.assert_allclose(right, left.numpy(), rtol=tolerance, atol=tolerance * left.abs().max().item())


@pytest.fixture(scope="module")
def foldable_file(tmp_path_factory, operators_read_once):
    """A network in train mode with parameters that are frozen, exported; also what it was before and after."""
    model = foldable().train()
    model.conv[0].weight.requires_grad_(False)
    before, random = snapshot(model), torch.get_rng_state()
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    result = export_onnx(model, images(), path, metadata={"plan_digest": "abc", "source": "net.pt"})
    return model, path, result, before, random


def test_the_checker_of_onnx_passes(foldable_file):
    onnx.checker.check_model(onnx.load(foldable_file[1]), full_check=True)


@pytest.mark.parametrize("batch", [1, 2, 5, 7])
def test_any_batch_size_gives_what_the_network_gives_in_evaluation_mode(foldable_file, batch):
    assert_close(foldable().eval(), foldable_file[1], picture=images(batch, seed=batch))


def test_no_batch_norm_is_left_behind_a_layer(foldable_file):
    """Behind convolution, depthwise and transposed convolution, and linear layer."""
    operators = {node.op_type for node in onnx.load(foldable_file[1]).graph.node}
    assert "BatchNormalization" not in operators
    assert {"Conv", "ConvTranspose"} <= operators
    assert "Dropout" not in operators


def test_inputs_are_named_as_in_forward_and_the_batch_by_its_name(foldable_file):
    graph = onnx.load(foldable_file[1]).graph
    (given,), (returned,) = graph.input, graph.output
    assert (given.name, returned.name) == ("picture", "output")
    assert [axis.dim_param or axis.dim_value for axis in given.type.tensor_type.shape.dim] == ["batch", 2, 6, 6]
    assert [axis.dim_param or axis.dim_value for axis in returned.type.tensor_type.shape.dim] == ["batch", 3]


def test_nodes_are_named_by_their_modules(foldable_file):
    """Also those into which a BatchNorm was folded."""
    names = [node.name for node in onnx.load(foldable_file[1]).graph.node]
    assert len(set(names)) == len(names)
    layers = {"conv.0/Conv", "depthwise.0/Conv", "up.0/ConvTranspose", "fc.0/Gemm", "out/Gemm"}
    assert layers <= set(names)
    assert {"conv.2/Relu", "ReduceMean"} <= set(names)


def test_the_file_holds_everything(foldable_file):
    """One file, and no weights outside of it."""
    _, path, *_ = foldable_file
    assert set(everything(path.parent)) == {"net.onnx"}
    assert not any(each.external_data for each in onnx.load(path, load_external_data=False).graph.initializer)


def test_the_metadata_say_what_it_was_made_from_and_by_what(foldable_file):
    _, path, result, *_ = foldable_file
    (opset,) = (each.version for each in onnx.load(path).opset_import if each.domain == "")
    assert properties(path) == {
        "plan_digest": "abc",
        "source": "net.pt",
        "opset": str(opset),
        "slimnet": slimnet.__version__,
        "torch": torch.__version__,
    }
    assert result.opset == opset


def test_the_result_says_what_was_written(foldable_file):
    _, path, result, *_ = foldable_file
    assert result.path == path
    assert result.size_bytes == path.stat().st_size
    assert 0 <= result.max_rel_difference < 1e-5
    assert result.batches == (1, 5)
    assert str(result).startswith(f"{path}: ONNX opset {result.opset}, {path.stat().st_size:,} bytes")


def test_nothing_of_the_machine_is_in_the_file(foldable_file):
    content = foldable_file[1].read_bytes()
    for place in (str(ROOT), str(Path.home()), os.path.dirname(torch.__file__), str(foldable_file[1].parent), ".py"):
        assert place.encode() not in content


def test_the_network_and_the_random_numbers_are_left_alone(foldable_file):
    """It was in train mode, with frozen parameters."""
    model, _, _, before, random = foldable_file
    assert_same_snapshot(before, snapshot(model))
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)


def test_the_same_network_gives_the_same_file(foldable_file, tmp_path):
    """Under autocast of the caller too, which would write casts into the graph."""
    _, path, *_ = foldable_file
    metadata = {"source": "net.pt", "plan_digest": "abc"}
    with torch.autocast("cpu", torch.bfloat16):
        again = export_onnx(foldable(), images(), tmp_path / "n.onnx", metadata=metadata)
    assert again.path.read_bytes() == path.read_bytes()


def test_channels_last_is_no_part_of_the_graph(tmp_path):
    """torch's global average keeps that layout, which the exporter spells out with a dozen operators."""
    model = slimnet.build("basicnet", {"width": 0.1, "hidden": 8}).eval()
    operators = {}
    for memory_format in (torch.contiguous_format, torch.channels_last):
        path = tmp_path / f"{len(operators)}.onnx"
        images = torch.randn(2, 3, 16, 16).contiguous(memory_format=memory_format)
        slimnet.export_onnx(model.to(memory_format=memory_format), images, path)
        operators[memory_format] = [node.op_type for node in onnx.load(path).graph.node]
    assert operators[torch.channels_last] == operators[torch.contiguous_format]


def test_several_inputs_and_outputs_keep_their_order_and_names(tmp_path):
    torch.manual_seed(0)
    model, path = Two().eval(), tmp_path / "two.onnx"
    export_onnx(model, [images(2), torch.randn(2, 5)], path)
    graph = onnx.load(path).graph
    assert [each.name for each in graph.input] == ["image", "numbers"]
    assert [each.name for each in graph.output] == ["output_0", "output_1"]
    for batch in (1, 7):
        assert_close(model, path, image=images(batch), numbers=torch.randn(batch, 5))


@pytest.mark.parametrize("wrap", [dict, Found])
def test_outputs_in_a_dict_or_an_object_are_named_by_their_keys(wrap, tmp_path):
    torch.manual_seed(0)
    model, path = Keyed(wrap).eval(), tmp_path / "keyed.onnx"
    export_onnx(model, {"pixels": images()}, path)
    graph = onnx.load(path).graph
    assert [each.name for each in graph.input] == ["pixels"]
    assert [each.name for each in graph.output] == ["logits", "hidden"]
    assert_close(model, path, pixels=images(7))


def test_half_precision_stays_half_precision(tmp_path):
    model, path = small_net().half(), tmp_path / "net.onnx"
    export_onnx(model, images(dtype=torch.float16), path)
    assert_close(model, path, 1e-2, image=images(7, dtype=torch.float16))


def test_double_precision_does_not_pass_through_single(tmp_path):
    """A linear network, since onnxruntime has no convolution in double precision."""
    torch.manual_seed(0)
    model, path = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).double().eval(), tmp_path / "net.onnx"
    export_onnx(model, torch.randn(2, 5, dtype=torch.float64), path)
    assert_close(model, path, 1e-14, input=torch.randn(7, 5, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_type_that_onnxruntime_has_no_convolution_for_is_refused_with_what_to_do(dtype, tmp_path):
    model, name = small_net().to(dtype), str(dtype).removeprefix("torch.")
    message = refusal(ExportError, export_onnx, model, images(dtype=dtype), tmp_path / "net.onnx")
    assert re.fullmatch(rf"net\.onnx .*; the network is {name}, convert it with \.float\(\)", message)
    assert everything(tmp_path) == {}


def test_the_opset_is_what_was_asked_for(tmp_path):
    result = export_onnx(small_net(), images(), tmp_path / "net.onnx", opset=OPSETS[0])
    (opset,) = (each.version for each in onnx.load(result.path).opset_import if each.domain == "")
    assert opset == result.opset == OPSETS[0]
    assert_close(small_net(), result.path, image=images(7))


@pytest.mark.parametrize("opset", [0, -1, OPSETS[0] - 1, OPSETS[-1] + 1, "20", 20.5, True])
def test_an_opset_that_cannot_be_written_is_refused(opset, tmp_path):
    message = refusal(UsageError, export_onnx, small_net(), images(), tmp_path / "net.onnx", opset=opset)
    assert repr(opset) in message
    assert f"from {OPSETS[0]} to {OPSETS[-1]}" in message
    assert everything(tmp_path) == {}


@pytest.mark.parametrize("metadata", [{"source": 3}, {3: "source"}, {"source": None}, {"source": b"x"}])
def test_metadata_that_are_not_text_are_refused(metadata, tmp_path):
    message = refusal(UsageError, export_onnx, small_net(), images(), tmp_path / "net.onnx", metadata=metadata)
    assert "metadata" in message
    assert everything(tmp_path) == {}


def test_weights_that_do_not_fit_into_one_file_are_refused(tmp_path, monkeypatch):
    """Before any work is done. The limit is lowered to a byte less than this network takes."""
    model = small_net()
    monkeypatch.setattr(export, "SIZE_LIMIT", sum(t.nbytes for t in model.state_dict().values()) - 1)
    monkeypatch.setattr(export, "capture_form", None)
    message = refusal(ExportError, export_onnx, model, images(), tmp_path / "net.onnx")
    assert "GB" in message
    assert ".half()" in message
    assert everything(tmp_path) == {}


def test_the_limit_is_that_of_protobuf():
    assert export.SIZE_LIMIT == 2**31 - 1


FAILING = {
    "hard-coded batch": (HardCoded(), torch.randn(3, 4), ExportError, "batch"),
    "depends on data": (DataDependent(), torch.randn(3, 4), ExportError, "depends on the values"),
    "no tensor": (Nothing(), torch.randn(3, 4), ExportError, "returns no tensor"),
    "forward raises": (Raises(), torch.randn(3, 4), InputError, "RuntimeError: first line"),
    "no counterpart": (NoCounterpart(), torch.randn(3, 4, 4), ExportError, "cannot be written as ONNX"),
    "wrong shape": (small_net(), torch.randn(3, 1, 6, 6), InputError, "(3, 1, 6, 6)"),
    "wrong type": (small_net(), images(dtype=torch.float64), InputError, "float64"),
    "wrong number": (small_net(), [images(), images()], InputError, "SmallNet does not take"),
    "no example": (small_net(), images(0), InputError, "no example"),
    "no input": (small_net(), [], InputError, "no tensor"),
}


@pytest.mark.parametrize(("model", "inputs", "kind", "message"), FAILING.values(), ids=FAILING)
def test_what_cannot_be_exported_is_one_line_and_leaves_an_earlier_file(model, inputs, kind, message, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_text("old")
    before = everything(tmp_path)
    said = refusal(kind, export_onnx, model, inputs, path)
    assert message in said
    assert everything(tmp_path) == before


def test_a_file_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    """The translation is given away for that of another network."""
    translate, other = onnx_graph.translate, slimnet.export.capture.capture(small_net(seed=1), images())
    monkeypatch.setattr(onnx_graph, "translate", lambda _, opset: translate(other, opset))
    message = refusal(ExportError, export_onnx, small_net(), images(), tmp_path / "net.onnx")
    assert re.match(r"SmallNet as ONNX differs from the network by \d", message)
    assert everything(tmp_path) == {}


def test_a_file_that_onnx_does_not_read_is_not_written_and_called_by_its_own_name(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph.ir, "to_proto", lambda _: onnx.ModelProto())
    message = refusal(ExportError, export_onnx, small_net(), images(), tmp_path / "net.onnx")
    assert message.startswith("net.onnx is not an ONNX model that onnxruntime runs: ")
    assert everything(tmp_path) == {}


def test_an_earlier_file_is_replaced(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_text("old")
    export_onnx(small_net(), images(), path)
    onnx.checker.check_model(onnx.load(path))
    assert set(everything(tmp_path)) == {"net.onnx"}


def test_a_target_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "capture_form", None)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    for name, said in (("folder", "is a folder"), ("no/net.onnx", "there is no folder"), ("file/net.onnx", "file")):
        message = refusal(ExportError, export_onnx, small_net(), images(), tmp_path / name)
        assert message.startswith(f"cannot write {tmp_path / name}: ")
        assert said in message
    assert set(everything(tmp_path)) == {"folder", "file"}


def test_the_exporters_say_nothing(tmp_path, capfd, caplog):
    """On the terminal, in logs, or as warnings, which the test run would turn into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_onnx(small_net(), images(), tmp_path / "net.onnx")
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
