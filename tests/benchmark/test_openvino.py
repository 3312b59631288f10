"""OpenVINO behind the protocol of runtimes: what it computes, its layers, and what it refuses. No time is judged."""

import json
import sys
from pathlib import Path

import onnx
import pytest
import slimnet_cli
import torch
from bundles import onnx_file
from onnx import TensorProto, helper
from test_benchmark_layers import EXAMPLE, Dense

import slimnet
from slimnet.benchmark import Contender, Settings, cells
from slimnet.benchmark.contender import Cell
from slimnet.benchmark.runtimes.openvino import OpenVino, OpenVinoClassifier
from slimnet.benchmark.runtimes.openvino_layers import OpenVinoLayers
from slimnet.benchmark.runtimes.openvino_session import request_for
from slimnet.benchmark.settings import left_out
from slimnet.errors import UsageError
from slimnet.methods.latency_budget import stopwatch
from slimnet.modules.example_inputs import Inputs
from slimnet.torch_state.process import DENORMAL, denormals_flushed

NAME = OpenVino.name
WRONG = torch.randn(1, 4, 16, 16)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return Dense().eval()


@pytest.fixture(scope="module")
def path(model, tmp_path_factory) -> Path:
    return slimnet.export_onnx(model, EXAMPLE, tmp_path_factory.mktemp("openvino") / "net.onnx").path


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    """An operator that onnxruntime has and OpenVINO has not."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, 3][:n]) for name, n in (("x", 3), ("y", 1))
    ]
    graph = helper.make_graph([helper.make_node("Det", ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    target = tmp_path_factory.mktemp("openvino") / "odd.onnx"
    onnx.save(model, target)
    return target


def pair(path: Path) -> list[Contender]:
    return [Contender("a", onnx=path), Contender("b", onnx=path)]


@pytest.mark.parametrize(("threads", "batch"), [(1, 2), (2, 1)])
def test_it_computes_what_torch_does(model, path, threads, batch):
    """Oracle: the module."""
    images = torch.randn(batch, *EXAMPLE.shape[1:])
    (found,) = OpenVino().prepare(Contender("net", onnx=path), Cell("cpu", NAME, threads, batch), Inputs.of(images))()
    assert torch.allclose(torch.from_numpy(found), model(images), rtol=1e-4, atol=1e-5)


def test_threads_and_precision_are_those_that_were_asked_for(path):
    """Oracle: the compiled network's own account."""
    network = request_for(path, Inputs.of(EXAMPLE), 2).get_compiled_model()
    assert network.get_property("INFERENCE_NUM_THREADS") == 2
    assert network.get_property("INFERENCE_PRECISION_HINT").to_dtype() == "float32"
    assert network.get_property("ENABLE_CPU_PINNING") is False
    assert network.inputs[0].shape == tuple(EXAMPLE.shape), "it is compiled for one shape"


def test_denormal_numbers_stay_what_they_are_in_torch(path):
    """OpenVINO's compilation makes zeros of them in the thread that calls it."""
    tiny = torch.full((4,), DENORMAL)
    run = OpenVino().prepare(Contender("net", onnx=path), Cell("cpu", NAME, 1, 2), Inputs.of(EXAMPLE))
    run()
    OpenVinoClassifier(path, 1)(EXAMPLE)
    assert (tiny * 1.0).sum() > 0
    with denormals_flushed():
        OpenVinoClassifier(path, 1)
        assert (tiny * 1.0).sum() == 0


def test_images_of_any_number_are_scored(model, path):
    """Oracle: the module. OpenVINO itself computes on images with a channel too many, and returns noise."""
    network = OpenVinoClassifier(path, 1)
    for batch in (1, 5):
        images = torch.randn(batch, *EXAMPLE.shape[1:])
        assert torch.allclose(network(images), model(images), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"its input x has the shape \[\?,3,16,16\], not \(1, 4, 16, 16\)"):
        network(WRONG)


def test_inputs_that_do_not_fit_are_refused_in_one_line(path):
    cell = Cell("cpu", NAME, 1, 1)
    with pytest.raises(UsageError, match=r"net does not run under openvino on inputs of \(1, 4, 16, 16\): its input x"):
        OpenVino().prepare(Contender("net", onnx=path), cell, Inputs.of(WRONG))
    with pytest.raises(UsageError, match="it takes 1 inputs, not 2"):
        OpenVino().prepare(Contender("net", onnx=path), cell, Inputs.of((EXAMPLE, EXAMPLE)))


