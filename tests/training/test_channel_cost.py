"""What a BatchNorm channel costs: against hand counts, and against what slimming really saves."""

import pytest
import torch
from runs import finished, images, recipe
from torch import nn
from torch.nn import functional

import slimnet
from slimnet.errors import UsageError
from slimnet.models import build
from slimnet.training import train
from slimnet.training.recipe.channel_cost import Cost, channel_costs, relative_costs
from slimnet.training.recipe.optimisers import make_optimiser
from slimnet.training.recipe.regularisers import Regularisers

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def normed(narrow: int, wide: int, kernel: int = 3, **settings: int) -> nn.Sequential:
    """A convolution, its BatchNorm and a ReLU."""
    convolution = nn.Conv2d(narrow, wide, kernel, padding=kernel // 2, bias=False, **settings)
    return nn.Sequential(convolution, nn.BatchNorm2d(wide), nn.ReLU())


def head(width: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))


def chain() -> nn.Sequential:
    return nn.Sequential(normed(3, 4), nn.MaxPool2d(2), normed(4, 6), head(6))


class Residual(nn.Module):
    """One stream of six channels that three BatchNorms write to."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = normed(3, 6), head(6)
        self.bodies = nn.ModuleList(nn.Sequential(normed(6, width), normed(width, 6)) for width in (4, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for body in self.bodies:
            x = x + body(x)
        return self.head(x)


class Dense(nn.Module):
    """Three layers of two channels each, each of which reads all channels before it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(normed(narrow, 2) for narrow in (3, 5, 7))
        self.head = head(9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(x)


class Flat(nn.Module):
    """A linear layer that reads every position of every channel, with a BatchNorm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.hidden = normed(3, 4), nn.Linear(4 * 64, 7)
        self.norm, self.scores = nn.BatchNorm1d(7), nn.Linear(7, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(functional.relu(self.norm(self.hidden(self.features(x).flatten(1)))))


def inverted() -> nn.Sequential:
    """A MobileNet block: two BatchNorms over the same channels, around a depthwise convolution."""
    return nn.Sequential(normed(3, 4), normed(4, 8, 1), normed(8, 8, groups=8), normed(8, 4, 1), head(4))


def grouped() -> nn.Sequential:
    return nn.Sequential(normed(3, 4), normed(4, 6, groups=2), head(6))


def transposed() -> nn.Sequential:
    up = nn.Sequential(nn.ConvTranspose2d(4, 6, 2, stride=2), nn.BatchNorm2d(6), nn.ReLU())
    return nn.Sequential(normed(3, 4), up, head(6))


KILLS = [
    (chain, {"0.1": [1]}),
    (chain, {"2.1": [5]}),
    (Residual, {"bodies.0.0.1": [2]}),
    (Residual, {"stem.1": [3], "bodies.0.1.1": [3], "bodies.1.1.1": [3]}),
    (Dense, {"layers.0.1": [1]}),
    (Dense, {"layers.1.1": [0]}),
    (Flat, {"features.1": [0]}),
    (Flat, {"norm": [6]}),
    (inverted, {"1.1": [7], "2.1": [7]}),
    (grouped, {"0.1": [0, 3]}),
    (grouped, {"1.1": [2, 5]}),
    (transposed, {"0.1": [0]}),
    (transposed, {"1.1": [0]}),
]
"""Networks, and γ by module that together free exactly one channel, or one in each part."""


@pytest.mark.parametrize("unit", ["macs", "params"])
@pytest.mark.parametrize(("make", "doomed"), KILLS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_the_cost_of_a_channel_is_what_its_removal_saves(make, doomed, unit: Cost):
    """Oracle: the surgery. One γ is set to zero, or all that share a channel, and their costs are added up."""
    model = make().eval()
    costs = channel_costs(model, IMAGES, unit)
    expected = sum(float(costs[f"{path}.weight"][channels].sum()) for path, channels in doomed.items())
    with torch.no_grad():
        for path, channels in doomed.items():
            norm = model.get_submodule(path)
            norm.weight[channels] = norm.bias[channels] = 0.0
    plan = slimnet.slim(model, IMAGES).plan
    before, after = (plan.macs_before, plan.macs_after) if unit == "macs" else (plan.params_before, plan.params_after)
    assert before - after == pytest.approx(expected, rel=1e-12)
    assert before - after > 0


def test_costs_by_hand():
    """3×3 filters over 8×8 and 4×4 planes, and a linear layer of five classes."""
    macs = channel_costs(chain(), IMAGES)
    assert macs["0.1.weight"].tolist() == pytest.approx([3 * 9 * 64 + 6 * 9 * 16] * 4)
    assert macs["2.1.weight"].tolist() == pytest.approx([4 * 9 * 16 + 5] * 6)
    params = channel_costs(chain(), IMAGES, "params")
    assert params["0.1.weight"].tolist() == pytest.approx([3 * 9 + 2 + 6 * 9] * 4)
    assert params["2.1.weight"].tolist() == pytest.approx([4 * 9 + 2 + 5] * 6)


def test_a_shared_channel_is_shared_evenly():
    """Three γ hold each channel of the stream: each bears a third of the five layers that it runs through."""
    costs = channel_costs(Residual(), IMAGES)
    plane = 9 * 64
    whole = (3 + 4 + 4 + 5 + 5) * plane + 5
    for name in ("stem.1", "bodies.0.1.1", "bodies.1.1.1"):
        assert costs[f"{name}.weight"].tolist() == pytest.approx([whole / 3] * 6)
    assert costs["bodies.1.0.1.weight"].tolist() == pytest.approx([(6 + 6) * plane] * 5)


def test_a_channel_that_cannot_go_costs_nothing():
    """The last BatchNorm's channels are the network's own output."""
    model = nn.Sequential(normed(3, 4), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5))
    costs = channel_costs(model, IMAGES)
    assert costs["2.weight"].tolist() == [0.0] * 5
    assert costs["0.1.weight"].min() > 0


@pytest.mark.parametrize("unit", ["macs", "params"])
@pytest.mark.parametrize("arch", ["basicnet", "resnet20"])
def test_relative_costs_keep_the_mean(arch, unit: Cost):
    """At 1 over every γ of the network; whatever the batch, and without touching the network."""
    model = build(arch).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.zeros(1, 3, 32, 32)
    costs = relative_costs(model, images, unit)
    norms = [name for name, each in model.named_modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    assert set(costs) == {f"{name}.weight" for name in norms}
    assert float(torch.cat(list(costs.values())).mean()) == pytest.approx(1)
    more = relative_costs(model, images.expand(3, -1, -1, -1), unit)
    assert all(torch.equal(costs[name], more[name]) for name in costs)
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_nothing_to_weigh_is_refused():
    with pytest.raises(UsageError, match="cost_aware has no effect in Sequential"):
        relative_costs(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), IMAGES)
    with pytest.raises(UsageError, match="cost_aware has no effect in Linear"):
        relative_costs(nn.Linear(8, 2), IMAGES)


def test_a_cost_aware_recipe_needs_costs():
    with pytest.raises(UsageError, match="a cost-aware recipe needs costs="):
        Regularisers(recipe(l2=1.0, cost_aware="macs"), chain())


def test_cost_aware_l2_pulls_each_gamma_by_its_share():
    """One step of plain SGD without a loss: γ ← γ·(1 − lr·λ·cost/mean), β and weights at λ."""
    model, chosen = chain(), recipe(optimiser="sgd", momentum=0.0, lr=0.1, l2=0.5, cost_aware="macs")
    early, late = 3 * 9 * 64 + 6 * 9 * 16, 4 * 9 * 16 + 5
    mean = (4 * early + 6 * late) / 10
    weight = model[0][0].weight.detach().clone()
    optimiser = make_optimiser(chosen, model)
    regularisers = Regularisers(chosen, model, relative_costs(model, IMAGES, "macs"))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    regularisers.before_step(optimiser)
    optimiser.step()
    assert model[0][1].weight.tolist() == pytest.approx([1 - 0.05 * early / mean] * 4)
    assert model[2][1].weight.tolist() == pytest.approx([1 - 0.05 * late / mean] * 6)
    torch.testing.assert_close(model[0][0].weight.detach(), 0.95 * weight)


def test_a_run_weighs_its_own_network():
    """After one step of SGD from γ = 1 a cost-aware run differs by lr·λ·(1 − cost/mean) in γ and in nothing else."""
    plain, weighed = (
        train(recipe(optimiser="sgd", lr=0.1, l2=0.5, iterations=1, cost_aware=unit), images())
        for unit in (None, "params")
    )
    first, second = finished(plain), finished(weighed)
    costs = relative_costs(plain.model, torch.zeros(1, 2, 8, 8), "params")
    for name, value in first.items():
        expected = value + 0.05 * (1 - costs[name]).float() if name in costs else value
        torch.testing.assert_close(second[name], expected)
