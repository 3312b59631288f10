"""Sparsity and universality against hand calculations on networks whose every activation is known."""

import itertools
import json

import numpy as np
import pytest
import torch
from runs import images, recipe
from torch import nn
from torch.nn import functional

from slimnet.data import ImageData
from slimnet.errors import DataError, SlimnetError, TraceError, UsageError
from slimnet.models import build
from slimnet.modules.example_inputs import Inputs
from slimnet.planning.dead_channels import dead_by_activation
from slimnet.tracing.trace import trace
from slimnet.training import sparsity_by_gamma, train
from slimnet.training.analysis.features import feature_layers
from slimnet.training.analysis.universality import Analysis, LayerAnalysis, analyse

BYTE = 1 / 255
"""The deviation with which a normalised pixel is its byte."""


def pixels(train: list, test: list | None = None) -> ImageData:
    """Training images `(N, H, W, C)` of bytes that the network sees as they are."""
    both = [torch.tensor(values, dtype=torch.uint8) for values in (train, train if test is None else test)]
    pairs = itertools.chain.from_iterable((x, torch.zeros(len(x), dtype=torch.int64)) for x in both)
    channels = both[0].shape[-1]
    return ImageData("bytes", *pairs, ("only",), (0.0,) * channels, (BYTE,) * channels)


def flat(*values: int) -> list:
    """Grey images of one pixel."""
    return [[[[value]]] for value in values]


def one_pixel(weights: list, bias: list | None = None) -> nn.Conv2d:
    """A 1 × 1 convolution with these weights `(out, in)`."""
    conv = nn.Conv2d(len(weights[0]), len(weights), 1)
    conv.weight.data = torch.tensor(weights, dtype=torch.float32)[:, :, None, None]
    conv.bias.data = torch.tensor(bias or [0.0] * len(weights), dtype=torch.float32)
    return conv


def norm(gammas: list, betas: list | None = None, kind: type = nn.BatchNorm2d) -> nn.Module:
    """γ · x + β exactly."""
    layer = kind(len(gammas), eps=1e-30)
    layer.weight.data = torch.tensor(gammas, dtype=torch.float32)
    layer.bias.data = torch.tensor(betas or [0.0] * len(gammas), dtype=torch.float32)
    return layer


def chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(1))


def measured(data: ImageData, *layers: nn.Module, **options) -> LayerAnalysis:
    """The only layer of features of a chain."""
    model = chain(*layers).eval()
    model(next(data.batches("train"))[0])
    (layer,) = analyse(model, data, **options).layers
    return layer


def test_every_number_of_a_layer_by_hand():
    """Responses of the features to the images 0, 1, 2, 250: x; 0; x / 10,000; x − 0.9 where that is above 0."""
    layer = measured(
        pixels(flat(0, 1, 2, 250)),
        one_pixel([[1], [-1], [1], [1]], [0, 0, 0, -0.9]),
        norm([1, -1e-3, 1e-4, -1]),
        nn.ReLU(),
    )
    # γ = −1 turns the last feature round: 0.9, then nothing.
    assert layer.peaks == pytest.approx((250, 0.25, 0.025, 0.9))
    assert layer.universalities == (0.75, 0.75, 0.75, 0.25)
    assert layer.gammas == pytest.approx((1, 1e-3, 1e-4, 1))
    assert (layer.dead_by_gamma, layer.dead_by_activation) == (1, 0)
    assert layer.universality == pytest.approx(2.5 / 4)


def test_a_feature_that_never_fires_is_dead_by_activation_alone():
    layer = measured(pixels(flat(3, 200)), one_pixel([[-1], [1]]), norm([1, 1]), nn.ReLU())
    assert (layer.dead_by_gamma, layer.dead_by_activation) == (0, 1)
    assert layer.universalities == (0.0, 1.0)
    assert layer.universality == 1.0, "the mean is that of the features that respond"


def test_a_constant_feature_is_dead_by_gamma_and_responds_to_everything():
    layer = measured(pixels(flat(3, 200)), one_pixel([[1]]), one_pixel([[1], [1]]), norm([0, 1], [0.5, 0]), nn.ReLU())
    assert (layer.dead_by_gamma, layer.dead_by_activation) == (1, 0)
    assert layer.universalities == (1.0, 1.0)


@pytest.mark.parametrize(
    ("gamma", "dead"),
    [
        (0.0, True),
        (1e-3, False),
        (-1e-3, False),
        (float(np.nextafter(np.float32(1e-3), np.float32(0))), True),
        (-9e-4, True),
    ],
)
def test_dead_by_gamma_is_below_a_thousandth(gamma, dead):
    layer = measured(pixels(flat(1)), one_pixel([[1], [1]]), norm([gamma, 1]), nn.ReLU())
    assert layer.dead_by_gamma == dead


@pytest.mark.parametrize(("response", "dead"), [(0.0, True), (1e-12, True), (2e-12, False)])
def test_dead_by_activation_is_not_above_1e_12(response, dead):
    layer = measured(pixels(flat(1)), one_pixel([[response], [1]]), nn.ReLU())
    assert layer.dead_by_activation == dead
    assert layer.universalities == (0.0 if dead else 1.0, 1.0)


