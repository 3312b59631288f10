"""Whatever the network: behind a selection it is slimmed no less than by itself, and computes the same.

The oracles are the slim network of the drawn one by itself, and the masked network in double precision.
"""

import dataclasses

import pytest
import torch
from blocks import CONV
from hypothesis import given, settings
from masking import THRESHOLD, difference, masked, outputs
from networks import BETAS, RATES, RECIPES, Network, Recipe, build, images
from test_properties import quickly, thoroughly
from torch import nn

import slimnet

EXACT = 1e-9

IN_PARTS = RECIPES.map(lambda recipe: dataclasses.replace(recipe, inputs=1, returns="tensor"))
"""Networks with one input and one output."""


def chosen(choice: nn.Module, images: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """The examples of all inputs for which the first one has a score that is not below the median."""
    scores = choice(images[0]).flatten(1).mean(1)
    return [image[scores >= scores.median()] for image in images]


class Whole(nn.Module):
    """A drawn network that runs on the examples that a layer has chosen."""

    def __init__(self, network: Network, dims: int):
        super().__init__()
        self.choice = CONV[dims](2, 1, 1)
        self.network = network

    def forward(self, *images: torch.Tensor) -> object:
        return self.network(*chosen(self.choice, images))


class InParts(nn.Module):
    """The parts of a drawn network with one input, called one after the other."""

    def __init__(self, network: Network, dims: int):
        super().__init__()
        self.choice = CONV[dims](2, 1, 1)
        self.stems = network.stems
        self.blocks = network.blocks
        self.head = network.head

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        (found,) = chosen(self.choice, (image,))
        found = self.stems[0](found)
        found = self.blocks(found)
        return self.head(found)


def check_exact(recipe: Recipe, rate: float, beta: str, kind: type[nn.Module]) -> slimnet.Slimmed:
    """Slim a drawn network behind a selection, and compare it with the masked one on other numbers of examples."""
    dense = kind(build(recipe, rate, beta).eval(), recipe.dims).double().eval()
    slimmed = slimnet.slim(dense, images(recipe), THRESHOLD, tolerance=float("inf"))
    assert slimmed.plan.stop is not None
    for batch in (1, 2, 5):
        fresh = images(recipe, batch=batch, seed=batch)
        expected = outputs(masked(dense, slimmed.plan), fresh)
        assert difference(expected, outputs(slimmed.model, fresh)) < EXACT
    return slimmed


def check_share(recipe: Recipe, rate: float, beta: str, kind: type[nn.Module]) -> None:
    """No layer is wider than in the slim network by itself, whose training may be followed too, which keeps more."""
    slimmed = check_exact(recipe, rate, beta, kind)
    alone = slimnet.slim(build(recipe, rate, beta).eval(), images(recipe), THRESHOLD, tolerance=float("inf"))
    most = {layer.name: layer.channels_after for layer in alone.plan.layers}
    behind = {layer.name.removeprefix("network."): layer.channels_after for layer in slimmed.plan.layers[1:]}
    assert behind
    assert all(width <= most[name] for name, width in behind.items())


@settings(quickly, max_examples=7)
@given(recipe=RECIPES, rate=RATES, beta=BETAS)
def test_a_network_behind_a_selection_is_slimmed_no_less_than_by_itself(recipe, rate, beta):
    check_share(recipe, rate, beta, Whole)


@settings(quickly, max_examples=7)
@given(recipe=IN_PARTS, rate=RATES, beta=BETAS)
def test_its_parts_are_too_one_after_the_other(recipe, rate, beta):
    check_share(recipe, rate, beta, InParts)


@pytest.mark.sweep
@settings(thoroughly, max_examples=500)
@given(recipe=RECIPES, rate=RATES, beta=BETAS)
def test_every_drawn_network_stays_exact_behind_a_selection(recipe, rate, beta):
    check_exact(recipe, rate, beta, Whole)


@pytest.mark.sweep
@settings(thoroughly, max_examples=500)
@given(recipe=IN_PARTS, rate=RATES, beta=BETAS)
def test_the_parts_of_every_drawn_network_stay_exact_behind_a_selection(recipe, rate, beta):
    check_exact(recipe, rate, beta, InParts)
