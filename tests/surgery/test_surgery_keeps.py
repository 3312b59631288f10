"""What the surgery keeps of a network: modes, types, formats, sharing, hooks, and what else is no channel."""

import pytest
import torch
from callers import in_any_context
from masking import difference, masked, outputs
from torch import nn
from torch.nn import functional
from wiring import EXACT, chain, norm, planes, slim, widths, wired

import slimnet
from slimnet.graph.channel_graph import SILENT


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_the_scale_of_a_carrier_is_as_good_as_zero():
    model = chain(nn.Conv2d(2, 5, 3), norm(5), nn.ReLU(), nn.Conv2d(5, 3, 3, padding=1))
    with torch.no_grad():
        model[1].weight[[1, 2, 3]] = torch.tensor([5e-4, -9e-4, 1.1e-3]).double()
        model[1].bias[[1, 2, 3]] = 0.5
    slimmed = slimnet.slim(model, planes(), tolerance=0.1)
    x = planes()
    assert difference(outputs(masked(model), [x]), outputs(slimmed.model, [x])) < EXACT
    assert widths(slimmed.model) == [4, 3]
    assert slimmed.model[1].weight.abs().min() == SILENT
    assert (slimmed.model[1].weight.abs() < 1e-3).sum() == 1
    assert [(zeroed.tensor, zeroed.channels) for zeroed in slimmed.plan.zeroed] == [("1.weight", (1, 2))]
    assert 0 < slimmed.certificate.max_rel_difference < 0.1
    assert slimmed.certificate.masked_max_rel_difference < EXACT


def test_a_higher_threshold_removes_more():
    model = chain(nn.Conv2d(2, 5, 3), norm(5), nn.ReLU(), nn.Conv2d(5, 3, 3))
    with torch.no_grad():
        model[1].weight[:] = torch.tensor([1.0, 1e-1, 1e-2, 1e-3, 0.0]).double()
    found = [
        widths(slimnet.slim(model, planes(), threshold, tolerance=float("inf")).model)[0]
        for threshold in (0, 1e-3, 2e-3, 0.5, 9.0)
    ]
    assert found == [4, 4, 3, 1, 1]


def test_every_submodule_keeps_its_own_mode():
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1]), nn.Dropout(), nn.Conv2d(5, 3, 3)).train()
    model[1].eval()
    slimmed = slim(model, planes())
    assert [module.training for module in slimmed.model.modules()] == [True, True, False, True, True]
    assert [module.training for module in model.modules()] == [True, True, False, True, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_floating_type_stays(dtype):
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1, 3], 0.7), nn.ReLU(), nn.Conv2d(5, 3, 3, bias=False)).to(dtype)
    slimmed = slimnet.slim(model, planes().to(dtype))
    assert {t.dtype for t in slimmed.model.state_dict().values() if t.is_floating_point()} == {dtype}
    assert slimmed.certificate.dtype == str(dtype).removeprefix("torch.")
    assert widths(slimmed.model) == [3, 3]


def test_the_memory_format_stays():
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1]), nn.Conv2d(5, 3, 3)).to(memory_format=torch.channels_last)
    narrow = slim(model, planes()).model
    assert all(narrow[i].weight.is_contiguous(memory_format=torch.channels_last) for i in (0, 2))
    assert not narrow[2].weight.is_contiguous()


def test_what_is_trained_and_what_is_frozen_stays():
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1], 0.5), nn.Conv2d(5, 3, 3))
    model[0].weight.requires_grad_(False)
    model[1].bias.requires_grad_(False)
    narrow = slim(model, planes()).model
    assert [p.requires_grad for p in narrow.parameters()] == [p.requires_grad for p in model.parameters()]


