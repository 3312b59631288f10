"""docs/architecture.md: what it names is there, and its recipes for an op and a method work as they are written."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from wiring import chain, norm, planes, slim

from slimnet.methods import Budget, remove_selected, score_channels, scores, select_within_budget
from slimnet.tracing.ops.elementwise import ELEMENTWISE
from slimnet.tracing.ops.registry import OPS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:slimnet|tests|docs|cli)/[\w/.]+)`", PAGE))))
def test_every_path_that_it_names_is_there(path):
    assert (ROOT / path).exists()


def test_every_room_of_the_library_is_in_its_table():
    rooms = {path.parent.name for path in (ROOT / "slimnet").glob("*/__init__.py")}
    assert rooms - set(re.findall(r"`(\w+)/", PAGE)) == set()


@torch.library.custom_op("slimnet_test::triple", mutates_args=())
def triple(image: torch.Tensor) -> torch.Tensor:
    return image * 3


@triple.register_fake
def _(image: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(image)


def conv(narrow: int, wide: int) -> nn.Conv2d:
    return nn.Conv2d(narrow, wide, 3, padding=1, bias=False)


class Tripled(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return triple(image)


def test_a_new_op_is_one_row(monkeypatch):
    """Oracle: the masked network (`wiring.slim`); without the row its channels stay, and it is named."""
    model = chain(conv(2, 8), norm(8, (0, 3, 5), beta=-1.0), Tripled(), nn.ReLU(), conv(8, 3))
    before = slim(model, planes()).plan
    assert before.removed_channels == 0
    assert {kept.op for kept in before.kept} == {"triple"}
    monkeypatch.setitem(OPS, "triple", ELEMENTWISE)
    assert slim(model, planes()).plan.removed_channels == before.dead_channels == 3


def by_position(task: scores.Task) -> scores.Scores:
    """A method that gives up the first channels of every layer."""
    return {layer: np.arange(len(sets), dtype=float) for layer, sets in task.channels.layers.items()}


def test_a_new_method_is_one_row(monkeypatch):
    """The first channels go, the last ones stay as they were."""
    monkeypatch.setitem(scores.SCORES, "by position", by_position)
    model, images = chain(conv(2, 8), norm(8), nn.ReLU(), conv(8, 3)), planes()
    ranking = score_channels("by position", model, images)
    selection = select_within_budget(model, images, ranking, Budget("channels", 0.5))
    filters = remove_selected(model, images, selection).model[0].weight
    assert 0 < len(filters) < 8
    assert torch.equal(filters, model[0].weight[-len(filters) :])
