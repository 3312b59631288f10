"""Arguments of public functions that are something else than what is needed: each error is one short line."""

import collections
from typing import Any

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
    """Valid arguments of each public function, by their names."""
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


MODULE, NOTHING = "a module", "nothing"
CHECKED: dict[Any, dict[str, str | None]] = {
    slimnet.slim: {
        "model": MODULE,
        "example_inputs": None,
        "threshold": None,
        "criterion": None,
        "round_to": NOTHING,
        "keep": None,
        "tolerance": NOTHING,
    },
    slimnet.inspect: {"model": MODULE, "keep": None},
    slimnet.Monitor: {"model": MODULE, "threshold": None},
    slimnet.Shrinker: {
        "model": MODULE,
        "optimiser": None,
        "also": None,
        "threshold": None,
        "largest_shift": None,
        "patience": None,
        "round_to": NOTHING,
    },
    slimnet.apply_plan: {"model": None, "plan": None},
    slimnet.certify: {"dense": None, "slim": None, "plan": None, "inputs": None, "tolerance": NOTHING},
    slimnet.save: {"slimmed": None},
    slimnet.build: {"arch": None, "arch_args": NOTHING},
    slimnet.export_onnx: {"model": MODULE},
    slimnet.load: {"model": NOTHING},
    slimnet.verify_bundle: {"model": NOTHING, "dense": NOTHING, "loader": NOTHING},
}
"""The arguments that are checked, each with the one of `WRONG` that is right for it, or at least looked at later."""


@pytest.mark.parametrize(
    ("function", "argument", "wrong"),
    [
        pytest.param(function, argument, wrong, id=f"{function.__name__}-{argument}-{wrong}")
        for function, arguments in CHECKED.items()
        for argument, right in arguments.items()
        for wrong in WRONG
        if wrong != right
    ],
)
def test_what_is_something_else_is_refused_in_one_line(function, argument, wrong, calls):
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
