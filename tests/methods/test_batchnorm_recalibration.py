"""What BatchNorms say of channels, and how they are corrected for removed ones: oracles by hand and by measuring."""

import math
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from masking import difference, outputs
from networks import lively
from test_methods import IMAGES
from torch import nn
from torch.nn import functional as F

from slimnet.errors import UsageError
from slimnet.graph.channel_graph import Reader
from slimnet.methods import Selection, mask_selected, remove_selected
from slimnet.methods.candidates import Channels
from slimnet.methods.moments import moments
from slimnet.models import CifarResNet
from slimnet.modules.example_inputs import Inputs


def normed(width: int, beta: list[float] | float = 0.3, gamma: float = 0.7) -> nn.BatchNorm2d:
    """A BatchNorm with these β and γ, and statistics of its own."""
    norm = nn.BatchNorm2d(width)
    with torch.no_grad():
        norm.bias.copy_(torch.as_tensor(beta))
        norm.weight.fill_(gamma)
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    return norm


def give_statistics(model: nn.Module, norms: Iterable[nn.BatchNorm2d], data: torch.Tensor) -> None:
    """Draw the β and γ of BatchNorms, and let them measure what they hear of some data."""
    for norm in norms:
        norm.momentum = None
        norm.bias.data.uniform_(-0.5, 1)
        norm.weight.data.uniform_(0.5, 1.5)
    with torch.no_grad():
        model.train()(data)


