"""Exported programs: what torch itself writes is run as torch runs it, without making code of it."""

import collections
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import networks
import pytest
import torch
from bundles import refusal
from torch import nn

from slimnet.bundle.bundle import verify_bundle
from slimnet.errors import BundleError, ExportError
from slimnet.export.capture import capture, forward, with_batch
from slimnet.export.pt2.archive import DTYPES
from slimnet.export.pt2.numbers import is_size
from slimnet.export.pt2.operators import find_operator
from slimnet.export.pt2.runner import ProgramRunner, TorchRunner, program_bytes
from slimnet.export.pt2.text import is_guard
from slimnet.models import build
from slimnet.modules.example_inputs import Inputs, tensors_in
from slimnet.surgery.equivalence import BATCHES


def written(model: nn.Module, example: object, folder: Path) -> tuple[Path, object]:
    """A network as a .pt2 file, and what it was made of."""
    captured = capture(model, example)
    path = folder / "model.pt2"
    path.write_bytes(program_bytes(captured.program))
    return path, captured


def assert_runs_as_torch_does(model: nn.Module, example: object, folder: Path) -> None:
    """Oracles: the network itself, and torch's own loader on the same file; to the last bit."""
    path, captured = written(model, example, folder)
    runner, torchs = ProgramRunner(path), TorchRunner(path)
    for batch in BATCHES:
        inputs, found = with_batch(captured.inputs, batch), []
        for call in (lambda given: tensors_in(forward(captured.module, given)), torchs, runner):
            torch.manual_seed(0)
            found.append(call(inputs))
        for own, loaded, stepped in zip(*found, strict=True):
            assert stepped.dtype == own.dtype
            assert torch.equal(stepped, own)
            assert torch.equal(stepped, loaded)


class Sized(nn.Module):
    """A forward whose graph has many expressions for sizes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        x = x.view(n * c, h * w)[: n * c // 2 * 2].reshape(n, c, h, w)
        x = torch.cat([x, x.new_zeros(n, 1, h, w)], 1).view(n, -1, 3, h, w).transpose(1, 2)
        return x.reshape(n * 3, -1).sum(1).view(n, 3) / (n + 1) + torch.arange(n).view(n, 1)


class Everything(nn.Module):
    """A forward with what a description of a program can hold: containers, constants, sizes, regions, writes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"conv-1": nn.Conv2d(3, 4, 3), "a b": nn.Conv2d(4, 4, 1)})
        self.constant = torch.arange(4.0).expand(2, 4)
        self.norm, self.drop = nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0, 4.0]), persistent=False)

    def forward(self, x: torch.Tensor, mask: object = None, *, scale: int = 2, pair: tuple = (1,)) -> object:
        self.calls.add_(1)
        y = self.drop(self.norm(self.layers["a b"](self.layers["conv-1"](x)))).relu_()
        with torch.autocast("cpu"):
            z = nn.functional.linear(y.mean((2, 3)), self.layers["a b"].weight[:, :, 0, 0])
        with torch.no_grad():
            w = z.float() * scale * self.scale + self.calls
        y = y.masked_fill(y > 1, float("-inf"))
        left, right = y.chunk(2, 1)
        return {
            "halves": [left, right],
            "pair": (w, self.constant.sum() * pair[0]),
            "picked": z[:, [0, 1]],
            "sorted": x[:, -1].flatten(1).sort(1),
            "sizes": x.shape[0] * torch.ones(2),
            "filled": y.new_full((x.shape[0] // 2 + 1,), 3),
        }


class Sequences(nn.Module):
    """Attention, recurrence, a product by Einstein's notation, a Fourier transform, a mask, and random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.recurrent, self.embedding = nn.LSTM(8, 8, batch_first=True), nn.Embedding(10, 8)

    def forward(self, words: torch.Tensor, x: torch.Tensor) -> object:
        x = self.recurrent(self.encoder(x + self.embedding(words)))[0]
        spectrum = torch.fft.rfft2(x).abs()
        return x + torch.randn_like(x), torch.einsum("bcd,bed->bce", x, x), spectrum, x[x > 0].sum()


@pytest.mark.parametrize(
    ("make", "example"),
    [
        (Sized, lambda: torch.randn(2, 2, 6, 6)),
        (Everything, lambda: {"x": torch.randn(2, 3, 6, 6), "mask": None, "scale": 3, "pair": (2,)}),
        (Sequences, lambda: (torch.randint(10, (3, 5)), torch.randn(3, 5, 8))),
        (lambda: build("torchvision:shufflenet_v2_x0_5"), lambda: torch.randn(2, 3, 32, 32)),
    ],
    ids=["sizes", "everything", "sequences", "shufflenet"],
)
def test_programs_run_as_torch_runs_them(make, example, tmp_path):
    torch.manual_seed(0)
    assert_runs_as_torch_does(make().eval(), example(), tmp_path)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(1, 5))])
def test_random_networks_run_as_torch_runs_them(seed, tmp_path):
    """Every block of the tests' random networks, four at a time, with outputs and inputs of every kind."""
    names = sorted(networks.BLOCKS)
    blocks = tuple(names[(4 * seed + place) % len(names)] for place in range(4))
    recipe = networks.Recipe(
        blocks, seed, head=networks.HEADS[seed % 4], inputs=1 + seed % 2, returns=networks.RETURNS[seed % 3]
    )
    assert_runs_as_torch_does(networks.build(recipe, 0.5, "random"), tuple(networks.images(recipe)), tmp_path)


def test_a_program_keeps_what_it_writes_from_call_to_call(tmp_path):
    """As its network does: a buffer counts the calls."""

    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls.add_(1)
            return x * self.calls

    runner = ProgramRunner(written(Counter(), torch.ones(2, 1), tmp_path)[0])
    found = [runner(Inputs.of(torch.ones(2, 1)))[0].unique().item() for _ in range(3)]
    # The network was run before it was captured.
    assert found == [found[0], found[0] + 1, found[0] + 2]


def test_inputs_of_another_form_are_refused(tmp_path):
    """The captured number is part of the program, and so are the sizes that are not the batch's."""
    example = {"x": torch.randn(2, 3, 6, 6), "mask": None, "scale": 3, "pair": (2,)}
    runner = ProgramRunner(written(Everything().eval(), example, tmp_path)[0])
    for change in (
        {"scale": 4},
        {"scale": 3.0},
        {"mask": 1},
        {"pair": (2, 2)},
        {"pair": [2]},
        {"x": torch.randn(2, 3, 6, 7)},
        {"x": torch.randn(2, 3, 6)},
        {"x": torch.randn(2, 3, 6, 6).double()},
        {"x": 1},
        {"more": 1},
    ):
        message = refusal(BundleError, runner, Inputs((), example | change))
        assert "does not take the recorded inputs" in message


def test_eight_threads_verify_a_bundle_at_once(nameless):
    """What torch knows of a program that it loads is one for the whole process; verification must not need it."""
    barrier = threading.Barrier(8)

    def verified(_: int) -> str:
        barrier.wait()
        return str(verify_bundle(nameless.folder))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(verified, range(8)))) == 1


