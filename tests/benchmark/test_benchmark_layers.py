"""The time of every layer: which rows there are, what they add up to, and how onnxruntime's names lead to layers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import onnx_file
from test_benchmark import by_hand, small_net
from torch import nn

import slimnet
from slimnet.benchmark import Contender, Settings, compare
from slimnet.benchmark.layers import SAMPLES, _averaged, rows_of
from slimnet.benchmark.runtimes.onnxruntime_layers import LayerNames, OnnxLayers, by_run
from slimnet.benchmark.runtimes.torch_layers import marks, own, own_macs
from slimnet.models import build
from slimnet.modules.example_inputs import Inputs

pytestmark = pytest.mark.usefixtures("operators_read_once")

EXAMPLE = torch.randn(2, 3, 16, 16)


class Shared(nn.Module):
    """One layer used twice, another in a function of the container's own."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Linear(6, 6)
        self.weight = nn.Parameter(torch.randn(4, 6))

    def forward(self, x):
        return nn.functional.linear(self.twice(self.twice(x)), self.weight)


def test_time_belongs_to_the_innermost_module():
    """Oracle: by hand. Marks at 0, 1, 4, 6, 10: the inner one has from 1 to 4 and the outer one the rest."""
    made = [("", 0.0), ("a", 1.0), (None, 4.0), ("b", 6.0), (None, 6.0), (None, 10.0)]
    assert own(made) == {"": 7.0, "a": 3.0, "b": 0.0}


def test_hooks_are_gone_afterwards():
    model = small_net()
    with marks(model, lambda: 0) as made:
        model(torch.randn(1, 3, 8, 8))
    assert len(made) == 2 * len(list(model.modules()))
    model(torch.randn(1, 3, 8, 8))
    assert len(made) == 2 * len(list(model.modules()))


def test_macs_of_layers_are_those_of_the_network():
    """Oracle: counted by hand, layer by layer."""
    model = build("resnet20").eval()
    found = own_macs(model, Inputs.of(EXAMPLE))
    assert sum(count for _, count in found.values()) == by_hand(model, EXAMPLE[:1])
    kinds = {"conv": nn.Conv2d, "linear": nn.Linear}
    assert all(isinstance(model.get_submodule(path), kinds[kind]) for path, (kind, _) in found.items())


def test_a_layer_used_twice_counts_twice_and_a_function_belongs_to_its_container():
    assert own_macs(Shared().eval(), Inputs.of(torch.randn(3, 6))) == {"twice": ("linear", 72), "": ("linear", 24)}


class Residual(nn.Module):
    """Convolutions with activations of several kinds after them, an addition, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(24, 48, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU6())
        self.deep = nn.Sequential(nn.Conv2d(48, 48, 3, padding=1, groups=48, bias=False), nn.BatchNorm2d(48))
        self.back = nn.Sequential(nn.Conv2d(48, 24, 1, bias=False), nn.BatchNorm2d(24))
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        x = self.stem(x)
        x = nn.functional.relu(x + self.back(nn.functional.hardswish(self.deep(self.wide(x)))))
        return self.head(x.mean((2, 3)))


class Dense(nn.Module):
    """As in DenseNets: BatchNorm and activation before the convolutions, which read a concatenation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.one = nn.Sequential(nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 3, padding=1, bias=False))
        self.two = nn.Sequential(nn.BatchNorm2d(48), nn.ReLU(), nn.Conv2d(48, 16, 1), nn.BatchNorm2d(16))
        self.head = nn.Linear(64, 5)

    def forward(self, x):
        x = self.stem(x)
        x = torch.cat([x, self.one(x)], 1)
        x = nn.functional.relu(torch.cat([x, self.two(x)], 1))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("network", [Residual, Dense])
def test_every_layer_of_a_file_is_one_node_and_nodes_add_up_to_the_run(network, tmp_path):
    """Oracle: the file's own nodes, and how long onnxruntime says that the whole run took."""
    torch.manual_seed(0)
    model = network().eval()
    path = slimnet.export_onnx(model, EXAMPLE, tmp_path / "net.onnx").path
    timer = OnnxLayers(path, Inputs.of(EXAMPLE), 1, tmp_path / "profile")
    timer.run()
    (forward,) = timer.forwards()
    (file,) = tmp_path.glob("profile*.json")
    events = json.loads(file.read_text())
    nodes = [event for event in events if event["name"].endswith("_kernel_time")]
    keys = [timer.names.key(each["name"].removesuffix("_kernel_time"), each["args"]["op_name"]) for each in nodes]
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert sorted(name for name, kind in keys if kind != "other") == sorted(layers)
    assert set(forward) == {*keys, ("between operators", "other")}
    (run,) = (event["dur"] for event in events if event["name"] == "model_run")
    assert sum(forward.values()) == pytest.approx(run / 1e3)
    if network is Dense:
        assert keys.count(("BatchNormalization", "other")) == 2, "one that stands alone is no layer"


