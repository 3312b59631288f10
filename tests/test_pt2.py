"""Exported programs: what torch itself writes runs, and what would run more than a graph of operators is not loaded."""

import collections
import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from bundles import images, refusal, small_net
from torch import nn

from slimnet.errors import BundleError
from slimnet.formats.capture import capture
from slimnet.formats.pt2 import ProgramRunner, program_bytes
from slimnet.formats.pt2_check import TARGETS, check_program, is_arithmetic
from slimnet.inputs import Inputs
from slimnet.models import build

MODEL, WEIGHTS, CONSTANTS = (
    "archive/models/model.json",
    "archive/data/weights/model_weights_config.json",
    "archive/data/constants/model_constants_config.json",
)
SAMPLES = "archive/data/sample_inputs/model.pt"
PICKLE = b"cos\nsystem\n(S'touch executed'\ntR."
"""A pickle that runs a command."""


@pytest.fixture(scope="module")
def program() -> bytes:
    return program_bytes(capture(small_net(), images()).program)


def rewritten(content: bytes, changes: dict) -> bytes:
    """An archive with some of its files changed (by a function of what they hold) or added."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for name, change in changes.items():
        if callable(change):
            document = json.loads(files[name])
            change(document)
            change = json.dumps(document).encode()
        files[name] = change
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_a_rewritten_archive_is_still_read(program, tmp_path):
    """So that what is refused below is refused for what was changed."""
    path = tmp_path / "model.pt2"
    path.write_bytes(rewritten(program, {}))
    with torch.no_grad():
        assert torch.equal(ProgramRunner(path)(Inputs.of(images(7)))[0], small_net()(images(7)))


def nodes(document: dict) -> list:
    return document["graph_module"]["graph"]["nodes"]


def sizes(document: dict) -> list:
    """Where the graph has an expression for a size."""
    found, waiting = [], [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            found += [item] if "expr_str" in item else []
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return found


def call(target: str):
    def change(document: dict) -> None:
        text = [{"name": "command", "arg": {"as_string": "touch executed"}, "kind": 1}]
        nodes(document)[0].update(target=target, inputs=text)

    return change


def size(expression: str):
    return lambda d: [each.update(expr_str=expression) for each in sizes(d)]


def payload(name: str, **fields):
    def change(document: dict) -> None:
        document["config"][name] = {"path_name": "weight_0", "is_param": False, "tensor_meta": None} | fields

    return change


def container(context: str):
    """Inputs in a container of this description, instead of a tuple."""

    def change(document: dict) -> None:
        document["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = context

    return change


HARM = {
    "a function of the system": {MODEL: call("torch.serialization.os.system")},
    "a function of torch that loads": {MODEL: call("torch.load")},
    "a function of torch that evaluates": {MODEL: call("torch.fx.graph_module._exec_with_source")},
    "an operator that loads code": {MODEL: call("torch.ops.load_library")},
    "an operator that writes files": {MODEL: call("torch.ops.aten.from_file.default")},
    "an operator that saves": {MODEL: call("torch.ops.aten.save")},
    "an operator of images": {MODEL: call("torch.ops.image.write_file")},
    "a function of Python": {MODEL: call("_operator.call")},
    "a getter of attributes": {MODEL: call("_operator.attrgetter")},
    "an extension": {MODEL: call("#evil:op")},
    "an operator as an argument": {
        MODEL: lambda d: nodes(d)[0]["inputs"].append(
            {"name": "f", "arg": {"as_operator": "torch.serialization.os.system"}, "kind": 1}
        )
    },
    "an object as an argument": {
        MODEL: lambda d: nodes(d)[0]["inputs"].append(
            {"name": "f", "arg": {"as_custom_obj": {"name": "x", "class_fqn": "y"}}, "kind": 1}
        )
    },
    "code for a size": {MODEL: size("__import__('os').system('touch executed')")},
    "more code for a size": {MODEL: size("Symbol('x').__class__")},
    "code in a symbol": {MODEL: size("Symbol(\"__import__('os').system('touch executed')\")")},
    "evaluated code for a size": {MODEL: size("eval('1')")},
    "a function for a size": {MODEL: size("(lambda: 1)()")},
    "a long size": {MODEL: size("1+" * 5000 + "1")},
    "pickled weights": {WEIGHTS: payload("conv.weight", use_pickle=True), "archive/data/weights/weight_0": PICKLE},
    "pickled constants": {
        CONSTANTS: payload("c", path_name="tensor_0", use_pickle=True),
        "archive/data/constants/tensor_0": PICKLE,
    },
    "an opaque constant": {
        CONSTANTS: payload("c", path_name="opaque_obj_0", use_pickle=False),
        "archive/data/constants/opaque_obj_0": PICKLE,
    },
    "an object of TorchScript": {"archive/data/constants/custom_obj_0": PICKLE},
    "weights of an older format": {"archive/data/weights/model.pt": PICKLE},
    "constants of an older format": {"archive/data/constants/model.pt": PICKLE},
    "pickled inputs": {SAMPLES: PICKLE},
    "compiled code": {"archive/data/aotinductor/model/model.so": b"\x7fELF"},
    "another program": {"archive/models/other.json": b"{}"},
    "an enum to import": {MODEL: container('[1, {"type": "x", "context": "{\\"__enum__\\": true}"}]')},
    "an enum in other letters": {MODEL: container('[1, {"context": "{\\"__en\\\\u0075m__\\": true}"}]')},
    "an enum in an escaped object": {MODEL: container('[1, {"context": "[\\u007b\\"__enum__\\": true}]"}]')},
    "a factory to import": {MODEL: container('[1, {"context": "{\\"default_factory_module\\": \\"os\\"}"}]')},
}


@pytest.mark.parametrize("changes", HARM.values(), ids=HARM)
def test_a_program_that_would_do_more_than_compute_is_not_loaded(changes, program, tmp_path, monkeypatch):
    """Oracle: torch's loader is not even asked, and the command that most of them hold is not run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("slimnet.formats.pt2.load_pt2", None)
    path = tmp_path / "model.pt2"
    path.write_bytes(rewritten(program, changes))
    assert refusal(BundleError, ProgramRunner, path).startswith(f"{path} is not run: it ")
    assert not Path("executed").exists()


