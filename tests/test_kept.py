"""What is said of dead channels that stay: how many, where, and why."""

import pytest
import torch
from test_properties import check_dead
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from wiring import chain, norm, planes, reasons, slim, wired

import slimnet


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_gates_that_nobody_needs_in_one_run_of_a_layer_only_are_alive():
    """A recurrent network's first state is 0, so that its reset gate does nothing then, but it does later."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        state = torch.zeros(1, 6, 6, 6, dtype=x.dtype)
        for image in x.split(1):
            seen = m.norm(m.first(image)).relu()
            reset, update = m.gates(torch.cat([seen, state], 1)).sigmoid().chunk(2, 1)
            new = m.new(torch.cat([seen, reset * state], 1)).tanh()
            state = (1 - update) * state + update * new
        return m.last(state)

    model = wired(
        forward,
        first=nn.Conv2d(2, 6, 3, padding=1),
        norm=norm(6, [0, 1, 4], -1.0),
        gates=nn.Conv2d(12, 12, 3, padding=1),
        new=nn.Conv2d(12, 6, 3, padding=1),
        last=nn.Conv2d(6, 3, 1),
    )
    plan = slim(model, planes()).plan
    check_dead(plan)
    assert {layer.name: layer.dead for layer in plan.layers if layer.dead} == {"first": 3}


def test_channels_that_are_dead_on_the_data_are_counted_like_those_that_are_dead_by_their_scale():
    """Those of `first` can go, those of `second` are added to others; neither has a BatchNorm."""
    model = wired(
        lambda m, x: m.last(m.second(y := m.first(x).relu()).relu() + y),
        first=nn.Conv2d(2, 8, 1),
        second=nn.Conv2d(8, 8, 1),
        last=nn.Conv2d(8, 3, 1),
    )
    with torch.no_grad():
        model.first.bias[:], model.second.bias[:] = 1e2, 1e4
        model.first.bias[[1, 2, 5]] = -1e3
        model.second.bias[[2, 3]] = -1e6
    x = planes()
    plan = slimnet.slim(model, x, criterion="activation", loader=[x]).plan
    check_dead(plan)
    assert {layer.name: layer.dead for layer in plan.layers} == {"first": 3, "second": 2, "last": 0}
    assert {each.layer: each.channels for each in plan.kept} == {"first": (1, 5), "second": (3,)}


def test_a_network_of_torch_modules_alone_is_told_by_their_paths():
    """No line of code is the network's own: neither Python's library nor whoever calls `slim`."""
    model = chain(nn.Conv2d(2, 8, 3), norm(8, [0, 1]), nn.LeakyReLU(), weight_norm(nn.Conv2d(8, 4, 3)))
    found = reasons(slim(model, planes()))
    assert found.endswith(" in 3.parametrizations.weight.0")
    assert ".py" not in found


def test_the_line_of_the_network_own_code_is_named():
    model = wired(
        lambda m, x: m.last(m.norm(m.first(x)).sort(1)[0]),
        first=nn.Conv2d(2, 8, 3),
        norm=norm(8, [0, 1]),
        last=nn.Conv2d(8, 3, 1),
    )
    assert "sort in the network itself (test_kept.py:" in reasons(slim(model, planes()))
