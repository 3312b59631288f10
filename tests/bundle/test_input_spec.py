"""Example inputs as data: what comes back is of the same kind, and what comes from elsewhere is not trusted."""

import collections
import json
import math

import pytest
import torch
from bundles import refusal

from slimnet.bundle.input_spec import LIMIT_ELEMENTS, describe_inputs, random_inputs
from slimnet.errors import BundleError
from slimnet.modules.example_inputs import Inputs

Pair = collections.namedtuple("Pair", ["left", "right"])


def there_and_back(example, seed: int = 0) -> Inputs:
    """Described, written as JSON, read, and made again."""
    inputs = example if isinstance(example, Inputs) else Inputs.of(example)
    return random_inputs(json.loads(json.dumps(describe_inputs(inputs), allow_nan=False)), seed)


def tensor_spec(**spec) -> dict:
    return {"args": {"tuple": [{"tensor": {"shape": [2, 3], "dtype": "float32"} | spec}]}, "kwargs": {"dict": {}}}


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.complex64,
        torch.uint8,
        torch.int8,
        torch.int32,
        torch.int64,
        torch.bool,
    ],
)
def test_shape_and_type_come_back(dtype):
    made = there_and_back(torch.ones(2, 3, 4).to(dtype))
    (tensor,) = made.args
    assert (tensor.shape, tensor.dtype) == ((2, 3, 4), dtype)
    assert made.kwargs == {}


