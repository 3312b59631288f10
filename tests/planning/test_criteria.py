"""Criteria for dead channels: a table by name, and the activation's peak, which plain hooks measure as well."""

import copy
from dataclasses import replace

import pytest
import torch
from masking import difference, outputs
from torch import nn

import slimnet
from slimnet.errors import CertificateError, DataError, UsageError
from slimnet.methods import Selection, remove_selected
from slimnet.methods.remove import plan_for
from slimnet.planning import dead_channels
from slimnet.planning.dead_channels import CRITERIA, Criterion, dead_by_scale

RELUS = {"0": "2", "3": "5"}
"""The ReLU behind each convolution of `network()`."""
SILENT = {"0": (1, 4), "3": (0, 2, 5)}
RARE = {"0": 3, "3": 1}
"""A channel of each convolution that fires on the last example of the data alone."""


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def images() -> list[torch.Tensor]:
    """Batches of different sizes; the last example of all is much larger than the others."""
    batches = list(torch.randn(11, 2, 6, 6, dtype=torch.float64).split(4))
    batches[-1][-1] *= 100
    return batches


def network(batches: list[torch.Tensor]) -> nn.Module:
    """Two blocks whose γ is nowhere small; β silences some channels, and some others on all but the last example."""
    model = nn.Sequential(
        *(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    )
    model = model.double().eval()
    with torch.no_grad():
        for name in SILENT:
            block = model[: int(name) + 2]
            norm = block[-1]
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(0.2, 0.8)
            peaks = torch.cat([block(x) for x in batches]).amax((2, 3))
            norm.bias[RARE[name]] -= (peaks[:-1, RARE[name]].max() + peaks[-1, RARE[name]]) / 2
            norm.bias[list(SILENT[name])] = -1e4
    return model


def silent_by_hooks(model: nn.Module, batches: list[torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """The channels of each convolution whose ReLU gives nothing but zeros on the batches."""
    fired: dict[str, torch.Tensor] = {}
    handles = [
        model.get_submodule(relu).register_forward_hook(
            lambda _, __, out, name=name: fired.update(
                {name: torch.maximum(fired.get(name, torch.zeros(())), out.abs().amax((0, 2, 3)))}
            )
        )
        for name, relu in RELUS.items()
    ]
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for handle in handles:
        handle.remove()
    return {name: tuple((peak == 0).nonzero().flatten().tolist()) for name, peak in fired.items()}


def masked(model: nn.Module, silent: dict[str, tuple[int, ...]]) -> nn.Module:
    """A copy in which these channels are zero behind their ReLU, whatever the input."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, channels in silent.items():
            norm = model[int(name) + 1]
            norm.weight[list(channels)] = norm.bias[list(channels)] = 0.0
    return model


def test_activation_removes_what_hooks_find_silent_and_leaves_the_masked_network():
    batches = images()
    model = network(batches)
    silent = silent_by_hooks(model, batches)
    assert silent == SILENT
    slimmed = slimnet.slim(model, batches[0], criterion="activation", loader=batches, tolerance=1e-12)
    assert [slimmed.model[0].out_channels, slimmed.model[3].out_channels] == [4, 5]
    assert {layer.name: layer.dead for layer in slimmed.plan.layers} == {"0": 2, "3": 3, "8": 0}
    fresh = [torch.randn(7, 2, 6, 6, dtype=torch.float64) * 50]
    assert difference(outputs(masked(model, silent), fresh), outputs(slimmed.model, fresh)) < 1e-12
    assert slimmed.plan.criterion == "max |a| ≤ 1e-12 on 11 examples"
    assert "dead: max |a| ≤ 1e-12 on 11 examples" in str(slimmed.plan)


def test_inspect_finds_what_slim_removes_and_by_gamma_nothing():
    batches = images()
    model = network(batches)
    found = slimnet.inspect(model, batches[0], criterion="activation", loader=iter(batches))
    assert {layer.name: layer.removable for layer in found.layers} == {"0": 2, "3": 3, "8": 0}
    assert found.plan == slimnet.slim(model, batches[0], criterion="activation", loader=batches).plan
    assert slimnet.inspect(model, batches[0]).dead_channels == 0


def test_without_the_example_on_which_it_fires_a_channel_is_dead():
    """So that the loader's last batch counts in the other tests."""
    batches = images()
    model = network(batches)
    found = slimnet.inspect(model, batches[0], criterion="activation", loader=batches[:-1])
    assert {layer.name: layer.dead for layer in found.layers} == {"0": 3, "3": 4, "8": 0}


def test_a_method_and_activation_together_leave_the_masked_network():
    """Of the masked network, in which the chosen channels are zero; both texts are in the plan."""
    batches = images()
    model = network(batches)
    chosen = Selection("mine", {"0": (0,), "3": (7,)})
    both = replace(chosen, criterion="activation")
    slimmed = remove_selected(model, batches[0], both, loader=batches, recalibrate=False, tolerance=1e-12)
    oracle = masked(model, {"0": (0, *SILENT["0"]), "3": (*SILENT["3"], 7)})
    fresh = [torch.randn(7, 2, 6, 6, dtype=torch.float64)]
    assert difference(outputs(oracle, fresh), outputs(slimmed.model, fresh)) < 1e-12
    assert [slimmed.model[0].out_channels, slimmed.model[3].out_channels] == [3, 4]
    assert slimmed.plan.criterion == "max |a| ≤ 1e-12 on 11 examples, and 2 channels chosen by mine"
    assert remove_selected(model, batches[0], chosen, recalibrate=False).model[0].out_channels == 5


def test_a_criterion_that_needs_data_is_refused_without(monkeypatch):
    batches = images()
    model = network(batches)
    selection = Selection("mine", {"0": (0,)}, criterion="activation")
    for work in (
        lambda: slimnet.slim(model, batches[0], criterion="activation"),
        lambda: slimnet.inspect(model, batches[0], criterion="activation"),
        lambda: remove_selected(model, batches[0], selection),
    ):
        with pytest.raises(UsageError, match=r"^criterion activation is measured on data; pass loader=$"):
            work()
    with pytest.raises(UsageError, match="take the plan of remove_selected"):
        plan_for(model, batches[0], selection)
    with pytest.raises(UsageError, match="gives its batches once"):
        remove_selected(model, batches[0], selection, loader=iter(batches))
    with pytest.raises(DataError, match="no batches"):
        slimnet.inspect(model, batches[0], criterion="activation", loader=[])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("activations", "did you mean activation?"),
        ("Gamma", "did you mean gamma?"),
        ("", "choose one"),
        (None, "choose one"),
        (["x"], "choose one"),
    ],
)
def test_an_unknown_criterion_is_refused_before_the_network_is_traced(name, hint):
    """With the nearest name, where there is one; these inputs do not fit the network."""
    selection = Selection("mine", {}, criterion=name)
    for work in (
        lambda: slimnet.slim(nn.Conv2d(3, 3, 1), torch.zeros(1, 2, 3, 3), criterion=name, loader=[]),
        lambda: slimnet.inspect(nn.Conv2d(3, 3, 1), torch.zeros(1, 2, 3, 3), criterion=name),
        lambda: remove_selected(nn.Conv2d(3, 3, 1), torch.zeros(1, 2, 3, 3), selection),
    ):
        with pytest.raises(UsageError) as refused:
            work()
        assert str(refused.value) == f"there is no criterion {name!r}; {hint} (gamma, activation)"


def test_a_new_criterion_is_one_function_and_one_row(monkeypatch):
    """Dead is what γ says, but for half of the threshold; it reaches everything by its name."""
    rows = {**CRITERIA, "half": Criterion(lambda _, graph, threshold, __: dead_by_scale(graph, threshold / 2))}
    monkeypatch.setattr(dead_channels, "CRITERIA", rows)
    batches = images()
    model = network(batches)
    with torch.no_grad():
        model[1].weight[[0, 2]] = torch.tensor([4e-4, 6e-4], dtype=torch.float64)
    assert slimnet.inspect(model, batches[0], criterion="half").dead_channels == 1
    assert slimnet.inspect(model, batches[0]).dead_channels == 2
    assert slimnet.slim(model, batches[0], criterion="half", tolerance=1.0).plan.removed_channels == 1
    selection = Selection("mine", {}, 1e-3, criterion="half")
    assert plan_for(model, batches[0], selection).criterion == "|γ| < 0.0005, and 0 channels chosen by mine"


def test_a_certificate_that_fails_asks_for_more_data_not_for_another_threshold():
    batches = images()
    model = network(batches)
    find = lambda graph: dead_channels.find_dead(model, graph, 1e-3, "activation", batches[:-1])  # noqa: E731
    with pytest.raises(CertificateError, match="find dead channels on more data, or allow more with tolerance="):
        slimnet.pipeline.slim_found(model, batches[0], find, loader=batches)


def test_data_is_gone_through_once_to_find_dead_channels_however_often_a_plan_is_made():
    """The certificate does not hold at first, so that a plan is made again with a retrace."""
    batches = images()
    model = network(batches)
    passes = []

    def find(graph: object) -> dead_channels.DeadChannels:
        passes.append(graph)
        return dead_channels.find_dead(model, graph, 1e-3, "activation", batches[:-1])

    with pytest.raises(CertificateError):
        slimnet.pipeline.slim_found(model, batches[0], find, loader=batches)
    assert len(passes) == 1
