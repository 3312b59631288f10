"""keep: layers stay at their widths because the caller asked for it, in exact slimming and to a budget."""

import json

import pytest
import slimnet_cli
import torch
from bundles import ARGS, SHAPE, basic_net
from torch import nn

import slimnet
from slimnet.errors import UsageError
from slimnet.methods import Budget, Selection, remove_selected, score_channels, select_within_budget
from slimnet.models import build


def dead_resnet() -> nn.Module:
    """A ResNet-20 in which every third channel of every BatchNorm is dead."""
    torch.manual_seed(0)
    model = build("resnet20").eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data[::3] = 1e-8
            module.bias.data[::3] = -0.1
    return model


def widths(plan: slimnet.SurgeryPlan) -> dict[str, tuple[int, int]]:
    return {layer.name: (layer.channels_before, layer.channels_after) for layer in plan.layers}


@pytest.mark.parametrize(
    ("keep", "chosen"),
    [
        ("layer1.0.conv1", lambda name: name == "layer1.0.conv1"),
        ("layer2", lambda name: name.startswith("layer2.")),
        ("*.conv1", lambda name: name.endswith(".conv1")),
        (
            ["layer1.0.conv1", "layer3.*.conv1"],
            lambda n: n == "layer1.0.conv1" or (n[:6], n[-6:]) == ("layer3", ".conv1"),
        ),
    ],
)
def test_the_layers_asked_for_keep_their_widths_and_nothing_else_changes(keep, chosen):
    """Oracle: the plan without it, for inner layers; where shortcuts join layers, what is joined stays as well."""
    model, x = dead_resnet(), torch.randn(2, 3, 32, 32)
    slimmed, free = slimnet.slim(model, x, keep=keep), widths(slimnet.slim(model, x).plan)
    assert slimmed.certificate.holds
    found = widths(slimmed.plan)
    asked = {name for name in found if chosen(name)}
    assert all(found[name][0] == found[name][1] for name in asked)
    narrower = {name for name in asked if free[name][0] > free[name][1]}
    assert narrower
    inner = {name for name in found if name.endswith(".conv1")} - asked
    assert {name: found[name] for name in inner} == {name: free[name] for name in inner}
    reasons = {kept.layer: kept.reason for kept in slimmed.plan.kept}
    assert {reasons[name] for name in narrower} == {"kept as requested"}


def test_a_budget_leaves_them_alone():
    """Oracle: the widths; the rest gives up more than it would without."""
    model, x = basic_net(), torch.randn(2, *SHAPE)
    ranking, budget = score_channels("implicit", model, x), Budget("params", 0.6)
    selection = select_within_budget(model, x, ranking, budget, keep="features.conv3")
    slimmed = remove_selected(model, x, selection)
    free = remove_selected(model, x, select_within_budget(model, x, ranking, budget))
    before, after = widths(slimmed.plan)["features.conv3"]
    assert before == after > widths(free.plan)["features.conv3"][1]
    assert slimmed.plan.params_after <= 0.6 * slimmed.plan.params_before
    assert slimmed.certificate.holds


def test_it_is_refused_in_one_line_where_it_names_nothing():
    model, x = basic_net(), torch.randn(2, *SHAPE)
    for call in (slimnet.slim, slimnet.inspect):
        with pytest.raises(
            UsageError, match=r"there is no layer 'features.conv33' to keep; did you mean features.conv3"
        ):
            call(model, x, keep="features.conv33")
    with pytest.raises(UsageError, match=r"keep is \[3\]; it must be names or patterns of layers"):
        slimnet.slim(model, x, keep=[3])
    selection = Selection("mine", {"features.conv1": (0,)}, keep=("features.*",))
    with pytest.raises(UsageError, match=r"channels of features.conv1 are chosen, which is to be kept"):
        remove_selected(model, x, selection)


def test_the_command_line_takes_several(tmp_path, capsys):
    torch.save(basic_net().state_dict(), tmp_path / "net.pt")
    named = [str(tmp_path / "net.pt"), "--arch", "basicnet", "--arch-args", json.dumps(ARGS), "--input-shape", "1,8,8"]
    keep = ["--keep", "features.conv1", "--keep", "features.conv2"]
    for command, more in (("slim", ["--dry-run"]), ("inspect", []), ("slim", ["--dry-run", "--target-macs", "0.8"])):
        assert slimnet_cli.run([command, *named, *keep, *more, "--json"]) == 0
        layers = {each["name"]: each for each in json.loads(capsys.readouterr().out)["layers"]}
        for name in ("features.conv1", "features.conv2"):
            one = layers[name]
            assert one["removable"] == 0 if command == "inspect" else one["channels_after"] == one["channels_before"]
    assert slimnet_cli.run(["inspect", *named, "--keep", "nothing"]) == 2
    assert "there is no layer 'nothing' to keep" in capsys.readouterr().err
