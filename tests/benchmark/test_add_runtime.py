"""A runtime added by the recipe of docs/architecture.md, one class and one row, reaches all that measures networks."""

import ast
import copy
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import slimnet_cli
import torch
from bundles import onnx_file
from slimnet_cli.options import names
from test_benchmark import small_net
from torch import nn

import slimnet
from slimnet.benchmark import Comparison, Contender, Settings, cells, compare, environment
from slimnet.benchmark.contender import Cell
from slimnet.benchmark.runtimes import table
from slimnet.benchmark.runtimes.runtime import Runtime
from slimnet.benchmark.turns import Run
from slimnet.data import ImageData
from slimnet.errors import UsageError
from slimnet.methods.latency_budget import stopwatch
from slimnet.modules.example_inputs import Inputs
from slimnet.width_search import WidthSearch

WRITTEN = {"cli/commands/export.py", "cli/options/export_form.py", "slimnet/benchmark/contender.py"}
"""Files that know the formats of files that a network is exported to, some of which are called after their runtime."""
INT8 = {
    *(f"slimnet/export/int8/{name}.py" for name in ("certificate", "export", "file", "quantisers")),
    *("cli/commands/verify.py", "cli/options/quantisation.py", "cli/output/int8_table.py"),
}
"""Files that know which quantiser is used."""
NAMES = {"cli/options/names.py"}
"""The names that the command line takes, known without the library."""
ROOT = Path(__file__).parents[2]
EXAMPLE = torch.randn(2, 3, 8, 8)
FORMATS = {"slimnet/benchmark/environment.py", "slimnet/bundle/manifest.py"}
"""Files that define what is stored of versions; their keys are part of formats that stay."""


class Toy(Runtime):
    """Copies of networks on the CPU alone."""

    name = "toy"
    needs = "module"

    def __init__(self, installed: bool = True):
        self.installed = installed

    def versions(self) -> Mapping[str, str]:
        return {"toy-runtime": "7.1"} if self.installed else {}

    def obstacle(self, device: str) -> str | None:
        if not self.installed:
            return "toy is not installed; pip install toy-runtime"
        return None if device == "cpu" else "toy has no GPUs; measure on cpu"

    def prepare(self, contender: Contender, cell: Cell, inputs: Inputs) -> Run:
        network = self.classifier(contender, cell.threads, cell.device)
        return lambda: inputs.call(network)

    def classifier(self, contender: Contender, threads: int, device: str) -> nn.Module:
        assert contender.model is not None
        return copy.deepcopy(contender.model).eval()


@pytest.fixture
def toy(monkeypatch) -> None:
    monkeypatch.setattr(table, "RUNTIMES", (*table.RUNTIMES, Toy()))


@pytest.fixture
def missing(monkeypatch) -> None:
    monkeypatch.setattr(table, "RUNTIMES", (*table.RUNTIMES, Toy(installed=False)))
    monkeypatch.setattr(names, "DEPLOYABLE", (*names.DEPLOYABLE, "toy"))


def pair() -> list[Contender]:
    return [Contender("dense", small_net()), Contender("slim", small_net())]


def images() -> ImageData:
    pixels, labels = torch.randint(256, (10, 8, 8, 3), dtype=torch.uint8), torch.arange(10) % 5
    return ImageData.of("toy data", (pixels, labels), (pixels, labels), [str(each) for each in range(5)])


@pytest.mark.usefixtures("toy")
def test_a_comparison_measures_it_where_it_runs_and_says_its_version():
    settings = Settings((1,), 1, 0.01, runtimes=("toy",), layers=True)
    found = compare(pair(), EXAMPLE, settings, data=images())
    assert [each.runtime for each in found.latencies] == ["toy"]
    assert [each.runtime for each in found.accuracies] == ["torch", "toy"]
    assert found.accuracies[0].values == found.accuracies[1].values
    assert found.profiles == (), "it does not tell layers apart"
    assert found.environment.software["toy-runtime"] == "7.1"
    assert ("toy-runtime", "7.1") in found.environment.rows()
    assert Comparison.from_json(found.to_json()) == found
    assert [each.runtime for each in cells(pair(), Settings((1,), 1))] == ["torch", "toy"]


@pytest.mark.usefixtures("toy")
def test_it_is_refused_with_its_own_reason(tmp_path):
    with pytest.raises(UsageError, match="did you mean toy"):
        Settings(runtimes=("toi",))
    contenders = [Contender(name, onnx=onnx_file(tmp_path / f"{name}.onnx")) for name in ("a", "b")]
    with pytest.raises(UsageError, match="a is an ONNX file alone, which toy does not run; ask for onnxruntime"):
        cells(contenders, Settings(runtimes=("toy",)))


@pytest.mark.usefixtures("missing")
def test_where_it_is_missing_nothing_else_is_lost():
    with pytest.raises(UsageError, match="pip install toy-runtime"):
        cells(pair(), Settings((1,), 1, runtimes=("toy",)))
    settings = Settings((1,), 1, 0.01)
    found = compare(pair(), EXAMPLE, settings, data=images())
    assert [each.runtime for each in (*found.latencies, *found.accuracies)] == ["torch", "torch"]
    assert "toy-runtime" not in environment().software


@pytest.mark.usefixtures("toy")
def test_widths_and_budgets_are_measured_on_it():
    search = WidthSearch(runtime="toy", threads=1, seconds=0.01)
    plan = slimnet.slim(small_net(), EXAMPLE, round_to=search).plan
    assert {trial.runtime for trial in plan.trials} == {"toy"}
    with stopwatch(small_net(), EXAMPLE, "toy", seconds=0.01) as latency_left:
        assert latency_left(small_net()) > 0


@pytest.mark.usefixtures("missing")
def test_the_command_line_lists_it_with_the_remedy(capsys):
    assert slimnet_cli.run(["checks", "--json"]) == 0
    check = json.loads(capsys.readouterr().out)["checks"]["toy"]
    assert (check["works"], check["detail"]) == (False, "toy is not installed; pip install toy-runtime")
    assert slimnet_cli.run(["slim", "net.pt", "--arch", "resnet20", "--dry-run", "--round", "often"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "auto:openvino, auto:ncnn, auto:executorch, auto:tensorrt, auto:toy or none" in said


def test_no_runtime_is_named_but_in_its_own_file():
    """`torch` is the package of networks too, and is left out. A file that is called after a runtime is its own."""
    runtimes = tuple(each.name for each in table.RUNTIMES[1:])
    files = [path for room in ("slimnet", "cli") for path in (ROOT / room).rglob("*.py")]
    named = {
        str(path.relative_to(ROOT))
        for path in files
        if path.parent.name != "runtimes" and not path.stem.startswith(runtimes)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in runtimes
    }
    assert named - INT8 - WRITTEN == FORMATS | NAMES
