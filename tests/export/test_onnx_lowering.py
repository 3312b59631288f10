"""Programs are translated to ONNX without being traced once more, where that is surely the same."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch._ops import OpOverload
from torch.export import ExportedProgram

from slimnet import export_onnx
from slimnet.export.capture import capture
from slimnet.export.onnx_lowering import LoweredProgram
from slimnet.export.quiet_torch import quiet

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Forward(nn.Module):
    """A convolution, and what a function makes of its output."""

    def __init__(self, then: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.then = then

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Run both."""
        return self.then(self.conv(images))


def usual() -> nn.Module:
    """The layers of convolutional networks, with activations and dropout in place."""
    layers = [nn.BatchNorm2d(4), nn.ReLU(True), nn.Dropout(0.5, True), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1)]
    head = [nn.BatchNorm2d(4, affine=False), nn.Hardswish(True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
    return Forward(nn.Sequential(*layers, *head)).eval()


def read_before(conv: torch.Tensor) -> torch.Tensor:
    """What is read before it is overwritten is the old value."""
    doubled = conv * 2
    conv.relu_()
    return doubled - conv


def read_after(conv: torch.Tensor) -> torch.Tensor:
    """What is read afterwards is the new value, through whichever name."""
    same = conv
    same.add_(1.0).relu_()
    return conv * 3


def written_twice(conv: torch.Tensor) -> torch.Tensor:
    """Each step in place reads what the one before wrote."""
    kept = conv.relu_() + 1
    conv.mul_(-1.0)
    return conv + kept


def view_before(conv: torch.Tensor) -> torch.Tensor:
    """A view sees what is written to its tensor later."""
    rows = conv.view(conv.shape[0], 4, 64)
    conv.relu_()
    return rows


def written_view(conv: torch.Tensor) -> torch.Tensor:
    """What is written to a view changes its tensor."""
    conv[:, :2].relu_()
    return conv


def written_part(conv: torch.Tensor) -> torch.Tensor:
    """A part of a tensor is a view as well."""
    first, _second = conv.chunk(2, dim=1)
    first.relu_()
    return conv


def written_dropout(conv: torch.Tensor) -> torch.Tensor:
    """Dropout returns its input in evaluation mode, so that this writes to the convolution's output."""
    nn.functional.dropout(conv, training=False).add_(1.0)
    return conv


def written_type(conv: torch.Tensor) -> torch.Tensor:
    """A composite operator that returns its input here."""
    conv.type_as(conv).relu_()
    return conv


WRITING = (read_before, read_after, written_twice)
SHARING = (view_before, written_view, written_part, written_type)


def lowered(network: nn.Module) -> LoweredProgram:
    """The program of a network, ready for ONNX."""
    return LoweredProgram(capture(network.eval(), IMAGES).program)


def is_kept(program: LoweredProgram, table: dict[OpOverload, Callable[..., torch.Tensor]]) -> bool:
    """Whether a program is not decomposed with a table."""
    with quiet():
        return program.run_decompositions(table) is program


@pytest.fixture
def decomposed(monkeypatch: pytest.MonkeyPatch) -> list[ExportedProgram]:
    """The programs that torch traced once more."""
    programs: list[ExportedProgram] = []
    original = ExportedProgram.run_decompositions

    def recorded(self: ExportedProgram, *args: object, **kwargs: object) -> ExportedProgram:
        programs.append(self)
        return original(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(ExportedProgram, "run_decompositions", recorded)
    return programs


def test_the_usual_layers_are_not_traced_again(tmp_path, decomposed):
    export_onnx(usual(), IMAGES, tmp_path / "net.onnx")
    assert not decomposed


@pytest.mark.parametrize("then", [*WRITING, written_dropout], ids=lambda then: then.__name__)
def test_steps_in_place_become_steps_that_return(then):
    assert is_kept(lowered(Forward(then)), {})


@pytest.mark.parametrize("then", SHARING, ids=lambda then: then.__name__)
def test_steps_that_write_to_shared_memory_are_left_to_torch(then):
    assert not is_kept(lowered(Forward(then)), {})


def test_steps_may_be_renamed():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(True))  # its input is called "input", as a function of Python
    with torch.no_grad():
        torch.testing.assert_close(lowered(network).module(check_guards=False)(IMAGES), network(IMAGES))


def test_an_operator_of_the_table_is_left_to_torch():
    program, relu = lowered(Forward(torch.relu)), torch.ops.aten.relu.default
    assert is_kept(program, {})
    assert not is_kept(program, {relu: lambda tensor: tensor.clamp(min=0)})


@pytest.mark.parametrize("then", [*WRITING, *SHARING, written_dropout], ids=lambda then: then.__name__)
def test_a_lowered_program_computes_what_the_network_does(then):
    network = Forward(then).double().eval()
    program = LoweredProgram(capture(network, IMAGES.double()).program)
    with torch.no_grad():
        torch.testing.assert_close(program.module(check_guards=False)(IMAGES.double()), network(IMAGES.double()))


def test_the_captured_program_is_not_changed():
    captured = capture(usual(), IMAGES)
    before = str(captured.program.graph)
    program = LoweredProgram(captured.program)
    assert str(captured.program.graph) == before != str(program.graph)
    with torch.no_grad():
        torch.testing.assert_close(program.module(check_guards=False)(IMAGES), captured.module(IMAGES))
