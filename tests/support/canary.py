"""Code that a hostile file would like to run: importing or calling it leaves a file behind."""

from pathlib import Path

from torch import nn

Path("executed").touch()


def network(**_: object) -> nn.Module:
    """A small network, so that whoever trusts it gets one."""
    Path("called").touch()
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def classifier() -> nn.Module:
    """A network for the digits."""
    return nn.Sequential(network(), nn.Linear(4, 10))
