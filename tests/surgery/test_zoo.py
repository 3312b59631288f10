"""Every torchvision network with BatchNorm: the slim network equals the dense one with its dead γ set to zero."""

import random
import zlib

import pytest
import torch
from torch import nn
from zoo import (
    BETAS,
    GIANTS,
    SEGMENTATION,
    classifiers,
    images,
    network,
    outputs,
    relative,
    rounding,
    scatter_dead,
)

import slimnet
from slimnet.modules.copying import shared_copy
from slimnet.surgery.network_comparison import masked_scales
from slimnet.surgery.plan import SurgeryPlan

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


def check(name: str, fraction: float, beta: str) -> None:
    """Slim a torchvision network, part of whose channels are dead."""
    assert check_exact(network(name).double(), name, fraction, beta).removed_channels > 0


def check_exact(model: nn.Module, name: str, fraction: float, beta: str) -> SurgeryPlan:
    """1e-9 in double precision and 1e-4 in single, or what rounding costs the dense network itself.

    At 90 % dead, layers whose inputs are all constant have a variance near 0, and BatchNorm multiplies their rounding
    errors by up to 1/√ε ≈ 300: the dense network is then no more precise than the slim one.
    """
    scatter_dead(model, images(name, batch=3, dtype=torch.float64), fraction, beta)
    slimmed = slimnet.slim(model, images(name, batch=2, dtype=torch.float64), tolerance=float("inf"))
    masked = shared_copy(model, masked_scales(model, slimmed.plan)).eval()
    fresh = images(name, batch=1, dtype=torch.float64)
    expected = outputs(masked, fresh)
    error = relative(expected, outputs(slimmed.model, fresh))
    # The second half is only computed for the few networks that need it.
    assert error < 1e-9 or error < 30 * rounding(masked, fresh)
    assert sum(parameter.numel() for parameter in slimmed.model.parameters()) == slimmed.plan.params_after
    single = outputs(masked.float(), fresh.float())
    narrow = slimnet.apply_plan(model.float(), slimmed.plan)
    assert relative(single, outputs(narrow, fresh.float())) < max(1e-4, 4 * relative(expected, single))
    return slimmed.plan


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
        pytest.skip("5 GB in double precision; benchmarks/surgery_speed.py runs it")
    check(name, fraction, beta)
