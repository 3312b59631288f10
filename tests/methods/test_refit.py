"""Weights fitted after the removal of live channels, against NumPy's least squares and the dense network's outputs."""

import copy

import numpy as np
import pytest
import torch
from dying import Mixed
from torch import nn
from torch.nn import functional

import slimnet
from slimnet.errors import UsageError
from slimnet.methods import Selection, mask_selected, remove_selected, synthesise_images
from slimnet.methods.batchnorm_measure import statistics
from slimnet.methods.candidates import Channels
from slimnet.methods.refit import calls_and_additions, fitted_layers, refit_weights, unfolded
from slimnet.modules.example_inputs import Inputs


class Block(nn.Module):
    """A residual block between two convolutions, with channels that are correlated, as trained ones are."""

    def __init__(self, pool: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.first = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(12, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = functional.relu(x + self.second(self.first(x)))
        return self.head(x.mean((2, 3)))


def images(count: int = 64, channels: int = 2, size: int = 10, seed: int = 1) -> torch.Tensor:
    """Smooth images, in which neighbouring pixels are alike."""
    noise = torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))
    return functional.avg_pool2d(noise, 3, 1, 1) * 3


@pytest.fixture
def trained() -> Block:
    """A block whose BatchNorms know their statistics."""
    torch.manual_seed(0)
    model = Block().train()
    for norm in (each for each in model.modules() if isinstance(each, nn.BatchNorm2d)):
        norm.momentum = None
        nn.init.normal_(norm.bias, std=0.5)
    with torch.no_grad():
        for seed in range(5):
            model(images(seed=100 + seed))
    return model.eval()


SOME = Selection("by hand", {"first.0": (0, 3, 5, 8), "stem.0": (2,), "second.0": (2,)})


def test_outputs_are_closer_to_the_dense_network(trained):
    """On images that the fit did not see; measured statistics, the next best, are the comparison."""
    shown, other = images(128), images(64, seed=2)
    plain = mask_selected(trained, other, SOME, images=shown.split(32))
    fitted = mask_selected(trained, other, SOME, images=shown.split(32), refit=True)
    with torch.no_grad():
        wanted = trained(other)
        before, after = ((model(other) - wanted).square().mean() for model in (plain, fitted))
    assert after < before / 2


def test_what_is_masked_stays_masked_and_can_be_cut(trained):
    slimmed = remove_selected(trained, images(4), SOME, images=images(64).split(32), refit=True, float64=True)
    assert slimmed.certificate.holds
    assert slimmed.plan.removed_channels >= SOME.count
    assert slimmed.model.first[0].weight.shape == (8, 7, 3, 3)


def test_the_networks_are_not_changed(trained):
    before = copy.deepcopy(trained.state_dict())
    state = torch.get_rng_state()
    channels = Channels.of(trained, images(2))
    quiet = mask_selected(trained, images(2), SOME, recalibrate=False)
    kept = copy.deepcopy(quiet.state_dict())
    refit_weights(trained, quiet, channels, [images(16)])
    assert torch.equal(state, torch.get_rng_state())
    for model, stored in ((trained, before), (quiet, kept)):
        assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("ridge", [1e-3, 0.3])
