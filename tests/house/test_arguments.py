"""Arguments of public functions that are something else than what is needed: each error is one short line."""

import collections

import numpy as np
import pytest
import torch
from bundles import SHAPE, basic_net
from torch import nn

import slimnet
from slimnet.errors import shown

WRONG = {
    "a module": nn.Sequential(nn.Linear(2, 2), nn.ReLU()),
    "a tensor": torch.zeros(3, 40, 40),
    "an array": np.zeros((3, 3)),
    "text": "nonsense",
    "a number": -0.5,
    "nothing": None,
    "a class": nn.ReLU,
    "an object": object(),
    "a dict": {f"unknown_{number}": number for number in range(10)},
}
LONGEST = 400
"""Characters of an error; lists of valid names are part of some."""


@pytest.fixture(scope="module")
def slimmed() -> slimnet.Slimmed:
    return slimnet.slim(basic_net(), torch.rand(2, *SHAPE))


@pytest.fixture
def calls(slimmed, basic, tmp_path):
    """Valid arguments of public functions, by their names, and the types of which a wrong one is none."""
    model, inputs = basic_net(), torch.rand(2, *SHAPE)
    network = {"model": model, "example_inputs": inputs}
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    return {
        slimnet.slim: network,
        slimnet.inspect: network,
        slimnet.Monitor: network,
        slimnet.Shrinker: network | {"optimiser": optimiser},
        slimnet.apply_plan: {"model": model, "plan": slimmed.plan},
        slimnet.certify: {"dense": model, "slim": slimmed.model, "plan": slimmed.plan, "inputs": inputs},
        slimnet.save: {"slimmed": slimmed, "folder": tmp_path / "slim"},
        slimnet.build: {"arch": "resnet20"},
        slimnet.export_onnx: network | {"path": tmp_path / "net.onnx"},
        slimnet.load: {"folder": basic.folder},
        slimnet.verify_bundle: {"folder": basic.folder},
    }


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(
    ("function", "argument", "right"),
    [
        (slimnet.slim, "model", ["a module"]),
        (slimnet.slim, "example_inputs", []),
        (slimnet.slim, "threshold", []),
        (slimnet.slim, "criterion", []),
        (slimnet.slim, "round_to", ["nothing"]),
        (slimnet.slim, "keep", []),
        (slimnet.slim, "tolerance", ["nothing"]),
        (slimnet.inspect, "model", ["a module"]),
        (slimnet.inspect, "keep", []),
        (slimnet.Monitor, "model", ["a module"]),
        (slimnet.Monitor, "threshold", []),
        (slimnet.Shrinker, "model", ["a module"]),
        (slimnet.Shrinker, "optimiser", []),
        (slimnet.Shrinker, "also", []),
        (slimnet.Shrinker, "threshold", []),
        (slimnet.Shrinker, "largest_shift", []),
        (slimnet.Shrinker, "patience", []),
        (slimnet.Shrinker, "round_to", ["nothing"]),
        (slimnet.apply_plan, "model", []),
        (slimnet.apply_plan, "plan", []),
        (slimnet.certify, "dense", []),
        (slimnet.certify, "slim", []),
        (slimnet.certify, "plan", []),
        (slimnet.certify, "inputs", []),
        (slimnet.certify, "tolerance", ["nothing"]),
        (slimnet.save, "slimmed", []),
        (slimnet.build, "arch", []),
        (slimnet.build, "arch_args", ["nothing"]),
        (slimnet.export_onnx, "model", ["a module"]),
        (slimnet.load, "model", ["nothing"]),
        (slimnet.verify_bundle, "model", ["nothing"]),
        (slimnet.verify_bundle, "dense", ["nothing"]),
        (slimnet.verify_bundle, "loader", ["nothing"]),
    ],
    ids=lambda value: getattr(value, "__name__", value) if not isinstance(value, list) else "",
)
def test_what_is_something_else_is_refused_in_one_line(function, argument, right, wrong, calls):
    if wrong in right:
        return
    with pytest.raises(slimnet.SlimnetError) as refused:
        function(**calls[function] | {argument: WRONG[wrong]})
    message = str(refused.value)
    assert "\n" not in message
    assert 10 < len(message) < LONGEST


def test_numbers_of_numpy_are_numbers():
    """Both are powers of two, which are the same number in single and in double precision."""
    limits = 2**-10, 2**-13
    found, expected = (
        slimnet.slim(basic_net(), torch.rand(2, *SHAPE), kind(limits[0]), tolerance=kind(limits[1]))
        for kind in (np.float32, float)
    )
    assert found.plan == expected.plan
    assert found.plan.to_json() == expected.plan.to_json()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-3, "0.001"),
        ("net.pt", "'net.pt'"),
        (None, "None"),
        (torch.zeros(2, 3), "a Tensor of shape (2, 3)"),
        (np.zeros(4), "a ndarray of shape (4,)"),
        (WRONG["a module"], "a Sequential"),
        (WRONG["a dict"], "a dict"),
        (collections.OrderedDict.fromkeys("abcdefghijklmnopqrstuvwxyz"), "an OrderedDict"),
        (nn.ReLU, "<class 'torch.nn.modules.activation.ReLU'>"),
    ],
)
def test_a_value_is_shown_in_a_few_words(value, text):
    assert shown(value) == text
