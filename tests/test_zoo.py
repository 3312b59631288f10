"""Every torchvision network with BatchNorm: the slim network equals the dense one with its dead γ set to zero."""

import random
import zlib

import pytest
import torch
from zoo import BETAS, GIANTS, SEGMENTATION, classifiers, images, network, scatter_dead

import slimnet
from slimnet.certify import masked_scales
from slimnet.inputs import tensors_in
from slimnet.skeleton import shared_copy

FRACTIONS = (0.1, 0.4, 0.9)
SAMPLE = (
    "resnet18",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "densenet121",
    "shufflenet_v2_x1_0",
    "googlenet",
    "regnet_y_400mf",
    "regnet_x_400mf",
    "resnext50_32x4d",
    "efficientnet_b0",
    "mnasnet0_5",
    "lraspp_mobilenet_v3_large",
)
"""What a plain run looks at: one network of every family, with a fraction and a β drawn by its name."""


def drawn(name: str) -> tuple[str, float, str]:
    """A case for one network, the same in every run."""
    chance = random.Random(zlib.crc32(name.encode()))
    return name, chance.choice(FRACTIONS), chance.choice(BETAS)


def difference(name: str, fraction: float, beta: str, dtype: torch.dtype) -> tuple[float, slimnet.Slimmed]:
    """The largest relative difference between the slim and the masked network, on images slim has not seen."""
    model = network(name).to(dtype)
    scatter_dead(model, images(name, batch=4, dtype=dtype), fraction, beta)
    slimmed = slimnet.slim(model, images(name, batch=2, dtype=dtype), tolerance=float("inf"))
    masked = shared_copy(model, masked_scales(model, slimmed.plan))
    fresh = images(name, batch=3, dtype=dtype)
    with torch.no_grad():
        pairs = zip(tensors_in(masked(fresh)), tensors_in(slimmed.model(fresh)), strict=True)
        relative = [((a - b).abs().max() / a.abs().max()).item() for a, b in pairs]
    return max(relative), slimmed


def check(name: str, fraction: float, beta: str) -> None:
    """Exact in double precision; in single precision wherever the dense network itself is that precise."""
    error, slimmed = difference(name, fraction, beta, torch.float64)
    assert error < 1e-9
    assert slimmed.plan.removed_channels > 0
    assert sum(parameter.numel() for parameter in slimmed.model.parameters()) == slimmed.plan.params_after
    error, _ = difference(name, fraction, beta, torch.float32)
    assert error < 1e-4


@pytest.mark.parametrize(("name", "fraction", "beta"), [drawn(name) for name in SAMPLE])
def test_a_network_of_every_family_stays_exact(name: str, fraction: float, beta: str) -> None:
    """Dead channels drawn independently per BatchNorm, β as drawn, weights as initialised."""
    check(name, fraction, beta)


def test_the_zoo_is_complete() -> None:
    """58 classification networks of torchvision have BatchNorm."""
    assert len(classifiers()) == 58


@pytest.mark.sweep
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("name", [*classifiers(), *SEGMENTATION])
def test_every_network_stays_exact(name: str, fraction: float, beta: str) -> None:
    """The whole table: 61 networks, three fractions, three kinds of β."""
    if name in GIANTS:
        pytest.skip("5 GB in double precision; benchmarks/exactness.py runs it in single precision")
    check(name, fraction, beta)