def test_an_image_counts_above_a_thousandth_of_the_largest_response():
    """Responses 1, 2 and 1,000: a thousandth itself does not exceed it."""
    data = pixels([[[[1, 0]]], [[[2, 0]]], [[[0, 125]]]])
    assert measured(data, one_pixel([[1, 8], [0, 1]]), nn.ReLU()).universalities == (2 / 3, 1 / 3)


def test_a_response_is_the_largest_on_the_plane():
    data = pixels([[[[0], [0]], [[0], [9]]], [[[0], [0]], [[0], [0]]]])
    layer = measured(data, one_pixel([[1], [2]]), nn.ReLU())
    assert (layer.peaks, layer.universalities) == ((9.0, 18.0), (0.5, 0.5))


def test_negative_activations_count_by_their_size():
    """LeakyReLU lets through a tenth of what is negative."""
    layer = measured(pixels(flat(0, 10, 20)), one_pixel([[-1], [1]]), norm([1, 1]), nn.LeakyReLU(0.1))
    assert layer.peaks == pytest.approx((2, 20))
    assert layer.universalities == (2 / 3, 2 / 3)
    assert layer.dead_by_activation == 0


def test_without_batch_norm_there_is_no_sparsity_by_gamma():
    data = pixels(flat(1, 2))
    model = chain(one_pixel([[1], [-1]]), nn.ReLU()).eval()
    model(next(data.batches("train"))[0])
    found = analyse(model, data)
    assert found.sparsity_by_gamma is None
    assert found.sparsity_by_activation == 0.5
    assert found.layers[0].norm is found.layers[0].gammas is found.layers[0].dead_by_gamma is None


class Lined(nn.Module):
    """A 1-d convolution with BatchNorm1d, then a linear layer with BatchNorm1d, both with ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 2, 1, bias=False)
        self.conv.weight.data = torch.tensor([[[1.0]], [[-1.0]]])
        self.norm = norm([1, 1e-4], kind=nn.BatchNorm1d)
        self.hidden = nn.Linear(2, 5)
        self.flat_norm = norm([0] * 5, kind=nn.BatchNorm1d)
        self.out = nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        planes = functional.relu(self.norm(self.conv(x.flatten(2))))
        return self.out(functional.relu(self.flat_norm(self.hidden(planes.mean(2)))))


def test_batch_norm_over_lines_counts_and_over_single_units_does_not():
    (layer,) = analyse(Lined(), pixels(flat(0, 4))).layers
    assert (layer.layer, layer.norm, layer.features) == ("conv", "norm", 2)
    assert (layer.dead_by_gamma, layer.dead_by_activation) == (1, 1)
    assert layer.universalities == (0.5, 0.0)


class Twice(nn.Module):
    """One convolution called on x and on 255 − x, with a ReLU in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.out = one_pixel([[1], [-1]], [-200, 0]), nn.ReLU(inplace=True), nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out((self.relu(self.conv(x)) + self.relu(self.conv(255 - x))).mean((2, 3)))


def test_a_layer_that_runs_twice_responds_where_either_call_does():
    """x − 200 is above 0 for 250 in the first call, for 10 in the second, and for 100 in neither."""
    (layer,) = analyse(Twice(), pixels(flat(250, 10, 100))).layers
    assert layer.peaks == (50.0, 0.0)
    assert layer.universalities == (2 / 3, 0.0)


