"""What the surgery tests share: small layers with dead channels, and `slim` with a check that nothing changed."""

from collections.abc import Callable, Sequence

import pytest
import torch
from masking import difference, outputs
from torch import nn

import slimnet
from slimnet.errors import SlimnetError

EXACT = 1e-9


def norm(width: int, dead: Sequence[int] = (), beta: float = 0.0, kind: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
    """A BatchNorm with random statistics; its dead channels have γ = 0 and β near `beta`."""
    module = kind(width)
    with torch.no_grad():
        module.running_mean.normal_()
        module.running_var.uniform_(0.5, 2)
        module.weight.uniform_(0.5, 1.5)
        module.bias.normal_()
        for place, channel in enumerate(dead):
            module.weight[channel] = 0.0
            module.bias[channel] = beta * (1 + 0.1 * place)
    return module


def double(model: nn.Module) -> nn.Module:
    return model.double().eval()


def chain(*modules: nn.Module) -> nn.Sequential:
    return double(nn.Sequential(*modules))


def planes(channels: int = 2, side: int = 6, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, channels, side, side, dtype=torch.float64)


def slim(model: nn.Module, *inputs: torch.Tensor, **settings: object) -> slimnet.Slimmed:
    """Slim a network with γ of exactly zero, and check on fresh inputs that nothing has changed but rounding."""
    fresh = [torch.randn_like(tensor) for tensor in inputs]
    expected = outputs(model, fresh)
    slimmed = slimnet.slim(model, inputs, tolerance=float("inf"), **settings)
    assert difference(expected, outputs(slimmed.model, fresh)) < EXACT
    assert all(torch.equal(left, right) for left, right in zip(expected, outputs(model, fresh), strict=True))
    return slimmed


def refused(kind: type[SlimnetError], code: int, work: Callable[[], object]) -> str:
    """The message of exactly this error, which must be one line with an exit code."""
    with pytest.raises(kind) as caught:
        work()
    message = str(caught.value)
    assert type(caught.value) is kind
    assert caught.value.exit_code == code
    assert message
    assert "\n" not in message
    return message


def widths(model: nn.Module) -> list[int]:
    """The output channels of every convolution and linear layer."""
    found = []
    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            found.append(module.out_channels if isinstance(module, nn.modules.conv._ConvNd) else module.out_features)
    return found


def reasons(slimmed: slimnet.Slimmed) -> str:
    return "\n".join(kept.reason for kept in slimmed.plan.kept)


class Wired(nn.Module):
    """Named layers, and a forward written as a function of them and the input."""

    def __init__(self, forward: Callable[..., object], **layers: nn.Module):
        super().__init__()
        self.way = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: torch.Tensor) -> object:
        return self.way(self, *inputs)


def wired(forward: Callable[..., object], **layers: nn.Module) -> nn.Module:
    return double(Wired(forward, **layers))
