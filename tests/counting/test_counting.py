"""What a network costs: fvcore's numbers, torch's and the plan's agree, and so do published ones."""

import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from slimnet.census import take_census
from slimnet.compat import torchvision
from slimnet.counting import count_network
from slimnet.counting.network_counts import by_torch
from slimnet.errors import InputError, TraceError
from slimnet.models import build
from slimnet.modules.example_inputs import Inputs
from slimnet.tracing.trace import trace

PRODUCTS = ("attention", "matmul", "einsum", "bmm")


@pytest.mark.parametrize(
    ("arch", "shape"),
    [
        ("resnet20", (3, 32, 32)),
        ("densenet40", (3, 32, 32)),
        ("torchvision:mobilenet_v2", (3, 64, 64)),
        ("torchvision:mobilenet_v3_small", (3, 64, 64)),
        ("torchvision:shufflenet_v2_x0_5", (3, 64, 64)),
        ("torchvision:regnet_y_400mf", (3, 64, 64)),
        ("torchvision:googlenet", (3, 64, 64)),
    ],
)
def test_three_counters_agree(arch, shape):
    """Oracles: torch's counter of operations, and the planner's arithmetic on meta tensors."""
    model, example = build(arch).eval(), torch.randn(2, *shape)
    found = count_network(model, example)
    assert found.counted_by.startswith("fvcore 0.1")
    assert found.macs == by_torch(model, Inputs.of(example[:1]), "").macs == trace(model, Inputs.of(example)).macs
    assert found.macs == sum(macs for _, macs in found.by_layer.values())


@pytest.mark.parametrize("name", ["ResNet18", "MobileNet_V3_Small", "Swin_T"])
def test_published_numbers(name):
    """Oracle: torchvision's own table, in 10⁹ multiply-accumulates with those of attention, to three decimals."""
    weights = getattr(torchvision().models, f"{name}_Weights").DEFAULT
    model = build(f"torchvision:{name.lower()}").eval()
    found = count_network(model, torch.randn(1, 3, 224, 224))
    assert found.counted_by.startswith("fvcore")
    whole = found.macs + sum(found.by_operator.get(each, 0) for each in PRODUCTS)
    assert abs(whole / 1e9 - weights.meta["_ops"]) <= 5.1e-4


class Weighted(nn.Module):
    """A product with a weight, transposed, which is a linear layer, and one of two activations, which is none."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 4))

    def forward(self, x):
        made = x @ self.weight.t()
        return made.transpose(-1, -2) @ made


class Attentive(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


class Self(nn.MultiheadAttention):
    """Self-attention, which torch runs as one fused operator."""

    def forward(self, x):
        return super().forward(x, x, x)[0]


ENCODER = 7 * (3 * 8 * 8 + 8 * 8 + 2 * 8 * 16)
"""Seven vectors of 8 through the projections of an attention and two layers of 16."""


@pytest.mark.parametrize(
    ("model", "shape", "macs", "products", "outputs"),
    [
        (nn.Conv2d(4, 6, 3, padding="same", groups=2), (4, 5, 5), 25 * 6 * 2 * 9, 0, 6 * 25),
        (Weighted(), (2, 3, 4), 6 * 4 * 5, 2 * 5 * 3 * 5, 2 * 3 * 5 + 2 * 5 * 5),
        (Attentive(), (2, 7, 8), 0, 2 * 2 * 7 * 7 * 8, 2 * 7 * 8),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (7, 8), ENCODER, 2 * 7 * 7 * 8, 7 * (8 + 16 + 8)),
        (Self(8, 2, batch_first=True), (7, 8), 7 * 4 * 8 * 8, 2 * 7 * 7 * 8, 7 * 8),
    ],
    ids=["same padding", "weight in a product", "attention", "encoder layer", "multi-head attention"],
)
def test_operators_that_fvcore_lacks_are_counted(model, shape, macs, products, outputs):
    """Oracle: the arithmetic by hand."""
    example = torch.randn(1, *shape)
    found = count_network(model, example)
    assert found.counted_by.startswith("fvcore")
    assert (found.macs, sum(found.by_operator.get(each, 0) for each in PRODUCTS)) == (macs, products)
    assert found.activations == outputs


class Own(torch.autograd.Function):
    @staticmethod
    def forward(_, x):
        return x * 2

    @staticmethod
    def backward(_, gradient):
        return gradient


class Unknown(nn.Linear):
    def forward(self, x):
        return super().forward(Own.apply(x))


class Refusing(nn.Linear):
    def forward(self, x):
        if torch.jit.is_tracing():
            raise RuntimeError("not like\nthis")
        return super().forward(x)


@pytest.mark.parametrize(
    ("model", "example", "reason"),
    [
        (Unknown(4, 3), torch.randn(2, 4), "it does not know prim::PythonOp.Own"),
        (Refusing(4, 3), torch.randn(2, 4), "RuntimeError: not like"),
        (nn.Linear(4, 3), {"input": torch.randn(2, 4)}, "inputs by name"),
    ],
)
def test_where_fvcore_cannot_trace_torch_counts_and_the_reason_is_given(model, example, reason):
    model.train()
    found = count_network(model, example)
    assert (found.macs, found.by_layer, found.activations) == (12, None, None)
    assert found.counted_by == f"torch's counter; fvcore could not trace: {reason}"
    assert model.training
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_a_broken_fvcore_leaves_torch_to_count(monkeypatch):
    monkeypatch.setitem(sys.modules, "fvcore", None)
    monkeypatch.setitem(sys.modules, "fvcore.nn", None)
    found = count_network(nn.Linear(4, 3), torch.randn(2, 4))
    assert (found.macs, found.counted_by.partition("trace: ")[2]) == (12, "fvcore is not installed; pip install fvcore")


def test_a_network_that_does_not_run_is_refused_in_one_line():
    with pytest.raises(TraceError, match=r"^Linear does not run on the example inputs: RuntimeError: [^\n]*$"):
        count_network(nn.Linear(4, 3), torch.randn(2, 5))
    with pytest.raises(InputError, match="hold no example"):
        count_network(nn.Linear(4, 3), torch.randn(0, 4))


class Elsewhere(nn.Linear):
    def forward(self, x):
        if not x.is_meta:
            raise RuntimeError("made for another device")
        return super().forward(x)


def test_a_network_that_is_only_traced_has_the_macs_of_its_plan():
    """`inspect` and `census` show networks that do not run on this machine as well."""
    found = take_census("net", Elsewhere(4, 3), torch.randn(2, 4))
    assert found.macs == (12, 12)
    assert found.counted_macs == 12
    assert found.counted_by.startswith("the planner: Elsewhere does not run on the example inputs: RuntimeError: made")


def test_containers_have_the_macs_of_their_own_code_only():
    """Oracle: by hand; the layer that is used twice counts twice."""

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
            self.weight = nn.Parameter(torch.randn(3, 4))

        def forward(self, x):
            return F.linear(self.inner(self.inner(x)), self.weight)

    assert count_network(Outer(), torch.randn(1, 4)).by_layer == {"": ("linear", 12), "inner.0": ("linear", 32)}
