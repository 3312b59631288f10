"""A shrinker in somebody's own loop: the same objects, narrower; and what it refuses."""

import copy
import json

import torch
from dying import DYING, batches, let_die, network, one_step
from torch import nn
from wiring import refused

import slimnet
from slimnet.errors import PlanError, UsageError
from slimnet.shrinking import Cut, Shrinker

EXAMPLE = next(batches(1))[0]


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), 1e-3, weight_decay=1e-3)


def begun(steps: int = 2) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network with an optimiser that has taken a few steps; some channels are dead."""
    model = network()
    optimiser = adam(model)
    for batch in batches(steps):
        one_step(model, optimiser, *batch)
    let_die(model, DYING[0])
    return model, optimiser


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def test_all_objects_stay_the_same_ones_and_all_tensors_are_narrower():
    model, optimiser = begun()
    parameters, modules = dict(model.named_parameters()), dict(model.named_modules())
    buffers, dense = dict(model.named_buffers()), copy.deepcopy(model)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 1)
    cut = Shrinker(model, optimiser, EXAMPLE, patience=1).step()
    assert cut is not None
    assert "channels removed" in str(cut)
    assert all(parameters[name] is parameter for name, parameter in model.named_parameters())
    assert all(buffers[name] is buffer for name, buffer in model.named_buffers())
    assert all(modules[name] is module for name, module in model.named_modules())
    narrow = slimnet.apply_plan(dense, cut.plan)
    assert repr(model) == repr(narrow)
    wanted = narrow.state_dict()
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        n: t.shape for n, t in wanted.items()
    }
    for parameter in model.parameters():
        kept = optimiser.state[parameter]
        assert kept["exp_avg"].shape == kept["exp_avg_sq"].shape == parameter.shape == parameter.grad.shape
    for batch in batches(2):
        one_step(model, optimiser, *batch)
    schedule.step()


def test_a_loss_that_is_still_there_does_not_hold_up_a_cut():
    """`loss` lives on until the next forward has run, and with it a graph that knows the old shapes."""
    model, optimiser = begun()
    parameters = list(model.parameters())
    loss = model(EXAMPLE).square().sum()
    loss.backward()
    parameters[0].note = "kept"
    assert Shrinker(model, optimiser, EXAMPLE, patience=1).step()
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    assert parameters[0].note == "kept"
    optimiser.zero_grad()
    loss = model(EXAMPLE).square().sum()
    loss.backward()
    optimiser.step()


def test_a_gradient_at_hand_is_cut_and_forgotten_where_the_channel_is():
    model, optimiser = begun()
    model(EXAMPLE).square().sum().backward()
    before = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    cut = Shrinker(model, optimiser, EXAMPLE, patience=1, round_to=4).step()
    for name in ("body.0.weight", "body.3.weight", "body.1.weight", "body.1.bias"):
        expected = before[name]
        for each in cut.plan.cuts:
            if each.tensor == name:
                expected = expected.index_select(each.axis, torch.tensor(each.keep))
        if "body.1" in name:
            expected[waiting(cut)] = 0.0
        assert torch.equal(model.get_parameter(name).grad, expected)


def waiting(cut: Cut) -> list[int]:
    """The channels of body.1 that are set to zero, but stay until the width is a multiple of 4."""
    keep = next(each.keep for each in cut.plan.cuts if each.tensor == "body.1.weight")
    found = [place for place, channel in enumerate(keep) if channel in cut.projection.channels["body.1.weight"]]
    assert len(found) == 1
    return found


def test_patience_counts_looks_in_a_row():
    model, optimiser = begun()
    shrinker = Shrinker(model, optimiser, EXAMPLE, patience=3)
    assert shrinker.step() is None
    with torch.no_grad():
        model.body[1].weight[0] = 1.0
    assert shrinker.step() is None
    let_die(model, {"body.1": [0]})
    cut = shrinker.step()
    assert cut.projection.channels["body.1.weight"] == (3,)
    assert shrinker.step() is None
    cut = shrinker.step()
    assert cut.projection.channels["body.1.weight"] == (0,)
    assert shrinker.step() is None


def test_the_plan_of_all_cuts_makes_the_network_of_the_dense_one():
    model, optimiser = begun()
    dense = copy.deepcopy(model)
    shrinker = Shrinker(model, optimiser, EXAMPLE, patience=1)
    first = shrinker.step()
    let_die(model, {"head.1": [1, 2], "stem.1": [0]})
    second = shrinker.step()
    assert shrinker.plan == first.plan.then(second.plan)
    narrow = slimnet.apply_plan(dense, shrinker.plan)
    assert shapes(model) == shapes(narrow)
    assert shrinker.plan.params_after == sum(parameter.numel() for parameter in model.parameters())


def test_widths_are_rounded_up_until_the_end():
    model, optimiser = begun()
    shrinker = Shrinker(model, optimiser, EXAMPLE, patience=1, round_to=4)
    shrinker.step()
    assert (model.body[0].out_channels, model.head[0].out_features) == (4, 7)
    assert shrinker.finish()
    assert (model.body[0].out_channels, model.head[0].out_features) == (3, 6)
    assert shrinker.finish() is None


def test_a_copy_is_narrowed_with_the_network():
    model, optimiser = begun()
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    average.update_parameters(model)
    shrinker = Shrinker(model, optimiser, EXAMPLE, patience=1, round_to=4, also=[average.module])
    cut = shrinker.step()
    assert repr(average.module) == repr(model)
    assert not average.module.body[1].weight[waiting(cut)].any()
    one_step(model, optimiser, *next(batches(1)))
    average.update_parameters(model)
    average.module(EXAMPLE)


def test_a_state_is_taken_up_by_a_network_of_the_first_width():
    model, optimiser = begun()
    shrinker = Shrinker(model, optimiser, EXAMPLE, patience=2)
    shrinker.step()
    assert shrinker.step()
    shrinker.step()
    other = network()
    again = Shrinker(other, other_optimiser := adam(other), EXAMPLE, patience=2)
    again.load_state_dict(shrinker.state_dict())
    other.load_state_dict(model.state_dict())
    other_optimiser.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    assert again.plan == shrinker.plan
    for batch in batches(3, seed=5):
        assert one_step(model, optimiser, *batch) == one_step(other, other_optimiser, *batch)
    assert json.loads(again.state_dict()["plan"]) == json.loads(shrinker.state_dict()["plan"])
    assert "cut already" in refused(PlanError, 2, lambda: again.load_state_dict(shrinker.state_dict()))


def test_a_state_of_another_network_is_refused_and_changes_nothing():
    model, optimiser = begun()
    shrinker = Shrinker(model, optimiser, EXAMPLE, patience=1)
    shrinker.step()
    other = network(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU()))
    again = Shrinker(other, adam(other), EXAMPLE)
    text = refused(PlanError, 2, lambda: again.load_state_dict(shrinker.state_dict()))
    assert "another network" in text
    assert again.plan is None


class Holder(nn.Module):
    def __init__(self, parameter: nn.Parameter) -> None:
        super().__init__()
        self.weight = parameter


def test_what_cannot_be_shrunk_is_refused():
    def text(model: nn.Module, optimiser: torch.optim.Optimizer, **settings: object) -> str:
        return refused(UsageError, 2, lambda: Shrinker(model, optimiser, EXAMPLE, **settings))

    model, other = network(), network(seed=1)
    assert "does not train stem.0.weight" in text(model, adam(other))
    assert "compiled before" in text(torch.compile(model, backend="eager"), adam(model))
    assert "pass its .module" in text(nn.DataParallel(model), adam(model))
    assert "LBFGS may move a channel" in text(model, torch.optim.LBFGS(model.parameters()))
    assert "eps=0" in text(model, torch.optim.Adam(model.parameters(), eps=0))
    assert "differs from the network at stem.0.weight" in text(model, adam(model), also=[nn.Linear(2, 2)])
    assert "shares stem.0.weight" in text(model, adam(model), also=[model])
    assert "patience is 0" in text(model, adam(model), patience=0)
    assert "optimiser is a Mixed" in text(model, model)
    holder = Holder(model.head[0].weight)
    assert "head.0.weight is shared with a Holder outside" in text(model, adam(model))
    del holder
    Shrinker(model, adam(model), EXAMPLE)
    model.body[0].weight.requires_grad_(False)
    assert "body.0.weight is frozen" in text(model, adam(model))
    other.compile(backend="eager")
    assert "compiled before" in text(other, adam(other))
    with torch.inference_mode():
        lifeless = network()
    assert "stem.0.weight was made in inference mode" in text(lifeless, adam(lifeless))


def test_what_is_held_at_its_width_meanwhile_is_refused_and_nothing_changes():
    model, optimiser = begun()
    shrinker = Shrinker(model, optimiser, EXAMPLE, patience=1)
    before = copy.deepcopy(model.state_dict())
    loss = model(EXAMPLE).sum()
    assert "something else holds" in refused(UsageError, 2, shrinker.step)
    del loss
    holder = Holder(model.head[0].weight)
    assert "shared with a Holder" in refused(UsageError, 2, shrinker.step)
    del holder
    left = model.state_dict()
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert all(torch.equal(left[name], before[name]) for name in before if not name.endswith(statistics))
    assert shrinker.step()


def test_a_cut_within_autocast_of_the_caller_is_the_same():
    """Oracle: a cut outside. Within, autocast refers to the weights that the last forward read."""
    cuts = []
    for enabled in (False, True):
        model, optimiser = begun()
        shrinker = Shrinker(model, optimiser, EXAMPLE, patience=1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            model(EXAMPLE).sum().backward()
            cuts.append(shrinker.step())
            model(EXAMPLE).sum().backward()
        optimiser.step()
    assert cuts[0].plan == cuts[1].plan
    assert cuts[0].projection == cuts[1].projection


def test_a_look_and_a_cut_are_a_step():
    torch.manual_seed(0)
    first, second = begun(), begun()
    halves, whole = (Shrinker(*each, EXAMPLE, patience=2) for each in (first, second))
    assert [halves.look(), halves.look()] == [False, True]
    assert [whole.step() is None, whole.step() is None] == [True, False]
    cut = halves.cut()
    assert cut is not None
    assert halves.plan == whole.plan == cut.plan
    assert shapes(first[0]) == shapes(second[0])
    assert halves.cut() is None