def test_an_archive_of_the_older_format_is_not_tried(program, tmp_path):
    """Where the newer one fails, `torch.export.load` would unpickle the older one."""
    path = tmp_path / "model.pt2"
    path.write_bytes(rewritten(program, {"archive/data/weights/weight_0": b"123"}))
    refusal(BundleError, ProgramRunner, path)


def test_no_operator_that_takes_a_file_may_be_called():
    """Oracle: the schemas of all operators that torch has."""
    for schema in torch._C._jit_get_all_schemas():
        if any(argument.name in ("filename", "file", "path_name") for argument in schema.arguments):
            name = schema.name.replace("::", ".")
            assert not TARGETS.fullmatch(f"torch.ops.{name}")
            assert not TARGETS.fullmatch(f"torch.ops.{name}.default")


@pytest.mark.parametrize(
    "text",
    [
        "s77",
        "2*s77 + 1",
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(3), Add(Symbol('s77', positive=True, integer=True), Integer(-1)))",
        "FloorDiv(Symbol('s0', integer=True), Integer(2))",
    ],
)
def test_sizes_as_torch_writes_them_are_arithmetic(text):
    assert is_arithmetic(text)


@pytest.mark.parametrize(
    "text", ["", "a.b", "f(1)", "[1]", "x[0]", "'a b'", "(x := 1)", "*x", "1 if x else 2", 3, None]
)
def test_anything_else_is_not(text):
    assert not is_arithmetic(text)


class Sized(nn.Module):
    """A forward whose graph has many expressions for sizes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        x = x.view(n * c, h * w)[: n * c // 2 * 2].reshape(n, c, h, w)
        x = torch.cat([x, x.new_zeros(n, 1, h, w)], 1).view(n, -1, 3, h, w).transpose(1, 2)
        return x.reshape(n * 3, -1).sum(1).view(n, 3) / (n + 1) + torch.arange(n).view(n, 1)


@pytest.mark.parametrize("make", [Sized, lambda: build("torchvision:shufflenet_v2_x0_5")], ids=["sizes", "shufflenet"])
def test_programs_as_torch_writes_them_are_read(make):
    x = torch.randn(2, 2, 6, 6) if make is Sized else torch.randn(2, 3, 32, 32)
    check_program(program_bytes(capture(make().eval(), x).program))


Pair = collections.namedtuple("Pair", ["left", "right"])


class Pairs(nn.Module):
    """Returns a class of its own."""

    def forward(self, x: torch.Tensor) -> Pair:
        return Pair(x + 1, x * 2)


def test_outputs_of_a_class_that_only_we_know_can_be_read_by_anyone(tmp_path):
    path = tmp_path / "model.pt2"
    path.write_bytes(program_bytes(capture(Pairs(), torch.randn(2, 3)).program))
    found = torch.export.load(path).module()(torch.ones(5, 3))
    assert {name: tensor.unique().tolist() for name, tensor in found.items()} == {"left": [2], "right": [2]}
    assert found["left"].shape == (5, 3)
