"""torch-pruning's criteria on slimnet's channel sets: the scores are those that it gives its own groups."""

import functools
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from slimnet.compat import torch_pruning
from slimnet.methods import METHODS, score_channels
from slimnet.models import build

IMAGES = torch.randn(2, 3, 32, 32)
LABELS = torch.tensor([1, 7])
MEAN = {"normalizer": "mean"}
CRITERIA = {
    "group-l1": ("GroupMagnitudeImportance", {"p": 1, **MEAN}),
    "group-l2": ("GroupMagnitudeImportance", {"p": 2, **MEAN}),
    "bnscale": ("BNScaleImportance", MEAN),
    "lamp": ("LAMPImportance", {"p": 2}),
    "group-taylor": ("GroupTaylorImportance", MEAN),
}


@pytest.fixture(scope="module", params=["residual", "flattening", "concatenating"])
def network(request) -> nn.Module:
    """With a residual stream, with a linear layer that reads planes, and with concatenations; all γ differ."""
    torch.manual_seed(0)
    model = NETWORKS[request.param]().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight)
    nn.functional.cross_entropy(model(IMAGES), LABELS, reduction="sum").backward()
    return model


class Concatenating(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.second, self.other = nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.last = nn.Sequential(nn.Conv2d(14, 9, 1), nn.BatchNorm2d(9))
        self.head = nn.Linear(9, 10)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        x = torch.cat([x, self.other(self.second(x)).relu()], 1)
        return self.head(self.last(x).relu().mean((2, 3)))


def flattening() -> nn.Module:
    """A VGG as torchvision has it, in small: each channel of the last convolution is 16 inputs of a linear layer."""
    widths, layers = (3, 8, 10, 6), []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(96, 12), nn.ReLU(), nn.Linear(12, 10))


NETWORKS = {
    "residual": functools.partial(build, "torchvision:resnet18"),
    "flattening": flattening,
    "concatenating": Concatenating,
}


@pytest.mark.parametrize("method", CRITERIA)
def test_the_scores_are_those_of_its_own_groups(network, method):
    """Oracle: its class on the groups of its own DependencyGraph, for every group's root."""
    package = torch_pruning()
    name, options = CRITERIA[method]
    scorer = getattr(package.importance, name)(**options)
    graph = package.DependencyGraph().build_dependency(network, IMAGES)
    paths = {module: path for path, module in network.named_modules()}
    scores = score_channels(method, network, IMAGES, batches=[(IMAGES, LABELS)]).scores
    compared = 0
    for group in graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]):
        root = paths[group[0].dep.target.module]
        if root in scores:
            expected = scorer(group).double().numpy()
            np.testing.assert_allclose(scores[root], expected, rtol=1e-3, atol=1e-5, err_msg=root)
            compared += 1
    assert compared >= 3


def test_every_class_that_ranks_by_weights_or_batchnorms_is_a_method():
    assert {*CRITERIA, "fpgm", "taylor", "random"} < set(METHODS)


def test_channels_of_one_group_have_one_score():
    """All writers of a residual stream give a channel the same."""
    model = build("torchvision:resnet18").eval()
    scores = score_channels("group-l2", model, IMAGES).scores
    np.testing.assert_allclose(scores["conv1"], scores["layer1.1.conv2"], rtol=1e-5)


def test_a_filter_of_zeros_has_the_lowest_score():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()
    model[0].weight.data.zero_()
    model[1].weight.data.zero_()
    model[3].weight.data[:, 1:].zero_()
    for method in ("group-l1", "lamp"):
        scores = score_channels(method, model, IMAGES).scores["0"]
        assert np.isfinite(scores).all()
        assert scores[0] == scores.max() > scores[1:].max()