def test_keyword_arguments_keep_their_order():
    """JSON objects are written in alphabetical order; an ONNX model takes its inputs in the order of the call."""
    given = {"x": torch.ones(2, 3), "mask": torch.ones(2), "more": {"b": torch.ones(1), "a": torch.ones(4)}}
    described = json.loads(json.dumps(describe_inputs(Inputs.of(given)), sort_keys=True))
    made = random_inputs(described, 0)
    assert list(made.kwargs) == ["x", "mask", "more"]
    assert [tuple(tensor.shape) for tensor in made.tensors] == [(2, 3), (2,), (1,), (4,)]


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0, 3), (1, 1, 1, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_odd_shapes_come_back(shape, dtype):
    (tensor,) = there_and_back(Inputs((torch.zeros(shape, dtype=dtype),), {})).args
    assert (tuple(tensor.shape), tensor.dtype) == (shape, dtype)


def test_floats_are_standard_normal():
    (tensor,) = there_and_back(torch.full((50_000,), 1e6)).args
    assert abs(tensor.mean().item()) < 0.03
    assert abs(tensor.std().item() - 1) < 0.03


@pytest.mark.parametrize(("low", "high"), [(0, 9), (-5, -2), (7, 7), (0, 1)])
def test_integers_have_the_recorded_range_and_no_other(low, high):
    """Indices into an embedding must stay inside it."""
    (tensor,) = there_and_back(torch.tensor([low, high] * 500)).args
    assert set(tensor.tolist()) == set(range(low, high + 1))


def test_the_largest_integers_come_back():
    limits = torch.iinfo(torch.int64)
    (tensor,) = there_and_back(torch.tensor([limits.max] * 4)).args
    assert tensor.tolist() == [limits.max] * 4


def test_the_same_seed_gives_the_same_inputs():
    example = [torch.zeros(3, 4), torch.tensor([1, 90])]
    first, again, other = (there_and_back(example, seed) for seed in (1, 1, 2))
    assert all(map(torch.equal, first.tensors, again.tensors))
    assert not torch.equal(first.tensors[0], other.tensors[0])


def test_random_inputs_leave_the_callers_random_numbers_alone():
    before = torch.get_rng_state()
    there_and_back([torch.zeros(2, 3), torch.tensor([1, 5])])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_numbers_themselves_are_not_recorded():
    """Example inputs may be somebody's photographs."""
    assert "123.5" not in json.dumps(describe_inputs(Inputs.of(torch.full((2, 2), 123.5))))


def test_nested_arguments_come_back_as_they_were():
    example = {
        "image": torch.zeros(2, 3),
        "sizes": [torch.zeros(2), (torch.zeros(1), None)],
        "options": {"scale": 0.5, "deep": {"name": "x", "on": True}, "n": 3},
    }
    made = there_and_back(example)
    assert made.args == ()
    assert list(made.kwargs) == list(example)
    assert isinstance(made.kwargs["sizes"], list)
    assert isinstance(made.kwargs["sizes"][1], tuple)
    assert made.kwargs["sizes"][1][1] is None
    assert made.kwargs["options"] == example["options"]


@pytest.mark.parametrize(
    "value",
    [Pair(1, 2), math.nan, math.inf, {1: torch.zeros(2)}, {1, 2}, object(), torch.float32, 1j, b"bytes"],
    ids=["named tuple", "nan", "inf", "int keys", "set", "object", "dtype", "complex", "bytes"],
)
def test_what_json_cannot_hold_is_refused_by_its_kind(value):
    message = refusal(BundleError, describe_inputs, Inputs((torch.zeros(2), value), {}))
    assert type(value).__name__ in message


NESTED: dict = {"value": 1}
for _ in range(5000):
    NESTED = {"list": [NESTED]}

HOSTILE = {
    "no entries": {},
    "args only": {"args": {"tuple": []}},
    "no tensors": {"args": {"tuple": [{"value": 1}]}, "kwargs": {"dict": {}}},
    "args a list": {"args": {"list": [{"tensor": {"shape": [1], "dtype": "float32"}}]}, "kwargs": {"dict": {}}},
    "args text": {"args": "tuple", "kwargs": {"dict": {}}},
    "args null": {"args": None, "kwargs": None},
    "kwargs a tensor": tensor_spec() | {"kwargs": {"tensor": {"shape": [1], "dtype": "float32"}}},
    "unknown kind": {"args": {"pickle": "gASVAA=="}, "kwargs": {"dict": {}}},
    "two kinds": {"args": {"tuple": [], "list": []}, "kwargs": {"dict": {}}},
    "no kind": {"args": {}, "kwargs": {"dict": {}}},
    "shape a number": tensor_spec(shape=3),
    "shape of text": tensor_spec(shape=["a"]),
    "shape null": tensor_spec(shape=None),
    "negative": tensor_spec(shape=[2, -3]),
    "two negatives": tensor_spec(shape=[-2, -3]),
    "huge": tensor_spec(shape=[10**6, 10**6]),
    "huge and empty": tensor_spec(shape=[0, 10**30]),
    "just too large": tensor_spec(shape=[LIMIT_ELEMENTS + 1]),
    "many axes": tensor_spec(shape=[1] * 100_000),
    "unknown dtype": tensor_spec(dtype="float33"),
    "dtype a function": tensor_spec(dtype="load"),
    "dtype a number": tensor_spec(dtype=7),
    "quantised": tensor_spec(dtype="quint8"),
    "low over high": tensor_spec(dtype="int64", low=5, high=1),
    "low of text": tensor_spec(dtype="int64", low="a", high=1),
    "low infinite": tensor_spec(dtype="int64", low=-math.inf, high=1),
    "high beyond int64": tensor_spec(dtype="int64", low=0, high=10**30),
    "range beyond the type": tensor_spec(dtype="uint8", low=0, high=10**30),
    "nested deeply": {"args": {"tuple": [NESTED]}, "kwargs": {"dict": {}}},
    "text for a dict": {"args": {"tuple": []}, "kwargs": {"dict": "abc"}},
}


@pytest.mark.parametrize("spec", HOSTILE.values(), ids=HOSTILE)
def test_a_description_from_elsewhere_that_is_none_is_refused_in_one_line(spec):
    assert "example inputs" in refusal(BundleError, random_inputs, spec, 0)


def test_many_large_inputs_together_are_refused_before_any_is_made(monkeypatch):
    """Oracle: no random number is asked for."""

    def allocate(*_, **__):
        raise AssertionError("memory was asked for")

    monkeypatch.setattr(torch, "randn", allocate)
    half = {"tensor": {"shape": [LIMIT_ELEMENTS // 2], "dtype": "float32"}}
    spec = {"args": {"tuple": [half, {"list": [half, half]}]}, "kwargs": {"dict": {}}}
    assert "example inputs" in refusal(BundleError, random_inputs, spec, 0)


def test_inputs_too_large_to_be_made_again_are_refused_when_they_are_described():
    """So that no bundle is written that cannot be verified. The tensor is a view: it takes no memory."""
    large = torch.zeros(1).expand(LIMIT_ELEMENTS + 1)
    assert "too large" in refusal(BundleError, describe_inputs, Inputs.of(large))
