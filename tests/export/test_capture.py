"""A network as a graph for any batch size, beside a private copy; the network itself is left alone."""

import collections
import io
from dataclasses import dataclass

import pytest
import torch
from bundles import HIDDEN, SmallNet, assert_same_snapshot, images, refusal, small_net, snapshot
from torch import nn

from slimnet.errors import ExportError, InputError
from slimnet.export.capture import capture, named_tensors_in, private_copy, run, unique, with_batch
from slimnet.modules.example_inputs import Inputs, tensors_in

Pair = collections.namedtuple("Pair", ["left", "right"])


@dataclass
class Found:
    """An output as libraries wrap it."""

    logits: torch.Tensor
    loss: None = None


class Returns(nn.Module):
    """Returns what a function makes of two tensors."""

    def __init__(self, make) -> None:
        super().__init__()
        self.fc, self.make = nn.Linear(4, 3), make

    def forward(self, x: torch.Tensor):
        y = self.fc(x)
        return self.make(y, y.relu())


class Noisy(nn.Module):
    """Draws random numbers whatever the mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0 * torch.rand_like(x)


class Gathers(nn.Module):
    """A batch of images, and a table that is the same for any number of them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor, table: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return self.fc(x) @ table.T * scale


class Remembers(nn.Module):
    """Keeps a grid of positions for the shape that it saw last, as detectors keep their anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 3)
        self.shape: torch.Size | None = None
        self.grid = torch.zeros(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        if self.shape != y.shape:
            self.shape = y.shape
            self.grid = torch.stack(torch.meshgrid(*map(torch.arange, y.shape[2:]), indexing="ij")).to(y)
        return y + self.grid


@pytest.mark.parametrize("seen", [None, 1, 2, 3])
def test_what_a_forward_keeps_for_a_shape_is_no_condition_on_the_batch(seen):
    """Whatever number of examples it saw last. Oracle: the network itself."""
    model = Remembers().eval()
    if seen is not None:
        model(torch.randn(seen, 3, 8, 8))
    captured = capture(model, torch.randn(2, 3, 8, 8))
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 8, 8)
        with torch.no_grad():
            assert torch.equal(captured.program.module()(x), model(x))


@pytest.mark.parametrize("given", [1, 2, 3, 8])
@pytest.mark.parametrize("batch", [1, 2, 5, 11])
def test_the_graph_computes_what_the_network_computes_at_any_batch_size(given, batch):
    """Whatever number of examples it was made from. Oracle: the network itself."""
    model = small_net()
    captured = capture(model, images(given))
    x = images(batch, seed=3)
    with torch.no_grad():
        assert torch.equal(captured.program.module()(x), model(x))


def test_the_network_is_left_alone():
    model = small_net().train()
    model.fc.requires_grad_(False)
    model.conv.register_forward_hook(lambda *_: None)
    before, random = snapshot(model), torch.get_rng_state()
    captured = capture(model, images())
    assert_same_snapshot(before, snapshot(model))
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module.training for module in captured.module.modules())


def test_the_copy_shares_no_memory_with_the_network():
    model = small_net()
    copy = private_copy(model)
    theirs = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    assert theirs.isdisjoint(tensor.data_ptr() for tensor in (*copy.parameters(), *copy.buffers()))
    assert type(copy) is SmallNet


def test_random_numbers_of_a_forward_are_not_the_callers():
    random = torch.get_rng_state()
    run(capture(Noisy(), images()).module, Inputs.of(images()))
    assert torch.equal(torch.get_rng_state(), random)


def test_no_example_data_and_no_place_on_this_machine_are_kept():
    buffer = io.BytesIO()
    program = capture(small_net(), images()).program
    assert program.example_inputs is None
    torch.export.save(program, buffer)
    assert b".py" not in buffer.getvalue()


OUTPUTS = {
    "tensor": (lambda a, b: a, ("output",)),
    "tuple": (lambda a, b: (a, b), ("output_0", "output_1")),
    "list": (lambda a, b: [a, b], ("output_0", "output_1")),
    "dict": (lambda a, b: {"logits": a, "hidden": b}, ("logits", "hidden")),
    "odd keys": (lambda a, b: {"1": a, "a b": b}, ("output_1", "a_b")),
    "nested": (lambda a, b: {"out": (a, [b])}, ("out_0", "out_1_0")),
    "named tuple": (lambda a, b: Pair(a, b), ("left", "right")),
    "object": (lambda a, b: Found(a), ("logits",)),
    "objects": (lambda a, b: [Found(a), Found(b)], ("output_0_logits", "output_1_logits")),
    "with a number": (lambda a, b: (a, 3, b), ("output_0", "output_2")),
    "with None": (lambda a, b: {"a": a, "loss": None}, ("a",)),
    "the same name twice": (lambda a, b: {"x_0": a, "x": (b,)}, ("x_0", "x_0_1")),
}


@pytest.mark.parametrize(("make", "names"), OUTPUTS.values(), ids=OUTPUTS)
def test_outputs_are_named_by_where_they_are(make, names):
    """In the order in which the program returns them."""
    model, x = Returns(make).eval(), torch.randn(5, 4)
    captured = capture(model, torch.randn(2, 4))
    assert captured.output_names == names
    with torch.no_grad():
        expected = [tensor for _, tensor in named_tensors_in(model(x))]
        for form in (captured.module, captured.program.module()):
            found = tensors_in(form(x))
            assert len(found) == len(names)
            assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ("a", "b")),
        (["a", "a", "a"], ("a", "a_1", "a_2")),
        (["a", "a_1", "a"], ("a", "a_1", "a_2")),
        (["a_1", "a", "a"], ("a_1", "a", "a_2")),
        ([], ()),
    ],
)
def test_names_that_come_again_get_numbers(names, expected):
    assert unique(names) == expected


def test_only_what_is_as_long_as_the_first_input_has_the_batch_axis():
    model = Gathers().eval()
    captured = capture(model, {"x": torch.randn(3, 4), "table": torch.randn(7, 5), "scale": 2.0})
    assert captured.input_names == ("x", "table")
    x, table = torch.randn(6, 4), torch.randn(7, 5)
    with torch.no_grad():
        assert torch.equal(captured.program.module()(x=x, table=table, scale=2.0), model(x, table, 2.0))


def test_a_table_that_happens_to_be_as_long_as_the_batch_is_either_right_or_explained():
    """Seven images and a table of seven rows: the table would have to grow with the batch, which works here."""
    captured = capture(Gathers().eval(), [torch.randn(7, 4), torch.randn(7, 5)])
    assert tuple(captured.program.module()(torch.randn(3, 4), torch.randn(3, 5)).shape) == (3, 3)


class Looks(nn.Module):
    """Looks at the numbers in one of the ways there are."""

    def __init__(self, how) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.how(x)


REFUSED = {
    "if": (lambda x: x * 2 if x.sum() > 0 else x, "depends on the values"),
    "item": (lambda x: x * 2 if x.max().item() > 0 else x, "depends on the values"),
    "rows": (lambda x: x[: int(x.abs().max()) + 1] if int(x.abs().max()) > 2 else x, "depends on the values"),
    "view": (lambda x: x.view(3, -1), "for any batch size: its forward only works for some"),
    "constant": (lambda x: x + torch.ones(3, 1), "for any batch size"),
    "even": (lambda x: x.view(-1, 2, 4) if x.shape[0] % 2 == 0 else x.view(-1, 1, 4), "for any batch size"),
    "number": (lambda x: 3, "returns no tensor"),
}


@pytest.mark.parametrize(("how", "message"), REFUSED.values(), ids=REFUSED)
def test_a_forward_that_is_no_graph_for_any_batch_size_is_refused_in_one_line(how, message):
    said = refusal(ExportError, capture, Looks(how), torch.randn(3, 4))
    assert message in said
    assert said.startswith("Looks ")
    assert not HIDDEN.search(said)


def test_a_network_that_takes_no_such_inputs_is_refused_with_the_shape_that_was_given():
    assert "(3, 5)" in refusal(InputError, capture, nn.Linear(4, 2), torch.randn(3, 5))


def test_inputs_of_another_device_or_type_are_refused():
    assert "float64" in refusal(InputError, capture, small_net(), images(dtype=torch.float64))
    assert "meta" in refusal(InputError, capture, small_net(), images().to("meta"))


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_inputs_are_brought_to_a_batch_size_without_two_alike(batch):
    """A network that mixes examples up would not show on equal ones."""
    (tensor,) = with_batch(Inputs.of(torch.arange(12.0).view(2, 6)), batch).tensors
    assert tensor.shape == (batch, 6)
    assert len({tuple(row) for row in tensor.tolist()}) == batch
    assert torch.equal(tensor[:2], torch.arange(12.0).view(2, 6)[:batch])


def test_a_batch_of_plain_numbers_can_be_made_longer():
    (tensor,) = with_batch(Inputs.of(torch.tensor([1, 2])), 5).tensors
    assert tensor.tolist() == [1, 2, 1, 2, 1]


def test_other_inputs_keep_their_length():
    inputs = with_batch(Inputs.of({"x": torch.zeros(2, 3), "t": torch.zeros(4, 3), "s": torch.tensor(1.0)}), 5)
    assert [tuple(tensor.shape) for tensor in inputs.tensors] == [(5, 3), (4, 3), ()]


def test_inputs_that_hold_no_example_are_refused():
    assert "no example" in refusal(InputError, with_batch, Inputs((torch.zeros(0, 3),), {}), 5)