def test_torch_itself_reads_what_is_saved(tmp_path):
    """`save` asks torch's own loader about the file that it wrote; it refuses one that torch does not take."""
    path = tmp_path / "model.pt2"
    path.write_bytes(b"nothing")
    assert "torch cannot load model.pt2 again" in refusal(ExportError, TorchRunner, path)


def test_types_are_those_of_torch():
    """Oracle: torch's own table."""
    from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE

    assert {int(code): dtype for code, dtype in _SERIALIZE_TO_TORCH_DTYPE.items()} == DTYPES


def test_no_operator_that_takes_a_file_may_be_called():
    """Oracle: the schemas of all operators that torch has."""
    for schema in torch._C._jit_get_all_schemas():
        if any(argument.name in ("filename", "file", "path_name") for argument in schema.arguments):
            refusal(BundleError, find_operator, f"torch.ops.{schema.name.replace('::', '.')}.default")


@pytest.mark.parametrize(
    "name",
    [
        *("set_.source_Storage", "set_.source_Tensor", "resize_.default", "data.default", "requires_grad_.default"),
        *("_print.default", "_foobar.default", "manual_seed.default", "warn.default", "save.default", "load.default"),
        *(
            "add.out",
            "conv2d_backward.default",
            "convolution_backward.default",
            "_cufft_set_plan_cache_max_size.default",
        ),
        *("__class__.default", "__init__.__globals__", "_dir.append", "conv2d.__class__", "conv2d._schema"),
        *("repeat_interleave.Tensor", "bincount.default", "_sparse_coo_tensor_unsafe.default", "add.nothing"),
        *("_embedding_bag.default", "_weight_int4pack_mm.default", "record_stream.default", "conv2d"),
    ],
)
def test_operators_that_do_more_than_compute_may_not_be_called(name):
    refusal(BundleError, find_operator, f"torch.ops.aten.{name}")


@pytest.mark.parametrize(
    "text",
    [
        "s77",
        "2*s77 + 1",
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(3), Add(Symbol('s77', positive=True, integer=True), Integer(-1)))",
        "FloorDiv(Symbol('s0', integer=True), Integer(2))",
        "Mod(Integer(1), Add(Symbol('s0', integer=True), Integer(-2)))",
        "Pow(Symbol('s0', integer=True), Integer(3))",
        "Float('0.5', precision=53)",
        "GreaterThan(Symbol('u0', integer=True), Integer(0))",
    ],
)
def test_sizes_as_torch_writes_them_are_sizes(text):
    assert is_size(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L['x'].size()[0] == L['words'].size()[0]", True),
        ("L['x'][0]['y'].size()[1] % 4 == 0", True),
        ("2 <= L['x'].stride()[0] and not L['x'].storage_offset() > 7", True),
        ("L['x'].size()[f()] == 1", False),
        ("L[__import__('os').system('touch executed')].size()[0] == 1", False),
        ("L['x'].data.size()[0] == 1", False),
        ("f(L['x'].size()[0]) == 1", False),
        ("xL['x'].size()[0] == 1", False),
        ("L['x'].size()[0](1) == 1", False),
        ("L['x'].size()[0]) or f( == 1", False),
    ],
)
def test_what_torch_checks_before_a_run_is_a_comparison_of_sizes(text, expected):
    """torch executes it as Python where a program is loaded."""
    assert is_guard(text) is expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "a.b",
            "f(1)",
            "[1]",
            "x[0]",
            "'a b'",
            "(x := 1)",
            "*x",
            "1 if x else 2",
            3,
            None,
            "x\u00b2",
            "lambda: 1",
        ),
        *("9**9**9", "Pow(Integer(9), Pow(Integer(9), Integer(9)))", "1 << 10", "10**64", "2**63*3", "Integer('1')"),
        *(
            "Mul(" + ", ".join(["Integer(999999999)"] * 50) + ")",
            "(" * 300 + "1" + ")" * 300,
            "Symbol('s', commutative=f())",
        ),
        *("1+" * 5000 + "1", "Symbol('a b')", "Symbol('s77', **x)", "FloorDiv(*x)", "Float('1' * 9)"),
    ],
)
def test_anything_else_is_not(text):
    assert not is_size(text)


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
