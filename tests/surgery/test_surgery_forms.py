"""Networks in other forms than a plain module: with captured functions, compiled, exported, in strange containers."""

import functools
import types
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn
from wiring import chain, double, norm, planes, reasons, slim, wired

import slimnet
from slimnet.errors import CertificateError, TraceError, UsageError

Code = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Captive(nn.Module):
    """A network that reaches its own layers through a function that was made with them."""

    def __init__(self, how: str):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3), norm(4, [1]), nn.ReLU(), nn.Conv2d(4, 3, 3))
        this = weakref.ref(self)
        ways: dict[str, Callable[..., torch.Tensor]] = {
            "lambda": lambda x: self.body(x),
            "weak reference": lambda x: this().body(x),  # type: ignore[misc]
            "method": self.through_body,
            "partial": functools.partial(Captive.through_body, self),
        }
        self.way = ways[how]

    def through_body(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.way(x)


def test_a_weak_reference_to_the_original_is_refused():
    with pytest.raises(TraceError, match=r"original's body.0.weight.*test_surgery_forms.py:\d+"):
        slimnet.slim(Captive("weak reference").eval(), planes().float())


@pytest.mark.parametrize("how", ["lambda", "method", "partial"])
def test_a_function_over_the_network_is_copied_with_it(how):
    assert slim(double(Captive(how)), planes()).model.body[0].out_channels == 3


def body() -> nn.Sequential:
    return chain(nn.Conv2d(2, 4, 3), norm(4, [1]), nn.ReLU(), nn.Conv2d(4, 3, 3))


def compiled_in_place() -> nn.Module:
    model = body()
    model.compile(backend="eager")
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.fx.symbolic_trace(body()),
        lambda: torch.compile(body(), backend="eager"),
        compiled_in_place,
        lambda: nn.DataParallel(body()),
    ],
)
def test_a_network_in_another_form_is_slimmed_as_it_is(make):
    assert slim(make(), planes()).plan.removed_channels == 1


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_module_of_an_exported_program_is_slimmed():
    """Oracle: the network that was exported; its module has no modes, and is made for these shapes."""
    dense, images = body(), planes()
    slimmed = slimnet.slim(torch.export.export(dense, (images,)).module(), images)
    assert slimmed.plan.removed_channels == 1
    with torch.no_grad():
        torch.testing.assert_close(slimmed.model(images), dense(images))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.jit.script(body()),
        lambda: torch.jit.freeze(torch.jit.script(body())),
        lambda: torch.export.export(body(), (planes(),)),
        lambda: "resnet18",
    ],
)
def test_compiled_code_is_refused(make):
    with pytest.raises(UsageError, match=r"pass the torch\.nn\.Module"):
        slimnet.slim(make(), planes())


def test_a_network_whose_layers_have_no_shape_yet_is_refused():
    with pytest.raises(UsageError, match=r"0\.weight has no shape yet; run the network once"):
        slimnet.slim(nn.Sequential(nn.LazyConv2d(4, 3)), planes())


def test_a_forward_in_inference_mode_is_followed():
    model = wired(torch.inference_mode()(lambda m, x: m.body(x)), body=body())
    assert slim(model, planes()).plan.removed_channels == 1


class Picture(torch.Tensor):
    """A tensor of a class of its own, such as torchvision's images."""


def test_inputs_of_a_class_of_their_own_are_taken_as_tensors():
    slimmed = slimnet.slim(body(), planes().as_subclass(Picture))
    assert slimmed.model[3].out_channels == 3


class Slots:
    __slots__ = ("maps", "unset")

    def __init__(self, maps: object):
        self.maps = maps


class Bag(dict):
    """A dictionary of one's own, which torch does not look into."""


HIDDEN: dict[str, tuple[Callable[[torch.Tensor], object], Callable[[object], torch.Tensor]]] = {
    "slots": (Slots, lambda held: held.maps),
    "an object in an object": (lambda y: types.SimpleNamespace(a=Slots([{"y": y}])), lambda held: held.a.maps[0]["y"]),
    "a dictionary of one's own": (lambda y: Bag(y=(y,)), lambda held: held["y"][0]),
    "itself": (lambda y: itself(y), lambda held: held["me"]["me"]["y"]),
}


def itself(y: torch.Tensor) -> Bag:
    held = Bag(y=y)
    held["me"] = held
    return held


@pytest.mark.parametrize("how", HIDDEN)
def test_an_output_is_kept_and_certified_however_deep_in_objects_it_is(how):
    """Oracle: the dense network's maps, taken out of the object by whoever put them in."""
    hide, take = HIDDEN[how]

    def forward(m: nn.Module, x: torch.Tensor) -> object:
        y = m.body(x)
        return m.last(y), hide(y)

    dense = wired(forward, body=chain(nn.Conv2d(2, 8, 3), norm(8, [1, 2, 6], 0.6), nn.ReLU()), last=nn.Conv2d(8, 3, 3))
    images = planes()
    slimmed = slimnet.slim(dense, images)
    with torch.no_grad():
        assert torch.equal(take(dense(images)[1]), take(slimmed.model(images)[1]))
        slimmed.model.body[1].bias[0] += 1.0
    assert "output of the network" in reasons(slimmed)
    assert not slimnet.certify(dense, slimmed.model, slimmed.plan, images).holds


def test_complex_outputs_are_compared_with_both_of_their_parts():
    dense = wired(lambda m, x: torch.complex(m.body(x), m.other(x)), body=body(), other=body())
    slimmed = slim(dense, planes())
    with torch.no_grad():
        slimmed.model.other[3].bias[0] += 1.0
    assert not slimnet.certify(dense, slimmed.model, slimmed.plan, planes()).holds


def test_a_slim_network_that_raises_gets_no_certificate():
    dense, plan = body(), slimnet.slim(body(), planes()).plan
    with pytest.raises(CertificateError, match=r"the forward of a copy of Sequential raises: .*3, 3.*"):
        slimnet.certify(dense, chain(nn.Conv2d(5, 3, 3)), plan, planes())


def test_a_call_whose_result_nobody_reads_asks_for_no_constant():
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        m.body(x)
        return m.body(x)

    model = wired(forward, body=chain(nn.Conv2d(2, 8, 3), norm(8, [1, 2, 6], 0.6), nn.ReLU(), nn.Conv2d(8, 3, 3)))
    assert slim(model, planes()).model.body[0].out_channels == 5


def test_an_op_that_needs_data_is_named():
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return m.body(torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127))

    with pytest.raises(TraceError, match=r"uses aten::fake_quantize\w+ in the network itself.*before it is quantised"):
        slimnet.slim(wired(forward, body=body()), planes())