def test_every_layer_has_its_time_and_the_rest_is_listed_by_kind(path):
    """Oracle: the layers of the network."""
    timer = OpenVinoLayers(path, Inputs.of(EXAMPLE), 1)
    for _ in range(2):
        timer.run()
    assert len(timer.forwards()) == 2
    for forward in timer.forwards():
        layers = {key for key in forward if key[1] != "other"}
        assert layers == set(timer.macs) == {
            ("stem.0", "conv"), ("one.2", "conv"), ("two.2", "conv"), ("head", "linear"),
        }  # fmt: skip
        assert ("between operators", "other") in forward
        assert all(time >= 0 for time in forward.values())


def test_nodes_without_names_are_found_by_their_outputs(tmp_path):
    """Oracle: the file. OpenVINO makes one node of the linear layers e and f; its time is that of the first."""
    path = onnx_file(tmp_path / "net.onnx")
    timer = OpenVinoLayers(path, Inputs.of(torch.randn(2, 4, 9, 9)), 1)
    timer.run()
    (forward,) = timer.forwards()
    assert {key for key in forward if key[1] != "other"} == {("a", "conv"), ("c", "conv"), ("e", "linear")}
    assert set(timer.macs) == {("a", "conv"), ("c", "conv"), ("e", "linear"), ("f", "linear")}


def test_an_operator_that_it_has_not_leaves_it_out(odd):
    """By itself it is left out, with the reason; asked for by name it is refused."""
    settings = Settings((1,), 1, 0.01)
    assert [cell.runtime for cell in cells(pair(odd), settings)] == ["onnxruntime"]
    (said,) = left_out(pair(odd), settings)
    assert said.startswith("openvino does not read a: ")
    assert "No conversion rule found for operations: Det" in said
    assert "\n" not in said
    with pytest.raises(UsageError, match="operations: Det-17; leave openvino out"):
        cells(pair(odd), Settings((1,), 1, 0.01, runtimes=(NAME,)))


def test_the_command_line_says_that_it_is_left_out(odd, capsys):
    assert slimnet_cli.run(["benchmark", f"a={odd}", f"b={odd}", "--seconds", "0.01", "--batch", "1", "--json"]) == 0
    printed = capsys.readouterr()
    assert {each["runtime"] for each in json.loads(printed.out)["latencies"]} == {"onnxruntime"}
    assert "openvino does not read a: " in printed.err
    assert "; it is left out" in printed.err


def test_where_it_is_not_installed_the_others_go_on(path, monkeypatch):
    monkeypatch.setitem(sys.modules, NAME, None)
    settings = Settings((1,), 1, 0.01)
    assert OpenVino().obstacle("cpu") == "openvino is not installed; pip install '.[openvino]' in a clone of slimnet"
    assert [cell.runtime for cell in cells(pair(path), settings)] == ["onnxruntime"]
    assert left_out(pair(path), settings) == ()
    with pytest.raises(UsageError, match="openvino is not installed"):
        cells(pair(path), Settings((1,), 1, 0.01, runtimes=(NAME,)))


def test_where_it_does_not_load_the_reason_is_given(tmp_path, monkeypatch):
    """A stand-in whose library is for another machine."""
    (tmp_path / "openvino.py").write_text('raise OSError("libopenvino.so:\\n wrong ELF class")')
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    found = OpenVino().obstacle("cpu")
    assert found is not None
    assert found.startswith("openvino does not load here: OSError: libopenvino.so: wrong ELF class; reinstall it: pip")


def test_it_is_measured_on_the_cpu_alone():
    assert "not on cuda:0" in str(OpenVino().obstacle("cuda:0"))


def test_its_telemetry_stays_off(path):
    """Importing OpenVINO reports the import to its makers, unless that package cannot be imported."""
    request_for(path, Inputs.of(EXAMPLE), 1)
    assert NAME in sys.modules
    assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]


def test_a_budget_of_latency_is_measured_on_it(model):
    with stopwatch(model, EXAMPLE, NAME, seconds=0.01) as latency_left:
        assert latency_left(model) > 0
