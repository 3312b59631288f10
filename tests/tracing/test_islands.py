"""Layers behind the op from which on a forward depends on data: what is cut does not depend on the data."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from wiring import EXACT, norm, planes, reasons, widths, wired

import slimnet

CHANNELS, SIDE, UNITS, DEAD, CLASSES = 4, 6, 10, 4, 3
LEFT = UNITS - DEAD

Forward = Callable[[nn.Module, torch.Tensor], object]


class Uneven(nn.Linear):
    """A layer that refuses few cells."""

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        if len(cells) <= 8:
            raise ValueError("too few cells")
        return super().forward(cells)


def dying(layer: nn.Module, bias: float = -0.5) -> nn.Module:
    """A layer whose first units are dead: their filters are zero, and their biases some constants."""
    with torch.no_grad():
        layer.weight[:DEAD] = 0
        layer.bias[:DEAD] = bias
    return layer


def network(forward: Forward, **layers: nn.Module) -> nn.Module:
    """A convolution in front, and linear layers for behind a selection; units of `first` and `second` are dead."""
    torch.manual_seed(0)
    return wired(
        forward,
        body=nn.Sequential(nn.Conv2d(3, CHANNELS, 3, padding=1), nn.ReLU()),
        first=dying(nn.Linear(CHANNELS, UNITS), 0.5),
        second=dying(nn.Linear(UNITS, UNITS)),
        scores=nn.Linear(UNITS, CLASSES),
        boxes=nn.Linear(UNITS, 2),
        uneven=Uneven(UNITS, CLASSES),
        other=nn.Linear(CHANNELS, UNITS),
        several=nn.ModuleList([nn.Linear(UNITS, CLASSES), nn.Linear(UNITS, CLASSES)]),
        **layers,
    )


def selected(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The cells `(n, C)` of all images whose mean is over 0.6: any number of them, also none."""
    cells = model.body(images).movedim(1, -1).flatten(0, -2)
    return cells[(cells.mean(1) > 0.6).nonzero().flatten()]


def in_a_row(model: nn.Module, images: torch.Tensor) -> object:
    """Layers one after the other."""
    found = model.second(model.first(selected(model, images)).relu()).relu()
    return model.scores(found)


def by_name(model: nn.Module, images: torch.Tensor) -> object:
    """The same with names for what goes from layer to layer, one of which is used again for other things."""
    found = selected(model, images)
    found = model.first(found)
    found = torch.relu(found)
    hidden = model.second(found).relu_()
    found = model.scores(hidden)
    return found, found.argmax(1)


def two_islands(model: nn.Module, images: torch.Tensor) -> object:
    """A selection, a layer, and another selection by what that layer returns."""
    found = selected(model, images)
    scores = model.scores(model.first(found).relu())
    best = found[scores.argmax(1) == 0]
    return scores, model.boxes(model.second(model.first(best).relu()).relu())


def a_layer_in_two_islands(model: nn.Module, images: torch.Tensor) -> object:
    """One stack of layers, called again on what it has selected."""
    found = selected(model, images)
    scores = model.scores(model.first(found).relu())
    best = found[scores[:, 0] > 0]
    return scores, model.scores(model.first(best).relu())


FOLLOWED: dict[Forward, list[int]] = {
    in_a_row: [LEFT, LEFT],
    by_name: [LEFT, LEFT],
    two_islands: [LEFT, LEFT],
    a_layer_in_two_islands: [LEFT, UNITS],
}
"""What stays of `first` and `second`."""


def by_sum(model: nn.Module, images: torch.Tensor) -> object:
    """Which layer runs depends on a value that is computed from the units."""
    hidden = model.first(selected(model, images)).relu()
    return model.scores(hidden) if hidden.sum() > 40 else hidden.mean(1)


def by_number(model: nn.Module, images: torch.Tensor) -> object:
    """Which layer runs depends on how many cells there are; one way returns the units themselves."""
    found = selected(model, images)
    if len(found) > 8:
        return model.scores(model.first(found).relu())
    return model.first(found).relu()


def read_later(model: nn.Module, images: torch.Tensor) -> object:
    """Another line reads the units, if there are few cells."""
    hidden = model.first(selected(model, images))
    result = model.scores(hidden)
    if len(result) < 8:
        result = hidden[:, :CLASSES] + result
    return result


def read_in_a_loop(model: nn.Module, images: torch.Tensor) -> object:
    """The units of one round are read by the next."""
    hidden = None
    results = []
    for cell in selected(model, images):
        if hidden is not None:
            results.append(hidden[:CLASSES])
        hidden = model.first(cell[None])[0]
        results.append(model.scores(hidden))
    return torch.stack([*results, torch.zeros(CLASSES, dtype=images.dtype)])


