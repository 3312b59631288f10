"""Heads behind a selection: modules that depend on more than their tensors, and forwards that leave torch."""

import pytest
import torch
from selecting import CHANNELS, CLASSES, LEFT, UNITS, Forward, check_equal, dying, inputs, network, selected
from torch import nn
from wiring import widths

import slimnet


class Holding(nn.Module):
    """A head that holds its units for others."""

    def __init__(self) -> None:
        super().__init__()
        self.first = dying(nn.Linear(CHANNELS, UNITS), 0.5)
        self.scores = nn.Linear(UNITS, CLASSES)
        self.seen: torch.Tensor | None = None

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        self.seen = self.first(cells).relu()
        return self.scores(self.seen)


class Reading(nn.Module):
    """A head that reads what another one holds."""

    def __init__(self) -> None:
        super().__init__()
        self.held = Holding()
        self.first = self.held.first
        self.boxes = nn.Linear(UNITS, 2)

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        return self.boxes(self.held.seen) + cells[:, :2]


class Scaled(nn.Module):
    """A head that multiplies its units by what it is given, or by a number that others set."""

    def __init__(self) -> None:
        super().__init__()
        self.first = dying(nn.Linear(CHANNELS, UNITS), 0.5)
        self.scores = nn.Linear(UNITS, CLASSES)
        self.scale = 1.0

    def forward(self, cells: torch.Tensor, scale: float | None = None) -> torch.Tensor:
        return self.scores(self.first(cells) * (self.scale if scale is None else scale))


class Gated(nn.Module):
    """A head that itself branches on its units."""

    def __init__(self) -> None:
        super().__init__()
        self.first = dying(nn.Linear(CHANNELS, UNITS), 0.5)
        self.scores = nn.Linear(UNITS, CLASSES)

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        units = self.first(cells)
        return self.scores(units) if units.sum() > 0 else units[:, -CLASSES:]


