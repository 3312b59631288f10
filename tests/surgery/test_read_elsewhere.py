"""Parameters that the forward reads outside of their layer as well: what they hold must not change."""

import pytest
import torch
from masking import difference
from torch import nn

import slimnet

IMAGES = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.double)


class ReadsAgain(nn.Module):
    """A layer behind dead channels, and an op that reads its bias once more."""

    def __init__(self, reader: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.reader = reader

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.reader(self.features(images)) - self.reader.bias[:, None, None]


def network(reader: nn.Module, beta: float) -> nn.Module:
    """Three of eight channels are dead, with this β."""
    torch.manual_seed(0)
    found = ReadsAgain(reader).double().eval()
    norm = found.features[1]
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.weight[:3], norm.bias[:3] = 0, beta
    return found


READERS = {
    "a convolution of one channel": lambda: nn.Conv2d(8, 1, 1),
    "a convolution of four channels": lambda: nn.Conv2d(8, 4, 3),
    "a padded one": lambda: nn.Conv2d(8, 4, 3, padding=1),
}


@pytest.mark.parametrize(("kind", "removed"), list(zip(READERS, (0, 0, 2), strict=True)))
def test_constants_are_not_stored_in_a_bias_that_something_else_reads(kind, removed):
    """Oracle: the dense network. Under padding a third channel carries the constants of the two that go."""
    model = network(READERS[kind](), beta=0.5)
    slimmed = slimnet.slim(model, IMAGES)
    assert slimmed.plan.removed_channels == removed
    if not removed:
        assert "the bias of reader is read outside of the layer too" in str(slimmed.plan)
    assert difference([model(IMAGES)], [slimmed.model(IMAGES)]) < 1e-12


@pytest.mark.parametrize("kind", READERS)
def test_channels_without_a_constant_go_whatever_reads_the_bias(kind):
    model = network(READERS[kind](), beta=-0.5)
    slimmed = slimnet.slim(model, IMAGES)
    assert slimmed.plan.removed_channels == 3
    assert difference([model(IMAGES)], [slimmed.model(IMAGES)]) < 1e-12


def test_a_mean_over_channels_is_not_rescaled_in_a_weight_that_something_else_reads():
    """A gate from the mean over channels: its weight would be scaled where zero channels go."""

    class Gate(nn.Module):
        def __init__(self, again: bool) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
            self.gate, self.last, self.again = nn.Conv2d(1, 1, 1), nn.Conv2d(8, 2, 1), again

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found = self.features(images)
            gated = found * self.gate(found.mean(1, keepdim=True)).sigmoid()
            return self.last(gated) * (self.gate.weight.sum() if self.again else 1)

    removed = []
    for again in (False, True):
        torch.manual_seed(0)
        model = Gate(again).double().eval()
        with torch.no_grad():
            model.features[1].weight[:3], model.features[1].bias[:3] = 0, -0.5
        slimmed = slimnet.slim(model, IMAGES)
        removed.append(slimmed.plan.removed_channels)
        assert difference([model(IMAGES)], [slimmed.model(IMAGES)]) < 1e-12
    assert removed == [3, 0]


def test_a_weight_that_two_layers_share_is_read_by_layers_alone():
    """Tied layers read each other's weight, and fold into biases of their own as before."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU())
    model.append(nn.Conv2d(8, 8, 1))
    model[5].weight = model[3].weight
    model.double().eval()
    with torch.no_grad():
        model[1].weight[:3], model[1].bias[:3] = 0, -0.5
    slimmed = slimnet.slim(model, IMAGES)
    assert difference([model(IMAGES)], [slimmed.model(IMAGES)]) < 1e-12