def kept_in_a_list(model: nn.Module, images: torch.Tensor) -> object:
    """A list holds the units for a line that runs if there are few cells."""
    held = [hidden := model.first(selected(model, images))]
    result = model.scores(hidden)
    return result if len(result) > 8 else (result, held[0])


def kept_as_attribute(model: nn.Module, images: torch.Tensor) -> object:
    """A module holds the units."""
    model.seen = hidden = model.first(selected(model, images))
    result = model.scores(hidden)
    return result if len(result) > 8 else (result, model.seen)


def scaled_by_data(model: nn.Module, images: torch.Tensor) -> object:
    """A number that comes from data scales the constants of the dead units."""
    found = selected(model, images)
    return model.scores(model.first(found) * float(images.sum()))


def shifted_by_data(model: nn.Module, images: torch.Tensor) -> object:
    """A tensor made of a number that comes from data."""
    hidden = model.first(selected(model, images))
    return model.scores(hidden + torch.full((UNITS,), float(images.sum()), dtype=images.dtype))


def cut_by_data(model: nn.Module, images: torch.Tensor) -> object:
    """How many units are read depends on data."""
    hidden = model.first(selected(model, images))
    return hidden[:, : 1 + len(hidden) % 4]


def written_between(model: nn.Module, images: torch.Tensor) -> object:
    """Code writes into the units."""
    hidden = model.first(selected(model, images))
    hidden[:, :2] = images.mean()
    return model.scores(hidden)


def through_a_function(model: nn.Module, images: torch.Tensor) -> object:
    """Not a module but its weight is used by the code."""
    hidden = nn.functional.linear(selected(model, images), model.first.weight, model.first.bias)
    return model.scores(hidden)


def by_getattr(model: nn.Module, images: torch.Tensor) -> object:
    """The way that has not run names its layer in a string."""
    found = selected(model, images)
    if len(found) <= 8:
        return getattr(model, "first")(found)  # noqa: B009
    return model.scores(model.first(found))


def scored_elsewhere(model: nn.Module, cells: torch.Tensor) -> torch.Tensor:
    return model.first(cells)


def by_a_function_elsewhere(model: nn.Module, images: torch.Tensor) -> object:
    """The way that has not run calls a function, which names the layer."""
    found = selected(model, images)
    if len(found) <= 8:
        return scored_elsewhere(model, found)
    return model.scores(model.first(found))


def after_an_error(model: nn.Module, images: torch.Tensor) -> object:
    """What the code does after an error reads the units."""
    hidden = model.first(selected(model, images))
    try:
        result = model.uneven(hidden)
    except ValueError:
        result = hidden
    return result


def another_layer(model: nn.Module, images: torch.Tensor) -> object:
    """Which layer a variable holds depends on data."""
    found = selected(model, images)
    layer = model.first if len(found) > 8 else model.other
    return model.scores(layer(found))


def another_of_a_list(model: nn.Module, images: torch.Tensor) -> object:
    """Which layer of a list runs depends on data."""
    found = selected(model, images)
    hidden = model.first(found)
    return model.several[int(len(found) > 8)](hidden)


def another_function(model: nn.Module, images: torch.Tensor) -> object:
    """Which function a variable holds depends on data: the constants differ."""
    found = selected(model, images)
    function = torch.relu if len(found) > 8 else torch.sigmoid
    return model.scores(function(model.first(found)))


def read_the_other_way_alone(model: nn.Module, images: torch.Tensor) -> object:
    """The way that has run computes the units for nothing."""
    found = selected(model, images)
    hidden = model.first(found)
    return found if len(found) > 8 else hidden.mean(1)


def by_locals(model: nn.Module, images: torch.Tensor) -> object:
    """The way that has not run reads the units without naming them."""
    hidden = model.first(selected(model, images))
    result = model.scores(hidden)
    return result if len(result) > 8 else (result, locals()["hidden"])


KEPT = (
    by_sum,
    by_number,
    read_later,
    read_in_a_loop,
    kept_in_a_list,
    kept_as_attribute,
    scaled_by_data,
    shifted_by_data,
    cut_by_data,
    written_between,
    through_a_function,
    by_getattr,
    by_a_function_elsewhere,
    after_an_error,
    another_layer,
    another_of_a_list,
    another_function,
    read_the_other_way_alone,
    by_locals,
)
"""Forwards whose units must stay, since the code may read them in another way than it did."""


