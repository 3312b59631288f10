"""What is printed as a result is fvcore's: one trace, its own numbers, and the planner's where those are printed."""

import json
import sys

import pytest
import slimnet_cli
import torch
from bundles import ARGS, SHAPE, basic_net, lived_in

import slimnet
from slimnet.compat import fvcore
from slimnet.counting import count_network
from slimnet.models import build

NETWORKS = [
    ("resnet20", (3, 32, 32)),
    ("vgg16", (3, 32, 32)),
    ("torchvision:mobilenet_v3_small", (3, 64, 64)),
    ("torchvision:shufflenet_v2_x0_5", (3, 64, 64)),
]


@pytest.mark.parametrize(("arch", "shape"), NETWORKS)
def test_activations_and_parameters_are_those_of_fvcores_own_analyses(arch, shape):
    """Oracle: fvcore's analyses, used one by one."""
    model, example = build(arch).eval(), torch.randn(1, *shape)
    found, theirs = count_network(model, example), fvcore()
    outputs = theirs.ActivationCountAnalysis(model, example).unsupported_ops_warnings(False)
    assert found.activations == outputs.uncalled_modules_warnings(False).total()
    assert found.parameters == theirs.parameter_count(model)
    assert found.parameters[""] == sum(parameter.numel() for parameter in model.parameters())
    assert "outputs" not in found.by_operator


def test_a_network_is_traced_once(monkeypatch):
    """Counted: the traces that fvcore asks for."""
    fvcore()
    analysis = sys.modules["fvcore.nn.jit_analysis"]
    calls, trace = [], analysis._get_scoped_trace_graph
    monkeypatch.setattr(analysis, "_get_scoped_trace_graph", lambda *given: calls.append(1) or trace(*given))
    found = count_network(basic_net(), torch.randn(2, *SHAPE))
    assert found.counted_by.startswith("fvcore")
    assert calls == [1]


@pytest.mark.parametrize(("arch", "shape"), NETWORKS)
def test_the_planners_numbers_in_loops_are_fvcores(arch, shape):
    """Progress and budgets take the planner's, which cost nothing; before and after, they are those of the networks."""
    torch.manual_seed(0)
    model, example = lived_in(build(arch)).eval(), torch.randn(2, *shape)
    slimmed = slimnet.slim(model, example)
    plan = slimmed.plan
    counts = [count_network(each, example) for each in (model, slimmed.model)]
    assert [each.macs for each in counts] == [plan.macs_before, plan.macs_after]
    assert [each.parameters[""] for each in counts] == [plan.params_before, plan.params_after]
    assert plan.macs_after < plan.macs_before


def test_the_commands_print_what_fvcore_counts(tmp_path, capsys):
    dense = basic_net()
    torch.save(dense.state_dict(), tmp_path / "net.pt")
    given = [str(tmp_path / "net.pt"), "--arch", "basicnet", "--arch-args", json.dumps(ARGS)]
    given += ["--input-shape", ",".join(map(str, SHAPE))]
    before = count_network(dense, torch.zeros(1, *SHAPE))
    assert slimnet_cli.run(["inspect", *given]) == 0
    said = capsys.readouterr().out
    assert "parameters" in said
    assert f"{before.parameters['']:,}" in said
    assert f"{before.parameters['features.conv1']:,}" in said
    asked = ["slim", *given, "--round", "none", "-o", str(tmp_path / "slim")]
    assert slimnet_cli.run(asked) == 0
    said = capsys.readouterr().out
    assert "MACs counted by fvcore 0.1" in said
    assert f"{before.activations:,}" in said
    assert slimnet_cli.run([*asked, "--force", "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)["counted"]
    after = count_network(slimnet.load(tmp_path / "slim"), torch.zeros(1, *SHAPE))
    assert [counted[when]["macs"] for when in ("before", "after")] == [before.macs, after.macs]
    assert counted["after"]["activations"] == after.activations < before.activations
