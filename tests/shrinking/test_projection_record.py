"""The certificate of what was set to zero: what was measured, what is recorded, and what a reader refuses."""

import copy
import dataclasses
import json

import pytest
import torch
from dying import DYING, DYING_PLAIN, Plain, batches, let_die, network, one_step
from torch import nn

from slimnet.errors import BundleError, PlanError, UsageError
from slimnet.shrinking import Shrinker
from slimnet.shrinking.projection import Projection
from slimnet.shrinking.projection_record import ProjectionRecord

EXAMPLE = next(batches(1))[0]


def dying_plain() -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network whose first layer still emits a little in its dead channels."""
    model = network(Plain)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    for batch in batches(3):
        one_step(model, optimiser, *batch)
    let_die(model, DYING_PLAIN[0])
    with torch.no_grad():
        model.first[1].bias[[0, 3]] = 8e-4
    return model, optimiser


def test_what_a_projection_changes_is_measured_where_layers_read_it_and_at_the_outputs():
    """Oracle: the layers of a copy called one after the other, with the channels set to zero by hand."""
    model, optimiser = dying_plain()
    dense = copy.deepcopy(model).eval()
    zeros = copy.deepcopy(dense)
    with torch.no_grad():
        received = 0.0
        for name, norm, channels in (("first", "first.1", [0, 3, 4]), ("second", "second.1", [1])):
            inputs = EXAMPLE if name == "first" else dense.first(EXAMPLE)
            values = dense.get_submodule(name)(inputs).abs()
            received = max(received, (values[:, channels].max() / values.max()).item())
            for tensor in (zeros.get_submodule(norm).weight, zeros.get_submodule(norm).bias):
                tensor[channels] = 0
        before, after = dense(EXAMPLE), zeros(EXAMPLE)
        outputs = ((before - after).abs().max() / before.abs().max()).item()
    modes = {path: module.training for path, module in model.named_modules()}
    hooks = [len(module._forward_pre_hooks) for module in model.modules()]
    mean = model.first[1].running_mean.clone()
    cut = Shrinker(model, optimiser, EXAMPLE, patience=1).step()
    change = cut.projection.change
    assert received > 1e-4
    assert outputs > 1e-5
    assert change.received == pytest.approx(received, rel=1e-12)
    assert change.outputs == pytest.approx(outputs, rel=1e-9)
    assert cut.projection.highest_shift == 8e-4
    assert modes == {path: module.training for path, module in model.named_modules()}
    assert hooks == [len(module._forward_pre_hooks) for module in model.modules()]
    assert torch.equal(model.first[1].running_mean, mean[[1, 2, 5]])


def test_a_network_that_runs_in_training_alone_is_cut_without_a_measurement():
    class Trained(Plain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.device.type == "cpu" and not self.training:
                raise RuntimeError("for training only")
            return super().forward(x)

    model = network(Trained)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    let_die(model, DYING_PLAIN[0])
    cut = Shrinker(model, optimiser, EXAMPLE, patience=1).step()
    assert cut is not None
    assert cut.projection.change is None
    record = ProjectionRecord(1e-3, 1e-3, 1, 8).after(4, cut.projection, None)
    assert "was not measured" in str(record)


def recorded() -> tuple[ProjectionRecord, Shrinker]:
    """A record of two cuts."""
    model = network()
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    shrinker = Shrinker(model, optimiser, EXAMPLE, patience=1)
    record = ProjectionRecord(shrinker.threshold, shrinker.largest_shift, 1, len(EXAMPLE))
    places = {name: list(range(norm.num_features)) for name, norm in model.named_modules() if hasattr(norm, "eps")}
    for number, dying in enumerate(DYING):
        let_die(model, {path: [places[path].index(each) for each in channels] for path, channels in dying.items()})
        before = shrinker.plan
        cut = shrinker.step()
        record = record.after(10 * number + 10, cut.projection, before)
        for each in cut.plan.cuts:
            name = each.tensor.removesuffix(".weight")
            if name in places and each.axis == 0:
                places[name] = [places[name][place] for place in each.keep]
    return record, shrinker


@pytest.fixture(scope="module")
def two_cuts() -> tuple[ProjectionRecord, Shrinker]:
    return recorded()


def test_a_record_holds_the_channels_of_every_cut_in_positions_of_the_dense_network(two_cuts):
    record, shrinker = two_cuts
    assert [cut.iteration for cut in record.cuts] == [10, 20]
    for cut, dying in zip(record.cuts, DYING, strict=True):
        for path, channels in dying.items():
            assert set(channels) <= set(cut.channels[f"{path}.weight"]), path
    removed = {
        each.tensor: set(range(shrinker.plan.shapes[each.tensor][0])) - set(each.keep)
        for each in shrinker.plan.cuts
        if each.tensor in record.channels()
    }
    # Of the first depthwise channels only these were set to zero: the others became channels that nothing reads.
    assert removed.pop("wide.1.weight") > record.channels()["wide.1.weight"]
    assert removed == {name: channels for name, channels in record.channels().items() if name in removed}
    assert len(removed) == 4
    record.check_against(shrinker.plan)
    first, last = str(record).split(" (")[0], record.count
    assert first == f"{last} channels set to zero in training"
    assert "2 cuts, iterations 10 to 20" in str(record)


def test_what_stays_at_zero_is_recorded_once(two_cuts):
    """What cannot be removed is set to zero again at every cut."""
    record, _ = two_cuts
    again = Projection({"depth.1.weight": (0, 7), "head.1.weight": (2,)}, {}, 0.0, 0.0)
    assert record.after(30, again, None) == record
    more = record.after(30, dataclasses.replace(again, channels={"head.1.weight": (2, 3)}), None)
    assert more.cuts[-1].channels == {"head.1.weight": (3,)}
    assert more.count == record.count + 1


def test_a_record_comes_back_as_it_was_written(two_cuts):
    record, _ = two_cuts
    assert ProjectionRecord.from_json(record.to_json(), "it", BundleError) == record
    empty = ProjectionRecord(1e-3, 1e-3, 3, 0)
    assert ProjectionRecord.from_json(empty.to_json(), "it", BundleError) == empty
    assert "no channel" in str(empty)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"patience": 0}, "patience"),
        ({"threshold": "small"}, "threshold"),
        ({"largest_shift": -1e-3}, "largest_shift"),
        ({"largest_shift": 0.0}, "above its bound"),
        ({"more": 1}, "no field"),
        ({"cuts": "none"}, "cuts"),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(two_cuts, change, message):
    record = two_cuts[0]
    document = json.loads(record.to_json()) | change
    if "cuts" not in change:
        document["cuts"] = [cut | {"highest_shift": 5e-4} for cut in document["cuts"]]
    with pytest.raises(BundleError, match=message) as caught:
        ProjectionRecord.from_json(json.dumps(document), "it", BundleError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iteration": 10}, "order"),
        ({"iteration": -1}, "iteration"),
        ({"channels": {"body.1.weight": [0]}}, "a second time"),
        ({"channels": {"body.1.weight": [4, 4]}}, "a second time"),
        ({"channels": {"body.1.weight": []}}, "is empty"),
        ({"channels": {"body.1.weight": [-1]}}, "at least 0"),
        ({"received": float("nan")}, "NaN"),
        ({"received": -1.0}, "received"),
    ],
)
def test_a_cut_that_cannot_have_been_is_refused_in_one_line(two_cuts, change, message):
    document = json.loads(two_cuts[0].to_json())
    document["cuts"][1] |= change
    with pytest.raises(UsageError, match=message):
        ProjectionRecord.from_json(json.dumps(document), "it", UsageError)


@pytest.mark.parametrize("channels", [{"body.1.weight": [5]}, {"nowhere": [0]}, {"body.0.weight": [0]}])
def test_a_record_of_another_network_is_refused(two_cuts, channels):
    record, shrinker = two_cuts
    document = json.loads(record.to_json())
    document["cuts"] = [document["cuts"][0] | {"channels": channels}]
    other = ProjectionRecord.from_json(json.dumps(document), "it", UsageError)
    with pytest.raises(PlanError, match="was set to zero"):
        other.check_against(shrinker.plan)