class Shortcut(nn.Module):
    """relu(norm(conv(x)) + x)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.out = one_pixel([[1], [1]]), norm([1, 0]), nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(functional.relu(self.norm(self.conv(x)) + x).mean((2, 3)))


def test_what_a_shortcut_joins_has_no_activation_of_its_own():
    found = analyse(Shortcut(), pixels(flat(1, 2)))
    assert found.layers[0].dead_by_gamma == 1
    assert found.layers[0].peaks is found.layers[0].universalities is found.layers[0].dead_by_activation is None
    assert found.sparsity_by_activation is None


@pytest.mark.parametrize(
    ("arch", "args", "names"),
    [
        ("basicnet", {"width": 0.1}, ["features.conv1", "features.conv2", "features.conv3"]),
        ("vgg11", {}, ["features.0", "features.4", "features.8"]),
        ("resnet20", {}, ["conv1", "layer1.0.conv1", "layer1.0.conv2"]),
        ("resnet164", {}, ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.bn1"]),
        ("densenet40", {}, ["conv1", "dense1.1.bn1", "dense1.2.bn1"]),
        ("torchvision:mobilenet_v2", {}, ["features.0.0", "features.1.conv.0.0", "features.1.conv.1"]),
        ("torchvision:shufflenet_v2_x0_5", {}, ["conv1.0", "stage2.0.branch1.0"]),
    ],
)
def test_every_channel_of_a_batch_norm_is_one_feature(arch, args, names):
    """Oracle: the modules themselves. The activation is missing only where sums or concatenations come first."""
    model = build(arch, args)
    layers = feature_layers(trace(model, torch.zeros(1, 3, 32, 32)))
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert sorted(layer.gamma for layer in layers) == sorted(f"{name}.weight" for name in norms)
    assert sum(layer.size for layer in layers) == sum(model.get_submodule(name).num_features for name in norms)
    assert [layer.name for layer in layers][: len(names)] == names
    if arch.startswith(("basic", "vgg", "dense", "resnet164")):
        assert all(len(layer.activations) == 1 for layer in layers)


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU, nn.ReLU6, nn.PReLU, nn.SiLU, nn.Hardswish, lambda: nn.Sequential(nn.Dropout2d(), nn.ReLU())],
)
def test_any_activation_is_found(activation):
    layer = measured(pixels(flat(1, 2)), one_pixel([[1], [2]]), norm([1, 1]), nn.MaxPool2d(1), activation())
    assert layer.peaks is not None
    assert layer.layer == "0"


def narrow() -> nn.Module:
    """A BasicNet of which some channels are dead either way."""
    torch.manual_seed(3)
    model = build("basicnet", recipe().arch_args)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 1)
            nn.init.uniform_(module.bias, -3, 1)
            module.weight.data[0] = 1e-5
    return model


def test_batches_and_memory_make_no_difference():
    """Oracle: the same numbers from all the images in one batch."""
    data, model = images(23), narrow()
    whole = analyse(model, data, batch_size=23)
    for options in ({"batch_size": 1}, {"batch_size": 4}, {"batch_size": 4, "memory": 0}, {"memory": 0}):
        other = analyse(model, data, **options)
        for one, two in zip(whole.layers, other.layers, strict=True):
            assert one.universalities == two.universalities
            assert one.peaks == pytest.approx(two.peaks, rel=1e-5)


def test_it_agrees_with_what_the_surgery_calls_dead():
    data, model = images(23), narrow()
    found = analyse(model, data)
    batches = [images_of for images_of, _ in data.batches("train", 5)]
    graph = trace(model, batches[0])
    features = np.concatenate([a.labels for a in graph.activations if a.key[0].startswith("features")])
    dead = dead_by_activation(graph, model, loader(batches)).outputs
    assert sum(layer.dead_by_activation for layer in found.layers) == np.isin(features, dead).sum() > 0
    assert found.sparsity_by_gamma == sparsity_by_gamma(model) == 2 / 10


def loader(batches):
    return map(Inputs.of_batch, batches)


def test_only_training_images_count_and_no_label_does():
    model = chain(one_pixel([[1], [1]], [-100, 0]), nn.ReLU())
    model(torch.zeros(1, 1, 1, 1))
    quiet = pixels(flat(1, 99), test=flat(250))
    assert analyse(model, quiet).sparsity_by_activation == 0.5
    assert analyse(model, quiet).images == 2


def test_nothing_of_the_network_changes():
    data, model = images(), narrow().train()
    model.features.bn1.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    analyse(model, data)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert "forward" not in vars(model.features.conv1)


@pytest.mark.parametrize(("options", "total"), [({}, 12), ({"memory": 0}, 24)])
def test_progress_goes_up_to_all_the_images(options, total):
    reported: list[tuple[int, int]] = []
    analyse(narrow(), images(), batch_size=5, progress=lambda *done: reported.append(done), **options)
    assert reported == sorted(reported)
    assert reported[-1] == (total, total)
    assert {each for _, each in reported} == {total}


def test_a_diverged_network_is_refused_by_the_layer():
    model = narrow()
    model.features.conv2.weight.data[0] = float("nan")
    with pytest.raises(SlimnetError, match=r"features\.conv2 are not finite.*train it anew"):
        analyse(model, images())


class Branching(nn.Module):
    """A forward that looks at the data."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(2, 3, 1), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        planes = self.conv(x).relu()
        return self.out(planes.mean((2, 3)) if planes.sum() > 0 else planes.amax((2, 3)))


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(TraceError):
        analyse(Branching(), images())
    with pytest.raises(DataError, match="does not take the images"):
        analyse(build("basicnet", {"in_channels": 3}), images())
    with pytest.raises(UsageError, match="batch_size is 0"):
        analyse(narrow(), images(), batch_size=0)


def test_a_network_without_convolutions_has_no_features():
    found = analyse(nn.Sequential(nn.Flatten(), nn.Linear(128, 3), nn.ReLU()), images())
    assert found == Analysis("noise", 12, ())
    assert found.sparsity_by_gamma is found.sparsity_by_activation is None


def test_a_trained_network_is_measured_as_the_loop_measures_it():
    """Oracle: the sparsity that the run reports of itself."""
    run = train(recipe(iterations=12, gamma_init=2e-3, lr=2e-4), images(), threads=1)
    *_, last = run
    found = analyse(run.model, images())
    assert found.sparsity_by_gamma == last.sparsity > 0
    assert json.dumps([layer.universalities for layer in found.layers], allow_nan=False)