def test_least_squares(bias, ridge):
    """Oracle: numpy.linalg.lstsq on all positions, the ridge as further rows, a bias as a further column."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 1), nn.Conv2d(6, 4, 3, stride=2, padding=1, bias=bias)).double().eval()
    shown = images(20).double()
    quiet = mask_selected(model, shown, Selection("by hand", {"0": (1, 4)}), recalibrate=False)
    fitted = refit_weights(model, quiet, Channels.of(model, shown), shown.split(5), ridge=ridge)
    with torch.no_grad():
        given, wanted, old = fitted[0](shown), model(shown), quiet[1].weight.flatten(1).numpy()
    rows = functional.unfold(given, 3, padding=1, stride=2).transpose(1, 2).flatten(0, 1).numpy()
    targets = wanted.flatten(2).transpose(1, 2).flatten(0, 1).numpy()
    energy = (rows - rows.mean(0) if bias else rows).astype(float) ** 2
    pull = np.sqrt(ridge * energy.mean(0)[energy.sum(0) > 0].mean() * len(rows))
    left = np.vstack([rows, pull * np.eye(rows.shape[1])])
    right = np.vstack([targets, pull * old.T])
    if bias:
        left = np.hstack([left, np.r_[np.ones(len(rows)), np.zeros(rows.shape[1])][:, None]])
    solution = np.linalg.lstsq(left, right, rcond=None)[0]
    found = fitted[1].weight.detach().flatten(1).numpy()
    assert np.abs(found - solution[: rows.shape[1]].T).max() < 1e-5
    if bias:
        assert np.abs(fitted[1].bias.detach().numpy() - solution[-1]).max() < 1e-5


def test_a_copied_channel_is_made_up_for():
    """Of two equal channels one is enough: its reader's weights add up, and nothing changes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3)).eval()
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = model[0].weight[0], model[0].bias[0]
    shown = images(40)
    chosen = Selection("by hand", {"0": (1,)})
    quiet = mask_selected(model, shown, chosen, recalibrate=False)
    fitted = refit_weights(model, quiet, Channels.of(model, shown), [shown], ridge=1e-6)
    with torch.no_grad():
        wanted, masked, made = (net(images(8, seed=3)) for net in (model, quiet, fitted))
    assert (made - wanted).abs().max() < 1e-3 * (masked - wanted).abs().max()


def test_additions_are_found_and_corrected(trained):
    """The second layer of a block makes up for what is missing in the stream that its output is added to."""
    shown = images(64)
    channels = Channels.of(trained, shown[:2])
    layers = fitted_layers(channels.graph, trained)
    assert [(layer.path, layer.norm) for layer in layers] == [
        ("stem.0", "stem.1"), ("first.0", "first.1"), ("second.0", "second.1"), ("head", ""),
    ]  # fmt: skip
    calls, added = calls_and_additions(trained, layers, Inputs.of(shown))
    assert added == {"second.0"}
    assert calls == {"stem.0": 1, "first.0": 1, "second.0": 1, "head": 1}
    quiet = mask_selected(trained, shown, Selection("by hand", {"first.0": (0, 1)}), recalibrate=False)
    with torch.no_grad():
        quiet.stem[1].bias += 0.1  # what an earlier layer left over, in every channel of the stream
        quiet.stem[0].weight.zero_()
    fitted = refit_weights(trained, quiet, channels, [shown], ridge=1e-6)
    with torch.no_grad():
        wanted, made = ((model.stem(shown) + model.second(model.first(model.stem(shown)))).mean((0, 2, 3))
                        for model in (trained, fitted))  # fmt: skip
    assert torch.allclose(made, wanted, atol=1e-3)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3),
        nn.Conv2d(4, 6, (3, 1), stride=(2, 1), padding=(1, 0), dilation=(2, 1)),
        nn.Conv2d(4, 6, 3, padding="same", groups=2),
        nn.Conv2d(4, 8, 3, padding=1, groups=4, padding_mode="reflect"),
        nn.Conv2d(4, 6, 5, padding=2, padding_mode="circular"),
        nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2),
    ],
)
def test_unfolded_inputs_times_weights_are_the_outputs(layer):
    shape = (3, 4, 9, 8) if isinstance(layer, nn.Conv2d) else (3, 4, 9)
    x = torch.randn(shape)
    with torch.no_grad():
        wanted, patches = layer(x), unfolded(layer, x)
        parts = patches.unflatten(1, (layer.groups, -1))
        weight = layer.weight.flatten(1).unflatten(0, (layer.groups, -1))
        made = torch.einsum("gok,ngkp->ngop", weight, parts).flatten(1, 2) + layer.bias[:, None]
    assert torch.allclose(made, wanted.flatten(2), atol=1e-5)


def test_depthwise_and_grouped_layers():
    """Every kind of layer of a small network is fitted, and the outputs come closer to the dense network's."""
    torch.manual_seed(0)
    check_fit(Mixed(), "body.0", images(64, 2, 8), every=2)


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["torchvision:mobilenet_v2", "torchvision:densenet121", "torchvision:resnext50_32x4d"])
def test_networks_of_others(name):
    """Depthwise and grouped layers, concatenations, BatchNorm before the convolution: nothing breaks or gets worse."""
    torch.manual_seed(0)
    model = slimnet.build(name)
    shown = images(12, 3, 40)
    check_fit(model, list(Channels.of(model.eval(), shown[:1]).layers)[2], shown, every=4)