class Pooled(nn.Module):
    """A head that does something else for a single cell; without any it returns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first = dying(nn.Linear(CHANNELS, UNITS), 0.5)
        self.scores = nn.Linear(UNITS, CLASSES)

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        if not len(cells):
            return cells.new_zeros(0, CLASSES)
        units = self.first(cells)
        return units[:, :CLASSES] if len(cells) == 1 else self.scores(units)


def units_held(model: nn.Module, images: torch.Tensor) -> object:
    """What a head holds is read in the way that has not run."""
    found = selected(model, images)
    scores = model.head(found)
    return scores if len(found) > 8 else (scores, model.head.seen)


def units_held_for_a_head(model: nn.Module, images: torch.Tensor) -> object:
    """What a head holds is read by another layer."""
    scores = model.head(selected(model, images))
    return scores, model.boxes(model.head.seen)


def units_read_inside(model: nn.Module, images: torch.Tensor) -> object:
    """A head reads what another one holds, without being given it; code in between may change it."""
    found = selected(model, images)
    scores = model.head.held(found)
    if len(found) <= 8:
        model.head.held.seen = model.head.held.seen + 1
    boxes = model.head(found)
    model.head.held.seen = None
    return scores, boxes


def given_a_number(model: nn.Module, images: torch.Tensor) -> object:
    return model.head(selected(model, images), float(images.mean()))


def number_set(model: nn.Module, images: torch.Tensor) -> object:
    found = selected(model, images)
    model.head.scale = float(images.mean())
    return model.head(found)


def branch_inside(model: nn.Module, images: torch.Tensor) -> object:
    return model.head(selected(model, images))


def branch_on_number(model: nn.Module, images: torch.Tensor) -> object:
    return model.head(selected(model, images))


HEADS: dict[Forward, type[nn.Module]] = {
    units_held: Holding,
    units_held_for_a_head: Holding,
    units_read_inside: Reading,
    given_a_number: Scaled,
    number_set: Scaled,
    branch_inside: Gated,
    branch_on_number: Pooled,
}


@pytest.mark.parametrize("forward", HEADS, ids=lambda forward: forward.__name__)
def test_units_stay_in_modules_that_depend_on_more_than_tensors(forward):
    """Oracle: the dense network, on images that lead another way than the example."""
    torch.manual_seed(1)
    net = network(forward, head=HEADS[forward]())
    slimmed = slimnet.slim(net, inputs(-2.0, 9))
    assert slimmed.model.head.first.out_features == UNITS
    check_equal(net, slimmed.model)


def test_a_head_in_a_module_of_its_own_is_followed_wherever_it_is_called():
    """Other code may call it, but sees no more of it than what it returns, which stays."""

    def forward(model: nn.Module, images: torch.Tensor) -> object:
        found = selected(model, images)
        return model.head(found) if len(found) > 8 else -model.head(2 * found)

    head = nn.Sequential(dying(nn.Linear(CHANNELS, UNITS), 0.5), nn.ReLU(), nn.Linear(UNITS, CLASSES))
    net = network(forward, head=head)
    slimmed = slimnet.slim(net, inputs(-2.0, 9))
    assert slimmed.model.head[0].out_features == LEFT
    assert slimmed.plan.stop is not None
    assert slimmed.plan.stop.behind == ("head",)
    check_equal(net, slimmed.model)


def as_list(model: nn.Module, images: torch.Tensor) -> object:
    """A forward that selects by a list of numbers, behind a first head."""
    found = selected(model, images)
    scores = model.scores(model.second(model.first(found).relu()).relu())
    best = [place for place, row in enumerate(scores.tolist()) if max(row) > 0]
    return scores, model.boxes(model.third(found[best]).relu())


def leaves_torch(model: nn.Module, images: torch.Tensor) -> object:
    """A forward that goes on with what only data has, behind a first head."""
    found = selected(model, images)
    scores = model.scores(model.second(model.first(found).relu()).relu())
    best = scores.numpy().max(1) > 0
    return scores, model.boxes(model.third(found[torch.from_numpy(best)]).relu())


def leaves_torch_for_a_layer(model: nn.Module, images: torch.Tensor) -> object:
    """The same, where a layer of the first head runs again."""
    found = selected(model, images)
    scores = model.scores(model.second(model.first(found).relu()).relu())
    best = scores.numpy().max(1) > 0
    return scores, model.boxes(model.second(model.third(found[torch.from_numpy(best)]).relu()))


def test_lists_of_numbers_are_followed():
    """Oracle: the dense network."""
    net = network(as_list, third=dying(nn.Linear(CHANNELS, UNITS), 0.5))
    slimmed = slimnet.slim(net, inputs(-2.0, 9))
    assert widths(slimmed.model)[1:3] == [LEFT, LEFT]
    assert slimmed.model.third.out_features == LEFT
    check_equal(net, slimmed.model)


@pytest.mark.parametrize(("forward", "left"), [(leaves_torch, LEFT), (leaves_torch_for_a_layer, UNITS)])
def test_a_forward_that_leaves_torch_is_followed_up_to_there(forward, left):
    """What runs behind that stays, and so do layers that run again there."""
    net = network(forward, third=dying(nn.Linear(CHANNELS, UNITS), 0.5))
    slimmed = slimnet.slim(net, inputs(-2.0, 9))
    assert widths(slimmed.model)[1:3] == [left, left]
    assert slimmed.model.third.out_features == UNITS
    check_equal(net, slimmed.model)


def test_a_forward_that_does_something_else_without_data_is_followed_up_to_the_stop_alone():
    def forward(model: nn.Module, images: torch.Tensor) -> object:
        found = selected(model, images)
        hidden = model.first(found).relu()
        try:
            first = float(found.numpy().sum())
        except (NotImplementedError, RuntimeError):
            return hidden
        return model.scores(hidden) * first

    net = network(forward)
    slimmed = slimnet.slim(net, inputs(-2.0, 9))
    assert widths(slimmed.model)[1] == UNITS
    check_equal(net, slimmed.model)
