"""A plain network's plan is foreseen by arithmetic; the oracle is the plan of the traced narrow network."""

import pytest
import torch
from torch import nn
from wiring import norm, planes
from zoo import BETAS, images, network, scatter_dead

import slimnet
from slimnet.planning.dead_channels import dead_by_scale
from slimnet.planning.make_plan import make_plan
from slimnet.planning.slim_cost import is_plain
from slimnet.tracing.trace import trace


def plans(model: nn.Module, inputs: torch.Tensor) -> tuple[slimnet.SurgeryPlan, slimnet.SurgeryPlan]:
    """The plan that was tried on a skeleton, and the one that was not."""
    graph = trace(model, inputs)
    dead = dead_by_scale(graph)
    return make_plan(model, inputs, graph, dead), make_plan(model, inputs, graph, dead, retrace=False)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "densenet121", "googlenet", "mnasnet0_5"])
def test_what_is_foreseen_is_what_a_trace_of_the_narrow_network_finds(name: str, beta: str) -> None:
    """Cuts, folds, carriers, parameters and MACs; GoogLeNet has layers that only training runs."""
    model = network(name)
    scatter_dead(model, images(name, 2), 0.5, beta)
    assert is_plain(trace(model, images(name, 1)))
    tried, foreseen = plans(model, images(name, 1))
    assert foreseen == tried
    assert foreseen.removed_channels > 0


class Shared(nn.Module):
    """One convolution called twice, and two that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3)
        self.norms = nn.ModuleList(norm(6, dead, -1.0) for dead in ([1, 2], [1, 2], [2, 4], [2]))
        self.again, self.twin = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1, bias=False)
        self.twin.weight = self.again.weight
        self.last = nn.Conv2d(6, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norms[0](self.first(x)).relu()
        x = self.norms[1](self.again(x)).relu()
        x = self.norms[2](self.again(x)).relu()
        return self.last(self.norms[3](self.twin(x)).relu())


def test_shared_weights_are_counted_once() -> None:
    torch.manual_seed(0)
    tried, foreseen = plans(Shared().double().eval(), planes())
    assert foreseen == tried
    assert foreseen.params_after < foreseen.params_before


class Strict(nn.Module):
    """Plain ops, but the forward insists on the width it was written for: six channels."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, width, 3), norm(width, [0, 3], -1.0)
        self.middle, self.norm2 = nn.Conv2d(width, width, 1), norm(width, [2], -1.0)
        self.last = nn.Conv2d(width, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(x)).relu()
        if x.shape[1] != 6:
            raise ValueError("expected 6 channels")
        return self.last(self.norm2(self.middle(x)).relu())


def test_where_the_narrow_forward_raises_slim_plans_again_with_more_care() -> None:
    """The channels that the code insists on stay, and nothing raises."""
    torch.manual_seed(0)
    model = Strict().double().eval()
    assert is_plain(trace(model, planes()))
    slimmed = slimnet.slim(model, planes(), tolerance=1e-12)
    assert slimmed.model.first.out_channels == 6
    assert slimmed.certificate.holds


@pytest.mark.parametrize("name", ["regnet_y_400mf", "shufflenet_v2_x1_0", "resnext50_32x4d"])
def test_networks_with_groups_or_split_axes_are_not_plain(name: str) -> None:
    assert not is_plain(trace(network(name), images(name, 1)))