def inputs(shift: float, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return planes(3, SIDE, batch=2) + shift


SHIFTS = (-9.0, -2.0, -0.6, 0.0, 4.0)
"""What is added to images, so that no cell, one, some or all of them are selected."""


def check_equal(dense: nn.Module, slim: nn.Module) -> set[int]:
    """Compare both networks on images with any number of cells, and return these numbers."""
    numbers = set()
    for shift in SHIFTS:
        for seed in range(3):
            images = inputs(shift, seed)
            with torch.no_grad():
                expected, found = dense(images), slim(images)
                numbers.add(len(selected(dense, images)))
            expected, found = ([each] if isinstance(each, torch.Tensor) else each for each in (expected, found))
            assert [each.shape for each in found] == [each.shape for each in expected]
            for left, right in zip(expected, found, strict=True):
                torch.testing.assert_close(right, left, rtol=EXACT, atol=EXACT)
    return numbers


@pytest.mark.parametrize("forward", FOLLOWED, ids=lambda forward: forward.__name__)
def test_layers_behind_a_selection_lose_their_dead_units(forward):
    """Oracle: the dense network in double precision, on images with no cell, one, some and all of them."""
    net = network(forward)
    slimmed = slimnet.slim(net, inputs(-2.0, 9), float64=True)
    assert widths(slimmed.model)[1:3] == FOLLOWED[forward]
    numbers = check_equal(net, slimmed.model)
    assert min(numbers) == 0
    assert max(numbers) == 2 * SIDE * SIDE
    assert slimmed.certificate.behind_max_rel_difference < EXACT
    assert slimnet.SurgeryPlan.from_json(slimmed.plan.to_json()) == slimmed.plan


@pytest.mark.parametrize("forward", [in_a_row, two_islands], ids=lambda forward: forward.__name__)
def test_the_plan_does_not_depend_on_how_many_are_selected(forward):
    plans = [slimnet.slim(network(forward), inputs(shift, 9)).plan for shift in (0.0, -2.0)]
    assert plans[0] == plans[1]


@pytest.mark.parametrize("forward", KEPT, ids=lambda forward: forward.__name__)
def test_units_stay_where_other_data_may_lead_to_code_that_reads_them(forward):
    """Oracle: the dense network, on images that lead another way than the example."""
    net = network(forward)
    slimmed = slimnet.slim(net, inputs(-2.0, 9))
    assert widths(slimmed.model)[1] == UNITS
    check_equal(net, slimmed.model)
    assert "depends on data" in reasons(slimmed) or "with other data" in reasons(slimmed) or not slimmed.plan.kept


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


class Selection(nn.Module):
    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        return cells[cells.mean(1) > 0.1]


def test_a_sequence_around_a_selection_is_followed_behind_it():
    net = network(
        lambda model, images: model.all(model.body(images).movedim(1, -1).flatten(0, -2)),
        all=nn.Sequential(Selection(), dying(nn.Linear(CHANNELS, UNITS)), nn.ReLU(), nn.Linear(UNITS, CLASSES)),
    )
    slimmed = slimnet.slim(net, inputs(0.0, 9))
    assert slimmed.model.all[1].out_features == LEFT
    check_equal(net, slimmed.model)


def test_dead_by_activation_are_only_units_in_front_of_a_selection():
    """How often layers behind it run depends on data. Here they have no cell to run on; zero filters are found."""
    net = network(in_a_row)
    with torch.no_grad():
        net.first.bias[:DEAD] = -0.5
        net.body[0].weight[0], net.body[0].bias[0] = 0, -1
    slimmed = slimnet.slim(net, inputs(0.0, 9), criterion="activation", loader=[inputs(0.0, 9)])
    assert widths(slimmed.model)[1:3] == [LEFT, LEFT]
    check_equal(net, slimmed.model)


def test_padded_convolutions_with_batch_norms_behind_a_selection():
    """Constants that are not zero are carried there as everywhere. Oracle: the dense network."""

    def forward(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        found = model.body(images)
        return model.head(found[found.mean((1, 2, 3)) > found.mean()])

    head = nn.Sequential(
        nn.Conv2d(CHANNELS, UNITS, 3, padding=1, bias=False),
        norm(UNITS, range(DEAD), beta=0.7),
        nn.ReLU(),
        nn.ConvTranspose2d(UNITS, UNITS, 2, 2),
        nn.ReLU(),
        nn.Conv2d(UNITS, UNITS, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(UNITS * 4 * SIDE**2, CLASSES),
    )
    with torch.no_grad():
        head[3].weight[:, :DEAD] = 0
        head[3].bias[:DEAD] = -1
        head[5].weight[:DEAD] = 0
        head[5].bias[:DEAD] = 1
    net = network(forward, head=head)
    slimmed = slimnet.slim(net, planes(3, SIDE, 4), float64=True)
    # The first convolution keeps a carrier of its constants: those of the transposed one vary at the border.
    assert widths(slimmed.model.head) == [LEFT + 1, LEFT, LEFT, CLASSES]
    for batch in (1, 2, 7):
        images = planes(3, SIDE, batch)
        with torch.no_grad():
            torch.testing.assert_close(slimmed.model(images), net(images), rtol=EXACT, atol=EXACT)


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
