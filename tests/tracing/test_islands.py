"""Layers behind the op from which on a forward depends on data: what is cut does not depend on the data."""

import pytest
import torch
from selecting import CHANNELS, CLASSES, DEAD, LEFT, SIDE, UNITS, Forward, check_equal, dying, inputs, network, selected
from torch import nn
from wiring import EXACT, norm, planes, reasons, widths

import slimnet


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