def check_fit(model: nn.Module, layer: str, shown: torch.Tensor, every: int) -> None:
    """Outputs are closer to the dense network's after a fit, on the images of the fit, than without."""
    for norm in (each for each in model.modules() if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d)):
        norm.momentum = None
    with torch.no_grad():
        model.train()(shown)
    model.eval()
    width = Channels.of(model, shown[:1]).layers[layer].size
    chosen = Selection("by hand", {layer: tuple(range(0, width, every))})
    quiet = mask_selected(model, shown[:1], chosen, recalibrate=False)
    fitted = mask_selected(model, shown[:1], chosen, images=[shown], refit=True)
    with torch.no_grad():
        wanted, before, after = (net(shown) for net in (model, quiet, fitted))
    assert (after - wanted).norm() < (before - wanted).norm()


class Unusual(nn.Module):
    """A layer called by keyword, one whose weight is used without its module, and two that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.named, self.unused = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 4, 1)
        self.one, self.other = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.other.weight = self.one.weight
        self.last = nn.Conv2d(4, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.named(input=x))
        x = functional.relu(functional.conv2d(x, self.unused.weight, self.unused.bias))
        return self.last(input=self.other(self.one(x)))


def test_unusual_layers_are_left_alone():
    torch.manual_seed(0)
    model, shown = Unusual().eval(), images(8)
    quiet = mask_selected(model, shown, Selection("by hand", {"named": (1, 2)}), recalibrate=False)
    fitted = refit_weights(model, quiet, Channels.of(model, shown), [shown])
    same = {
        name: torch.equal(fitted.get_submodule(name).weight, quiet.get_submodule(name).weight)
        for name in ("unused", "one", "other", "last")
    }
    assert same == {"unused": True, "one": True, "other": True, "last": False}


def test_misuse(trained):
    with pytest.raises(UsageError, match="give images="):
        mask_selected(trained, images(2), SOME, refit=True)
    with pytest.raises(UsageError, match="recalibrate=False"):
        remove_selected(trained, images(2), SOME, images=[images(4)], refit=True, recalibrate=False)
    with pytest.raises(UsageError, match="no images"):
        mask_selected(trained, images(2), SOME, images=[], refit=True)


def test_images_made_from_statistics_have_them(trained):
    """Oracle: the means and variances of the BatchNorms' inputs on the images, against the stored ones."""
    made = synthesise_images(trained, images(2), 64, steps=60)
    assert [tuple(batch.shape) for batch in made] == [(32, 2, 10, 10)] * 2
    assert all(
        torch.equal(one, other) for one, other in zip(made, synthesise_images(trained, images(2), 64), strict=True)
    )
    distances = []
    for shown in (torch.cat(made), 4 * images(64)):
        for name, found in statistics(trained, [Inputs.of(shown)]).items():
            norm = trained.get_submodule(name)
            mean, variance = norm.running_mean.numpy(), norm.running_var.numpy()
            ratio = np.sqrt(found.variance / variance) - 1
            distances.append(float(np.mean((found.mean - mean) ** 2 / variance + ratio**2)))
    own, others = distances[:3], distances[3:]
    assert max(own) < 0.1 < max(others)


def test_a_fit_on_made_images_is_better_than_an_estimate(trained):
    other = images(64, seed=2)
    made = synthesise_images(trained, other)
    plain = mask_selected(trained, other, SOME)
    fitted = mask_selected(trained, other, SOME, images=made, refit=True)
    with torch.no_grad():
        wanted = trained(other)
        before, after = ((model(other) - wanted).square().mean() for model in (plain, fitted))
    assert after < before


def test_no_images_can_be_made(trained):
    with pytest.raises(UsageError, match="has none"):
        synthesise_images(nn.Conv2d(2, 3, 3), images(2))
    with pytest.raises(UsageError, match="whose only input are images"):
        synthesise_images(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval(), torch.zeros(2, 3))