def test_shared_parameters_stay_shared():
    model = wired(
        lambda m, x: m.out(m.norm(m.left(x)) + m.norm(m.right(x.flip(3)))),
        left=nn.Conv2d(2, 5, 3),
        right=nn.Conv2d(2, 5, 3),
        norm=norm(5, [1, 3], 0.3),
        out=nn.Conv2d(5, 3, 3),
    )
    model.right.weight = model.left.weight
    narrow = slim(model, planes()).model
    assert widths(narrow) == [3, 3, 3]
    assert narrow.left.weight is narrow.right.weight
    assert narrow.left.bias is not narrow.right.bias


def test_one_module_under_two_names_stays_one_module():
    model = wired(
        lambda m, x: m.out(m.stem(x)),
        stem=nn.Sequential(nn.Conv2d(2, 4, 3), norm(4, [1], -0.5)),
        out=nn.Conv2d(4, 3, 3),
    )
    model.alias = model.stem
    narrow = slim(model, planes()).model
    assert narrow.alias is narrow.stem
    assert widths(narrow) == [3, 3]


def test_hooks_of_the_dense_network_run_in_the_slim_one():
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1], 0.5), nn.Conv2d(5, 3, 3))
    model[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    slim(model, planes())


def test_a_hook_that_the_forward_puts_on_one_layer_runs_in_that_layer_alone():
    """As where features are collected: the hook of the stem, given and taken back in each forward, doubles."""

    def forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        handle = model.stem.register_forward_hook(lambda module, inputs, output: 2 * output)
        y = model.out(model.stem(x))
        handle.remove()
        return y

    stem = nn.Sequential(nn.Conv2d(2, 5, 3), norm(5, [1], 0.5), nn.ReLU())
    slimmed = slim(wired(forward, stem=stem, out=nn.Conv2d(5, 3, 3)), planes())
    assert widths(slimmed.model) == [4, 3]


@in_any_context
def test_a_network_is_slimmed_alike_in_any_context_of_the_caller(context):
    """In float32: under autocast the outputs of the two networks would differ by 1e-3."""
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1], 0.5), nn.Conv2d(5, 3, 3))
    x = planes()
    with context():
        found = slimnet.slim(model, x)
    assert found.plan == slim(model, x).plan
    assert found.certificate.max_rel_difference < 1e-5


# Vectors that are no parameters


def test_a_bias_and_a_scale_computed_from_the_input_are_not_taken_for_constants():
    """Oracle: the masked network. A filter of zeros with such a bias varies, and what computes the bias stays."""

    def forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        gate = model.gate(x.mean((2, 3)).mean(0, keepdim=True))[0]
        y = functional.conv2d(x, model.first.weight, gate).relu()
        y = functional.batch_norm(model.second(y), model.norm.running_mean, model.norm.running_var, gate, gate)
        return model.last(model.after(y).relu())

    model = wired(
        forward,
        gate=nn.Linear(2, 6),
        first=nn.Conv2d(2, 6, 3),
        second=nn.Conv2d(6, 6, 1),
        norm=norm(6),
        after=norm(6, [4], 1.0),
        last=nn.Conv2d(6, 3, 1),
    )
    with torch.no_grad():
        model.first.weight[[1, 3]] = 0.0
    slim(model, planes())


def test_a_scale_that_the_forward_overwrites_is_taken_as_it_is_then():
    """Oracle: the dense network. γ of channel 1 is zero until the forward adds to it, that of channel 2 afterwards."""

    def forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        gamma = model.norm.weight.clone()
        gamma.add_(1.0)
        y = functional.batch_norm(
            model.first(x), model.norm.running_mean, model.norm.running_var, gamma, model.norm.bias
        )
        return model.last(y.relu())

    model = wired(forward, first=nn.Conv2d(2, 5, 3), norm=norm(5, [1]), last=nn.Conv2d(5, 3, 1))
    with torch.no_grad():
        model.norm.weight[2] = -1.0
        model.norm.bias[2] = -2.0
    slimmed = slim(model, planes())
    assert torch.equal(slimmed.model.first.weight, model.first.weight[[0, 1, 3, 4]])
