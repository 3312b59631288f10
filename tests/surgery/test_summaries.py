"""How results look where Python shows a value, and in a notebook."""

import dataclasses

import pytest
import torch
from networks import lively

import slimnet
from slimnet.benchmark import macs

IMAGES = torch.zeros(2, 1, 8, 8)
ARGS = {"widths": [4, 6], "pool_after": [1], "hidden": 8, "in_channels": 1}


@pytest.fixture(scope="module")
def dense():
    torch.manual_seed(0)
    network = lively(slimnet.build("basicnet", ARGS)).eval()
    next(module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)).weight.data[:2] = 0
    return network


def test_a_result_is_one_line(dense):
    """What was removed, and whether that is certified; never the weights of the network."""
    slimmed, inspection = slimnet.slim(dense, IMAGES), slimnet.inspect(dense, IMAGES)
    plan = slimmed.plan
    removed = f"BasicNet, {plan.removed_channels} of 28 channels removed; parameters {plan.params_before:,} → "
    assert plan.removed_channels >= 1
    assert repr(plan).startswith(f"<SurgeryPlan: {removed}")
    assert repr(inspection).startswith(f"<Inspection: 2 dead channels; {removed}")
    assert repr(slimmed).startswith(f"<Slimmed: {removed}")
    assert repr(slimmed).endswith("; certificate holds>")
    assert repr(slimmed.certificate).startswith("<Certificate: holds, ")
    for each in (plan, inspection, slimmed, slimmed.certificate):
        assert "\n" not in repr(each)
        assert len(repr(each)) < 250


def test_an_inspection_has_totals_and_the_size_of_its_inputs(dense):
    """Oracle: the sums over the layers, and the parameters and MACs of the two networks, counted elsewhere."""
    found, slimmed = slimnet.inspect(dense, IMAGES), slimnet.slim(dense, IMAGES)
    lines = str(found).splitlines()
    assert lines[0] == "inputs of 1 × 8 × 8"
    total = next(line.split() for line in lines if line.startswith("total"))
    assert total[1:] == ["28", "2", f"{slimmed.plan.removed_channels}", f"{macs(dense, IMAGES[:1]):,}"]
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in (dense, slimmed.model)]
    assert (found.plan.params_before, found.plan.params_after) == tuple(sizes)
    assert f"parameters {sizes[0]:,} → {sizes[1]:,}" in str(found)
    assert f"MACs {macs(dense, IMAGES[:1]):,} → {macs(slimmed.model, IMAGES[:1]):,}" in str(found)
    rows = [line for line in lines if line.startswith(("features.", "classifier."))]
    assert [line.split()[0] for line in rows] == [layer.name for layer in found.layers]
    assert len({len(line) for line in rows}) == 1
    assert "total" in found._repr_html_()


def test_a_network_that_was_trained_further_does_not_look_certified(dense):
    slimmed = slimnet.slim(dense, IMAGES)
    next(slimmed.model.parameters()).data.add_(1)
    assert repr(slimmed).endswith("; trained since: not certified against the dense network>")
    assert "trained since" in repr(slimmed.current_certificate)


def test_a_notebook_shows_the_whole_text_and_runs_nothing_in_it(dense):
    slimmed = slimnet.slim(dense, IMAGES)
    assert slimmed._repr_html_().count("\n") == str(slimmed).count("\n")
    hostile = dataclasses.replace(slimmed.plan, network="<script>alert(1)</script>\x1b[0m")
    shown = hostile._repr_html_()
    assert shown.startswith("<pre>surgery plan for &lt;script&gt;alert(1)&lt;/script&gt;\\x1b[0m; dead: |γ| &lt; 0.001")
    assert "<script>" not in shown
    assert "\x1b" not in repr(hostile)
