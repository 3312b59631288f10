"""The layers of a network under ExecuTorch, from its record of each forward. No time is judged."""

import pytest
import torch
from test_executorch import EXAMPLE, Strided
from torch import nn

from slimnet.benchmark import Contender, Settings, compare
from slimnet.benchmark.profile import OTHER
from slimnet.benchmark.runtimes.executorch_layers import BETWEEN, Layer, by_row, keys_of, layers_in_order
from slimnet.export.executorch_model import Event
from slimnet.modules.example_inputs import Inputs

pytest.importorskip("executorch")


class Crossed(nn.Module):
    """Layers that run in another order than they are written, with a branch and kernels of ExecuTorch's own."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 5)
        self.second = nn.Conv2d(6, width, 3, groups=2)
        self.side = nn.Conv2d(6, width, 1)
        self.first, self.norm, self.strided = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), Strided()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.strided(torch.relu(self.norm(self.first(x))))
        return self.linear((self.second(x) + self.side(x)[:, :, 1:-1, 1:-1]).mean((2, 3)))


def test_layers_are_named_in_the_order_in_which_they_run():
    """Oracles: the names and sizes of the modules, by hand."""
    models = {"wide": Crossed().eval(), "narrow": Crossed(4).eval()}
    contenders = [Contender(name, model) for name, model in models.items()]
    found = compare(contenders, EXAMPLE, Settings((1,), 1, 0.02, runtimes=("executorch",), layers=True))
    (profile,) = found.profiles
    macs = {row.name: row.macs for row in profile.layers}
    assert macs == {
        "first": (16 * 16 * 6 * 27, 16 * 16 * 6 * 27),
        "second": (6 * 6 * 8 * 27, 6 * 6 * 4 * 27),
        "side": (8 * 8 * 8 * 6, 8 * 8 * 4 * 6),
        "linear": (8 * 5, 4 * 5),
    }
    assert all(len(samples) > 5 for row in profile.layers for samples in row.samples_ms)
    assert BETWEEN in [row.name for row in profile.others]


def test_the_order_is_that_of_the_forward():
    layers = layers_in_order(Crossed().eval(), Inputs.of(EXAMPLE))
    assert [layer.path for layer in layers] == ["first", "second", "side", "linear"]
    assert [layer.is_product for layer in layers] == [False, False, True, True]


FIRST, LAST = Layer("a", "conv", 10, False), Layer("c", "linear", 30, True)
EVENTS = [
    Event("Transpose (ND, X32) #1", True, 1.0),
    Event("Convolution (NHWC, F32) IGEMM #1", True, 2.0),
    Event("Convolution (NHWC, F32) GEMM #2", True, 3.0),
    Event("DELEGATE_CALL", False, 7.0),
    Event("native_call_mean.out", False, 4.0),
    Event("OPERATOR_CALL", False, 4.5),
    Event("Transpose (ND, X32) #1", True, 0.5),
    Event("Fully Connected (NC, F32) GEMM #1", True, 5.0),
    Event("Method::execute", False, 20.0),
]


def test_events_around_others_are_not_counted_twice():
    """Oracle: sums by hand; what is left of the whole is between operators."""
    keys = keys_of(EVENTS, [FIRST, Layer("b", "conv", 20, False), Layer("c", "conv", 30, True)])
    assert by_row(EVENTS, keys) == {
        ("Transpose", OTHER): 1.5,
        ("a", "conv"): 2.0,
        ("b", "conv"): 3.0,
        ("mean.out", OTHER): 4.0,
        ("c", "conv"): 5.0,
        (BETWEEN, OTHER): 4.5,
    }


@pytest.mark.parametrize(
    "layers",
    [[FIRST, LAST], [FIRST, FIRST, FIRST]],
    ids=["fewer", "others"],
)
def test_where_the_operators_are_not_the_layers_rows_have_their_own_names(layers):
    assert keys_of(EVENTS, layers) is None
    rows = by_row(EVENTS, None)
    assert rows["Convolution (NHWC, F32) GEMM #2", "conv"] == 3.0
    assert ("a", "conv") not in rows