def read(model: nn.Module, inputs: torch.Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """The estimated mean and variance of what every layer but the first reads."""
    graph = Channels.of(model, Inputs.of(inputs)).graph
    found = moments(graph)
    readers = [step for step in graph.layers if isinstance(step, Reader)][1:]
    return [(found.mean[reader.inputs], found.variance[reader.inputs]) for reader in readers]


def rectified(beta: float, gamma: float) -> tuple[float, float]:
    """The mean and variance of ReLU(N(β, γ²)), in closed form."""
    density = math.exp(-((beta / gamma) ** 2) / 2) / math.sqrt(2 * math.pi)
    below = (1 + math.erf(beta / gamma / math.sqrt(2))) / 2
    mean = beta * below + gamma * density
    return mean, (beta**2 + gamma**2) * below + beta * gamma * density - mean**2


def test_behind_a_relu_the_moments_are_those_of_a_rectified_normal():
    betas = [-0.8, -0.2, 0.0, 0.4, 1.5]
    model = nn.Sequential(nn.Conv2d(3, 5, 1), normed(5, betas), nn.ReLU(), nn.Conv2d(5, 2, 1)).eval()
    (mean, variance), *_ = read(model, IMAGES)
    expected = np.array([rectified(beta, 0.7) for beta in betas])
    np.testing.assert_allclose(mean, expected[:, 0], rtol=0.05)
    np.testing.assert_allclose(variance, expected[:, 1], rtol=0.15)


def test_what_is_computed_from_the_same_channel_stays_with_it():
    """x · σ(x) is SiLU however it is written, and the sum of a channel and itself varies four times as much."""

    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.sigmoid(x) + x * torch.sigmoid(x)

    found = []
    for act in (Twice(), nn.SiLU()):
        torch.manual_seed(0)
        found.append(read(nn.Sequential(nn.Conv2d(3, 4, 1), normed(4), act, nn.Conv2d(4, 2, 1)).eval(), IMAGES)[0])
    np.testing.assert_allclose(found[0][0], 2 * found[1][0], rtol=1e-6)
    np.testing.assert_allclose(found[0][1], 4 * found[1][1], rtol=1e-6)


def test_layers_without_a_batchnorm_give_the_sums_of_what_they_read():
    """By hand: a linear layer of independent inputs behind a BatchNorm, then another."""
    torch.manual_seed(0)
    first, second = nn.Linear(3, 4), nn.Linear(4, 5)
    norm = nn.BatchNorm1d(3)
    norm.bias.data.fill_(0.5)
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.data.fill_(2)
    mean, variance = read(nn.Sequential(norm, first, second).eval(), torch.randn(4, 3))[0]
    weight = first.weight.detach().double().numpy()
    np.testing.assert_allclose(mean, 0.5 * weight.sum(1) + first.bias.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(variance, 4 * (weight**2).sum(1), rtol=1e-3)


@pytest.mark.parametrize("head", ["norm", "bias"])
def test_a_channel_that_is_always_the_same_is_not_missed(head):
    """Oracle: the network itself; γ is 0, so the mean is exact, and without padding so is what stands in for it."""
    torch.manual_seed(0)
    behind = [nn.Conv2d(6, 5, 3), normed(5)] if head == "norm" else [nn.Conv2d(6, 5, 3, stride=2)]
    model = nn.Sequential(nn.Conv2d(3, 6, 3), normed(6), nn.ReLU(), *behind).eval()
    model[1].weight.data[[1, 4]] = 0
    selection = Selection("mine", {"0": (1, 4)})
    given = (IMAGES,)
    assert difference(outputs(model, given), outputs(remove_selected(model, IMAGES, selection).model, given)) < 1e-5
    plain = remove_selected(model, IMAGES, selection, recalibrate=False).model
    assert difference(outputs(model, given), outputs(plain, given)) > 1e-2


def test_the_statistics_are_those_that_are_measured_once_the_channels_are_gone():
    """Oracle: the mean and variance of what the masked network's layer really gives, on inputs that are normal."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(64, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 6, 3, padding=1), nn.BatchNorm2d(6)
    )  # fmt: skip
    data = torch.randn(64, 64, 8, 8)
    give_statistics(model, (model[1], model[4]), data)
    with torch.no_grad():
        selection = Selection("mine", {"0": tuple(range(0, 12, 2))})
        quiet = mask_selected(model.eval(), data[:2], selection)
        given = quiet[:4](data)
    std = model[4].running_var.sqrt()
    torch.testing.assert_close(quiet[4].running_mean / std, given.mean((0, 2, 3)) / std, rtol=0, atol=0.05)
    torch.testing.assert_close(quiet[4].running_var, given.var((0, 2, 3)), rtol=0.4, atol=0)
    assert (quiet[4].running_var < 0.9 * model[4].running_var).all()


def test_what_does_not_read_them_stays_to_the_bit_and_so_does_what_is_dead():
    model = lively(CifarResNet(8))
    model.layer1[0].bn2.weight.data[3] = 1e-5
    chosen = Selection("mine", {"layer1.0.conv1": (1, 3)}, threshold=1e-3)
    plain, corrected = (mask_selected(model, IMAGES, chosen, recalibrate=each).state_dict() for each in (False, True))
    changed = {name for name, tensor in corrected.items() if not torch.equal(tensor, plain[name])}
    assert changed == {"layer1.0.bn2.running_mean", "layer1.0.bn2.running_var"}
    kept = corrected["layer1.0.bn2.running_var"] == plain["layer1.0.bn2.running_var"]
    assert torch.nonzero(kept).reshape(-1).tolist() == [3]


def test_a_network_that_loses_nothing_that_lives_is_not_touched():
    model = lively(CifarResNet(8))
    quiet = mask_selected(model, IMAGES, Selection("mine", {}))
    assert all(torch.equal(tensor, quiet.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_padding_is_seen_as_the_layer_itself_sees_it():
    """Oracle: what the layer makes of the channel's mean on the whole plane, by torch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), normed(4), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=2), normed(2)).eval()
    quiet = mask_selected(model, IMAGES, Selection("mine", {"0": (2,)}))
    (mean, _), *_ = read(model, IMAGES)
    planes = torch.zeros(1, 4, *IMAGES.shape[2:])
    planes[:, 2] = float(mean[2])
    lost = F.conv2d(planes, model[3].weight, padding=2).mean((0, 2, 3))
    torch.testing.assert_close(quiet[4].running_mean, model[4].running_mean - lost)


class PreActivated(nn.Module):
    """A residual block whose BatchNorms come before the layers, and one behind the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = (nn.Conv2d(i, 12, 3, padding=1, bias=False) for i in (16, 12, 12))
        self.norms = nn.ModuleList(nn.BatchNorm2d(12) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norms[2](self.stream(x)))

    def stream(self, x: torch.Tensor) -> torch.Tensor:
        """What the last BatchNorm reads."""
        x = self.stem(x)
        return x + self.second(F.relu(self.norms[1](self.first(F.relu(self.norms[0](x))))))


def test_a_loss_reaches_the_batchnorms_behind_a_residual_sum():
    """Oracle: the statistics that are measured on normal inputs once the channels are gone."""
    torch.manual_seed(0)
    model, data = PreActivated(), torch.randn(64, 16, 8, 8)
    give_statistics(model, model.norms, data)
    with torch.no_grad():
        selection = Selection("mine", {"first": tuple(range(0, 12, 2))})
        quiet = mask_selected(model.eval(), data[:2], selection)
        given = quiet.stream(data)
    last, corrected = model.norms[2], quiet.norms[2]
    std = last.running_var.sqrt()
    torch.testing.assert_close(corrected.running_mean / std, given.mean((0, 2, 3)) / std, rtol=0, atol=0.1)
    torch.testing.assert_close(corrected.running_var, given.var((0, 2, 3)), rtol=0.4, atol=0)
    assert ((last.running_mean - corrected.running_mean).abs() / std).max() > 0.2
    assert torch.equal(quiet.norms[0].running_mean, model.norms[0].running_mean)


def test_a_bias_makes_up_for_a_loss_before_it_reaches_a_sum():
    """Both ways come to the same: a bias behind the last layer, or the BatchNorm behind the sum."""
    torch.manual_seed(0)
    with_bias, without = PreActivated().eval(), PreActivated().eval()
    with_bias.second = nn.Conv2d(12, 12, 3, padding=1)
    with torch.no_grad():
        with_bias.second.bias.zero_()
    without.load_state_dict({name: t for name, t in with_bias.state_dict().items() if name != "second.bias"})
    given, selection = torch.randn(2, 16, 8, 8), Selection("mine", {"first": (1, 4, 5)})
    quiet = [mask_selected(model, given, selection) for model in (with_bias, without)]
    torch.testing.assert_close(quiet[0].norms[2].running_mean, with_bias.norms[2].running_mean, rtol=0, atol=1e-12)
    for each in quiet:
        each.norms[2].running_var.copy_(with_bias.norms[2].running_var)
    with torch.no_grad():
        torch.testing.assert_close(quiet[0](given), quiet[1](given), rtol=1e-5, atol=1e-5)
    assert quiet[0].second.bias.abs().max() > 1e-3


def pairs(data: torch.Tensor, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of images with labels that mean nothing."""
    return [(part, torch.zeros(len(part), dtype=torch.int64)) for part in data.split(size)]


@pytest.mark.parametrize("labelled", [True, False])
def test_images_say_what_is_left_to_the_last_digit_on_themselves(labelled):
    """Oracle: one more batch through the masked network in training mode, whose statistics the dense one has too."""
    torch.manual_seed(0)
    model, data = PreActivated().double(), torch.randn(96, 16, 8, 8, dtype=torch.float64)
    for norm in model.norms:
        norm.momentum = None
    with torch.no_grad():
        model.train()(data)
    selection = Selection("mine", {"first": (0, 3, 7)})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shown = pairs(data, 96) if labelled else data.split(96)
    quiet = mask_selected(model.eval(), data[:2], selection, images=shown)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    again = mask_selected(model, data[:2], selection, recalibrate=False)
    for norm in again.norms:
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        again.train()(data)
    for corrected, oracle in zip(quiet.norms, again.norms, strict=True):
        torch.testing.assert_close(corrected.running_mean, oracle.running_mean, rtol=1e-9, atol=1e-12)
        heard = oracle.running_var > 0
        torch.testing.assert_close(corrected.running_var[heard], oracle.running_var[heard], rtol=1e-9, atol=1e-12)


def test_few_images_do_since_they_stand_on_both_sides():
    """Oracle: nothing that is heard is gone, so that no output may move, however unlike the rest these images are."""
    model = lively(CifarResNet(8))
    model.layer1[0].bn1.weight.data[2] = 0
    model.layer1[0].bn1.bias.data[2] = 0
    quiet = mask_selected(model, IMAGES, Selection("mine", {"layer1.0.conv1": (2,)}), images=[IMAGES[:2] * 5 + 3])
    assert difference(outputs(model, (IMAGES,)), outputs(quiet, (IMAGES,))) < 1e-5


@pytest.mark.parametrize(
    ("images", "message"),
    [([], "no images to measure BatchNorms on"), ([torch.randn(1, 3)], "give several images at a time")],
)
def test_images_that_say_nothing_are_refused(images, message):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 5), nn.BatchNorm1d(5)).eval()
    with pytest.raises(UsageError, match=message):
        mask_selected(model, torch.randn(2, 3), Selection("mine", {"0": (1,)}), images=images)
