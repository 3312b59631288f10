"""FrozenBatchNorm2d of detection backbones: its scale is a buffer, and counts like γ."""

import pytest
import torch
from torch import nn

import slimnet
from slimnet import compat


class Frozen(nn.Module):
    """As detectron2 writes it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.1), ("running_mean", 0.2), ("running_var", 0.9)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = (self.weight * (self.running_var + 1e-5).rsqrt()).reshape(1, -1, 1, 1)
        return x * scale + (self.bias - self.running_mean * scale.flatten()).reshape(1, -1, 1, 1)


def torchvisions(channels: int) -> nn.Module:
    compat.torchvision()
    from torchvision.ops import FrozenBatchNorm2d

    return FrozenBatchNorm2d(channels)


@pytest.mark.parametrize("norm", [torchvisions, Frozen, nn.BatchNorm2d])
@pytest.mark.parametrize("value", [0.0, 1e-8, -9e-4])
@pytest.mark.parametrize("beta", [0.0, 0.5, -0.5])
def test_its_dead_channels_go_as_those_of_a_batchnorm(norm, value, beta):
    """Oracle: the dense network with these scales at zero."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3, bias=False), norm(16), nn.ReLU(), nn.Conv2d(16, 4, 3)
    network, x = nn.Sequential(*layers).double().eval(), torch.randn(2, 3, 9, 9, dtype=torch.float64)
    network[1].weight.data[:8] = value
    network[1].bias.data[:8] = beta
    slimmed = slimnet.slim(network, x, tolerance=1.0)
    assert slimmed.plan.dead_channels == slimmed.plan.removed_channels == 8
    assert slimmed.plan.kept == ()
    assert all(tensor.shape in ((), (8,)) for tensor in (*slimmed.model[1].buffers(), *slimmed.model[1].parameters()))
    network[1].weight.data[:8] = 0
    torch.testing.assert_close(slimmed.model(x), network(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", [torchvisions, Frozen])
def test_a_backbone_goes_through_a_bundle(norm, tmp_path):
    torch.manual_seed(0)

    network = slimnet.build("torchvision:resnet18", {"norm_layer": norm, "num_classes": 5}).eval()
    for module in network.modules():
        if type(module).__name__.startswith("Frozen"):
            module.weight[::3] = 1e-8
    x = torch.randn(2, 3, 64, 64)
    slimmed = slimnet.slim(network, x)
    assert slimmed.plan.removed_channels > 500
    assert slimmed.certificate.holds


def test_buffers_of_other_modules_are_no_scales():
    """A weight that is small and no scale of a norm stays as it is."""

    class Weighing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
            self.register_buffer("weight", torch.full((8,), 1e-8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.conv(x) * self.weight[:, None, None])

    network = Weighing().eval()
    assert slimnet.slim(network, torch.randn(2, 3, 8, 8)).plan.dead_channels == 0
