"""BasicNet against the paper's numbers and against the same computation written with functions."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from slimnet.errors import ArchitectureError
from slimnet.models.basicnet import BasicNet


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def widths(model: nn.Module) -> list[int]:
    return [convolution.out_channels for convolution in convolutions(model)]


def test_convolution_weights_are_the_papers():
    """Table 2 prints 4,649,664 convolution weights, and no convolution has a bias."""
    model = BasicNet(num_classes=100)
    assert sum(convolution.weight.numel() for convolution in convolutions(model)) == 4_649_664
    assert all(convolution.bias is None for convolution in convolutions(model))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [64, 128, 128, 256, 256, 512, 512]),
        ({"widths": "64-0.5x"}, [64, 64, 64, 128, 128, 256, 256]),
        ({"widths": "32-0.25x"}, [32, 32, 32, 64, 64, 128, 128]),
        ({"width": 0.25}, [16, 32, 32, 64, 64, 128, 128]),
        ({"widths": [3, 5], "width": 0.1, "pool_after": [2]}, [1, 1]),
        ({"widths": (7, 9, 4), "pool_after": ()}, [7, 9, 4]),
    ],
)
def test_widths_by_factor_by_name_and_by_hand(arguments, expected):
    model = BasicNet(**arguments)
    assert widths(model) == expected
    assert model.classifier.fc1.out_features == 256


def test_every_channel_but_the_scores_has_a_scale():
    model = BasicNet(width=0.25, hidden=40)
    scales = sum(module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm1d))
    planes = sum(module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert (planes, scales) == (sum(widths(model)), 40)


@pytest.mark.parametrize(("pool_after", "plane"), [((1, 3, 5), 4), ((), 32), ((7,), 16), ((1, 2, 3, 4, 5), 1)])
def test_each_pooling_halves_the_plane(pool_after, plane):
    model = BasicNet(width=0.05, pool_after=pool_after).eval()
    assert model.features(torch.zeros(1, 3, 32, 32)).shape[2:] == (plane, plane)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_forward_is_convolution_normalisation_activation_and_pooling(slope):
    """The oracle is the network's definition in functional form, fed from the state dict."""
    torch.manual_seed(0)
    model = BasicNet(5, 2, widths=[6, 4, 3], hidden=7, pool_after=[2], negative_slope=slope).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
    state = model.state_dict()

    def normalised(x: torch.Tensor, name: str) -> torch.Tensor:
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.leaky_relu(functional.batch_norm(x, *parts), slope)

    images = torch.randn(3, 2, 8, 8)
    x = images
    for number, padding in ((1, 2), (2, 1), (3, 1)):
        x = functional.conv2d(x, state[f"features.conv{number}.weight"], padding=padding)
        x = normalised(x, f"features.bn{number}")
        x = functional.max_pool2d(x, 2) if number == 2 else x
    x = normalised(x.mean(dim=(2, 3)) @ state["classifier.fc1.weight"].T, "classifier.bn1")
    expected = x @ state["classifier.fc2.weight"].T + state["classifier.fc2.bias"]
    torch.testing.assert_close(model(images), expected)


def test_dropout_drops_outputs_of_hidden_layers_in_training_alone():
    """Oracle: inverted dropout's definition, and the network without it."""
    torch.manual_seed(0)
    model = BasicNet(width=0.1, hidden=(2000, 5), dropout=0.3)
    assert isinstance(model.classifier[-2], nn.Dropout)
    plain = BasicNet(width=0.1, hidden=(2000, 5))
    plain.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.eval()(images), plain.eval()(images))
    kept = model.classifier.drop1.train()(torch.ones(2000)) > 0
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.05)


def test_initialisation_is_xavier_with_relu_gain():
    """Var(w) = 2 · 2 / (fan in + fan out), γ = 1, β = 0."""
    torch.manual_seed(0)
    model = BasicNet()
    for convolution in convolutions(model)[1:]:
        fans = 9 * (convolution.in_channels + convolution.out_channels)
        assert convolution.weight.var().item() == pytest.approx(4 / fans, rel=0.05)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(norms) == 8
    assert all(bool((norm.weight == 1).all() and (norm.bias == 0).all()) for norm in norms)
    assert not model.classifier.fc2.bias.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be a whole number of at least 1, got 0"),
        ({"in_channels": True}, "in_channels"),
        ({"hidden": -1}, "hidden"),
        ({"width": 0}, "width must be a factor above 0"),
        ({"width": float("nan")}, "width must be a factor above 0"),
        ({"widths": "64-2x"}, "no widths named '64-2x'; use 64-1x"),
        ({"widths": []}, "at least one convolution"),
        ({"widths": [8, 0]}, "widths must be a whole number"),
        ({"widths": 5}, "widths must be a list of whole numbers, got 5"),
        ({"width": "1"}, "width must be a factor above 0, got '1'"),
        ({"width": True}, "width must be a factor above 0, got True"),
        ({"negative_slope": -0.1}, "negative_slope must be at least 0 and below 1, got -0.1"),
        ({"negative_slope": "0.1"}, "negative_slope must be at least 0 and below 1, got '0.1'"),
        ({"negative_slope": float("nan")}, "negative_slope"),
        ({"dropout": 1}, "dropout must be at least 0 and below 1, got 1"),
        ({"pool_after": 3}, "pool_after must be a list of whole numbers, got 3"),
        ({"pool_after": "135"}, "pool_after must be a list of whole numbers, got '135'"),
        ({"pool_after": [8]}, "cannot pool after C8: the last convolution is C7"),
        ({"pool_after": [0]}, "pool_after must be a whole number"),
    ],
)
def test_what_makes_no_network_is_refused(arguments, message):
    with pytest.raises(ArchitectureError, match=message):
        BasicNet(**arguments)
