"""Files with the right form and the wrong content: each is refused in one line, and in reasonable time."""

import pytest
import torch
from checkpoints import refusal, save

from slimnet.checkpoint import read_state_dict
from slimnet.checkpoint.weights import AVERAGES, WRAPPERS, found_in
from slimnet.errors import CheckpointError
from slimnet.models import build


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return build("resnet20").state_dict()


def nested() -> torch.Tensor:
    """A tensor without a shape, as old `torch.nested.nested_tensor` makes it."""
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


UNUSUAL = {
    "nested": lambda weight: nested(),
    "sparse_coo": lambda weight: weight.to_sparse(),
    "quantised": lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
    "meta (empty)": lambda weight: weight.to("meta"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", UNUSUAL)
def test_a_weight_that_is_no_ordinary_tensor_is_refused_by_name(kind, state, tmp_path):
    path = save(tmp_path, {**state, "conv1.weight": UNUSUAL[kind](state["conv1.weight"])})
    assert refusal(path) == f"holds conv1.weight as a {kind} tensor; save an ordinary one"


@pytest.mark.filterwarnings("ignore")
def test_a_nested_tensor_in_an_entry_is_refused_by_every_reader(tmp_path):
    path = save(tmp_path, {"state_dict": {"extra": nested()}})
    with pytest.raises(CheckpointError, match="holds extra as a nested tensor; save an ordinary one"):
        read_state_dict(path)


def test_a_dictionary_that_holds_itself_under_every_name_is_looked_into_once(state):
    content = dict(state)
    for entry in (*WRAPPERS, *AVERAGES):
        content[entry] = content
    assert [(each.place, each.tensors.keys()) for each in found_in(content)] == [("", state.keys())]