@pytest.fixture(scope="module")
def profiled(operators_read_once):
    """A small residual network with dead channels, dense and slim, on every runtime."""
    torch.manual_seed(0)
    model = Residual()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data[::3] = 0
    slim = slimnet.slim(model.eval(), EXAMPLE).model
    settings = Settings((2,), 1, 0.05, runtimes=("torch", "onnxruntime", "openvino"), layers=True)
    return model, slim, compare({"dense": model, "slim": slim}, EXAMPLE, settings)


def test_every_layer_of_both_has_a_row_on_every_runtime(profiled):
    """Oracle: the modules of the network, and their MACs counted by hooks."""
    model, slim, comparison = profiled
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert [profile.runtime for profile in comparison.profiles] == ["torch", "onnxruntime", "openvino"]
    for profile in comparison.profiles:
        rows = {row.name: row for row in profile.layers}
        assert set(rows) == set(layers)
        for contender, network in enumerate((model, slim)):
            total = by_hand(network, EXAMPLE[:1])
            assert sum(row.macs[contender] for row in rows.values()) == total == comparison.counts[contender].macs
        assert all(row.median_ms(each) > 0 for row in rows.values() for each in (0, 1))
        assert all(row.efficiency() is not None for row in rows.values())


def test_everything_else_is_listed_by_kind(profiled):
    _, _, comparison = profiled
    eager, *graphs = ({row.name for row in profile.others} for profile in comparison.profiles)
    assert {"BatchNorm2d", "ReLU", "Residual"} <= eager
    assert all("between operators" in graph for graph in graphs)
    assert not any("BatchNorm2d" in graph for graph in graphs), "the export folds it"


def test_rows_of_networks_with_other_layers_have_gaps():
    macs = [{("a", "conv"): 5}, {("b", "conv"): 7}]
    noted = [{("a", "conv"): (1.0,), ("Add", "other"): (2.0,)}, {("b", "conv"): (3.0,)}]
    first, second, add = rows_of(macs, noted)
    assert (first.name, first.macs, first.samples_ms) == ("a", (5, None), ((1.0,), None))
    assert (second.name, second.macs, second.samples_ms) == ("b", (None, 7), (None, (3.0,)))
    assert (add.kind, add.samples_ms) == ("other", ((2.0,), None))


def test_many_forwards_become_means_of_neighbours():
    """Oracle: numpy. Three hundred forwards of 0, 1, 2, ... ms in blocks of six; zero is shorter than the clock."""
    key = ("a", "conv")
    (samples,) = _averaged([{key: float(i)} for i in range(300)]).values()
    assert len(samples) == SAMPLES
    assert np.allclose(samples, np.arange(300).reshape(50, 6).mean(1))
    assert _averaged([{key: 0.0}])[key][0] > 0


def test_a_fused_and_renamed_node_leads_back_to_its_layer(tmp_path):
    """Names as onnxruntime gives them: after the activation that was fused, with suffixes, or kept."""
    names = LayerNames(onnx_file(tmp_path / "net.onnx"))
    assert names.key("b_nchwc", "Conv") == names.key("a", "Conv") == names.key("fused a", "FusedConv")
    assert names.key("b_nchwc", "Conv") == ("a", "conv")
    assert names.key("c", "ConvTranspose") == ("c", "conv")
    assert names.key("f", "MatMul") == ("f", "linear")
    assert names.key("anything", "ReorderOutput") == ("ReorderOutput", "other")
    assert names.key("strange", "Conv") == ("strange", "conv"), "one that leads nowhere still has a row"
    assert names.macs[("e", "linear")] == 350


def test_events_are_distinguished_by_run(tmp_path):
    """Oracle: by hand, in microseconds. What no operator took is time between operators."""

    def node(name: str, operator: str, microseconds: int) -> dict:
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "args": {"op_name": operator}}

    def run(microseconds: int) -> dict:
        return {"cat": "Session", "name": "model_run", "dur": microseconds}

    names = LayerNames(onnx_file(tmp_path / "net.onnx"))
    load = {"cat": "Session", "name": "session_initialization", "dur": 9}
    events = [
        load,
        node("a", "Conv", 30),
        node("x", "Add", 4),
        node("y", "Add", 6),
        run(50),
        node("a", "Conv", 20),
        run(9),
    ]
    first, second = by_run(events, names)
    assert first == pytest.approx({("a", "conv"): 0.03, ("Add", "other"): 0.01, ("between operators", "other"): 0.01})
    assert second == pytest.approx({("a", "conv"): 0.02, ("between operators", "other"): 0.0})


def test_layers_are_measured_of_files_alone(tmp_path: Path):
    path = onnx_file(tmp_path / "net.onnx")
    pair = [Contender("a", onnx=path), Contender("b", onnx=path)]
    (profile,) = compare(
        pair, torch.randn(1, 4, 9, 9), Settings((1,), 1, 0.02, runtimes=("onnxruntime",), layers=True)
    ).profiles
    assert {row.name for row in profile.layers} == {"a", "c", "e", "f"}
    assert "FusedMatMul" in {row.name for row in profile.others}, "the product of two activations is no layer"
