"""The network of a command line: an architecture, its arguments, and its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.output import terminal

if TYPE_CHECKING:
    import torch
    from torch import nn

    from slimnet.data import ImageData
    from slimnet.models import Architecture

EXAMPLES = 4
SMALL, LARGE, INCEPTION = (3, 32, 32), (3, 224, 224), (3, 299, 299)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Network:
    """The values of `--arch`, `--arch-args`, `--input-shape`, `--weights` and `--trust`, and the device."""

    arch: str | None
    arch_args: Mapping[str, Any] = field(default_factory=dict)
    input_shape: Shape | None = None
    device: str = "cpu"
    weights: str | None = None
    trust: bool = False

    def load(self, checkpoint: str) -> nn.Module:
        """The network with the weights of a checkpoint, in eval mode, on its device.

        Raises:
            click.UsageError: no architecture was named, and the file is not trusted to hold the network itself.
            CheckpointError, ArchitectureError: as `slimnet.checkpoint.load_checkpoint`.
        """
        if self.arch is None and not self.trust:
            raise click.UsageError(unnamed(checkpoint))
        if self.arch is None and self.arch_args:
            raise click.UsageError("--arch-args are those of an architecture; name it with --arch")
        from slimnet.checkpoint import read_checkpoint

        loaded = read_checkpoint(checkpoint, self.arch, self.arch_args, weights=self.weights, trust=self.trust)
        if loaded.note:
            terminal.note(f"{checkpoint}: {loaded.note}")
        return loaded.model.eval().to(self.device)

    def fresh(self) -> nn.Module | None:
        """The network with random weights; None without `--arch`.

        Raises:
            ArchitectureError: it cannot be built.
        """
        if self.arch is None:
            return None
        from slimnet.models import build

        return build(self.arch, self.arch_args)

    def or_else(self, architecture: Architecture | None) -> Network:
        """This network, or without `--arch` the one of a bundle if that may be built."""
        if self.arch is not None or architecture is None or (architecture.imports_code and not self.trust):
            return self
        architecture = architecture.trusted() if self.trust else architecture
        return replace(self, arch=architecture.name, arch_args=architecture.args)

    def example(self, model: nn.Module, data: ImageData | None = None) -> torch.Tensor:
        """A few inputs on the network's device: the first test images, or noise of the given or the usual shape."""
        if data is not None:
            return next(data.batches("test", EXAMPLES, self.device))[0]
        if self.arch is None and self.input_shape is None:
            name = type(model).__name__
            raise click.UsageError(f"the inputs of {name} are not known; give their shape with --input-shape C,H,W")
        return noise(self.input_shape or assumed_shape(self.arch or "", self.arch_args, model)).to(self.device)


def unnamed(checkpoint: str) -> str:
    """The message about a checkpoint whose network was not named."""
    return f"{checkpoint} is a checkpoint; name its network with --arch, or pass --trust for a pickled module"


def noise(shape: Shape) -> torch.Tensor:
    """A few inputs of normal noise, the same every time."""
    import torch

    return torch.randn(EXAMPLES, *shape, generator=torch.Generator().manual_seed(0))


def assumed_shape(arch: str, arch_args: Mapping[str, Any], model: nn.Module | None = None) -> Shape:
    """The usual input shape of an architecture, announced; of a user's own code nobody knows what is usual.

    Raises:
        click.UsageError: it is user code.
    """
    from slimnet.models.untrusted import imports_code

    if imports_code(arch):
        raise click.UsageError(f"the inputs of {arch} are not known; give their shape with --input-shape C,H,W")
    shape = usual_shape(arch, arch_args, model)
    sizes = " × ".join(map(str, shape))
    terminal.note(f"inputs of {sizes} (C × H × W) are assumed, as is usual for {arch}; --input-shape changes that")
    return shape


def usual_shape(arch: str, arch_args: Mapping[str, Any], model: nn.Module | None = None) -> Shape:
    """The usual input shape `(C, H, W)` of an architecture: CIFAR's for built-in ones, ImageNet's for others."""
    channels = next((arch_args[name] for name in ("in_channels", "in_chans") if name in arch_args), None)
    source, _, name = arch.rpartition(":")
    shape = LARGE if source else SMALL
    if source == "timm" and model is not None:
        # Every timm model has the input size for which it was designed.
        shape = getattr(model, "default_cfg", {}).get("input_size", LARGE)
    elif name == "inception_v3":
        shape = INCEPTION
    return (channels or shape[0], *shape[1:])
