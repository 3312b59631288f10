"""Networks to measure the surgery on: the torchvision zoo with dead channels where training leaves them.

A network as initialised has no dead channels, and a deep random network's outputs vanish or explode, so that nothing
would be tested. `scatter_dead` therefore draws γ and β, kills a fraction of every BatchNorm's channels independently,
and then lets one forward pass set the BatchNorm statistics.
"""

import copy
from collections.abc import Iterator

import torch
from torch import nn

from slimnet.compat import torchvision
from slimnet.models import build
from slimnet.modules.example_inputs import tensors_in

BETAS = ("zero", "negative", "random")
"""What β is on dead channels; "negative" is what Adam with L2 leaves behind."""

SEGMENTATION = ("fcn_resnet50", "deeplabv3_resnet50", "lraspp_mobilenet_v3_large")
GIANTS = ("regnet_y_128gf",)
"""Networks of more than a gigabyte."""

WITHOUT = ("alexnet", "convnext", "squeezenet", "swin", "vit")
PLAIN_VGG = ("vgg11", "vgg13", "vgg16", "vgg19")

INPUT_SIZES = {"inception_v3": 299, "googlenet": 224, "maxvit_t": 224}


def batch_norms(model: nn.Module) -> Iterator[nn.modules.batchnorm._BatchNorm]:
    """Every BatchNorm with a γ."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.weight is not None:
            yield module


def classifiers() -> list[str]:
    """The torchvision classification networks that have BatchNorm."""
    vision = torchvision()
    names = vision.models.list_models(module=vision.models)
    return [name for name in names if not name.startswith(WITHOUT) and name not in PLAIN_VGG]


def network(name: str, seed: int = 0) -> nn.Module:
    """A torchvision network in evaluation mode, with the random weights that a seed gives."""
    arguments = {"weights_backbone": None} if name in SEGMENTATION else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(f"torchvision:{name}", arguments).eval()


def images(name: str, batch: int = 2, size: int = 64, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Random images `(batch, 3, H, W)` of at least the size the network needs."""
    side = max(size, INPUT_SIZES.get(name.rpartition(":")[2], 0))
    return torch.randn(batch, 3, side, side, dtype=dtype, generator=torch.Generator().manual_seed(batch))


def scatter_dead(model: nn.Module, inputs: torch.Tensor, fraction: float, beta: str, seed: int = 0) -> int:
    """Kill a fraction of each BatchNorm's channels (|γ| < 1e-3) and calibrate the statistics; returns how many died.

    `beta` is what β is on dead channels: "zero", "negative" or "random".
    """
    generator = torch.Generator().manual_seed(seed)
    count = 0
    with torch.no_grad():
        for norm in batch_norms(model):
            dead = torch.rand(norm.weight.shape, generator=generator) < fraction
            gamma = torch.rand(norm.weight.shape, generator=generator) + 0.5
            gamma[dead] = (torch.rand(int(dead.sum()), generator=generator) - 0.5) * 1e-3
            shift = torch.randn(norm.bias.shape, generator=generator) * 0.3
            shift[dead] *= {"zero": 0.0, "negative": -shift[dead].sign(), "random": 1.0}[beta]
            norm.weight.copy_(gamma)
            norm.bias.copy_(shift)
            count += int(dead.sum())
    calibrate(model, inputs)
    return count


def outputs(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Everything a network returns, in one double-precision vector."""
    with torch.no_grad():
        return torch.cat([tensor.double().reshape(-1) for tensor in tensors_in(model(inputs))])


def relative(expected: torch.Tensor, actual: torch.Tensor) -> float | None:
    """The largest difference over the largest value; None where the shapes differ."""
    if expected.shape != actual.shape:
        return None
    return ((expected - actual).abs().max() / expected.abs().max()).item()


def rounding(model: nn.Module, inputs: torch.Tensor) -> float:
    """How far a network's outputs are its own rounding errors: their relative change where nothing should change.

    The largest of two: the same network computed in another memory format, which sums in another order, and with every
    weight moved by less than a unit in its last place. No other network that computes the same can be nearer to it.
    """
    expected = outputs(model, inputs)
    # One copy at a time, of a network that may take gigabytes.
    reordered = outputs(
        copy.deepcopy(model).to(memory_format=torch.channels_last),
        inputs.contiguous(memory_format=torch.channels_last),
    )
    noisy = outputs(unsettled(model), inputs)
    return max(relative(expected, other) or 0.0 for other in (reordered, noisy))


def unsettled(model: nn.Module) -> nn.Module:
    """A copy with every weight moved by less than a unit in its last place."""
    noisy, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in noisy.parameters():
            noise = torch.empty_like(parameter).uniform_(-1, 1, generator=generator)
            parameter.mul_(1 + noise * torch.finfo(parameter.dtype).eps)
    return noisy


def calibrate(model: nn.Module, inputs: torch.Tensor) -> None:
    """Set every BatchNorm's running statistics from one forward pass, with everything else in evaluation mode."""
    model.eval()
    for norm in batch_norms(model):
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        model(inputs)
    model.eval()
