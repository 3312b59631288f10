"""What the checkpoint tests share: a network with telling weights, and how a refusal must look."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from slimnet.checkpoint import load_checkpoint
from slimnet.errors import CheckpointError
from slimnet.models import build

State = dict[str, torch.Tensor]


def telling_resnet() -> nn.Module:
    """A ResNet-20 whose every tensor has been moved away from where construction leaves it."""
    generator = torch.Generator().manual_seed(0)
    model = build("resnet20").eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.2 + 0.05)
            else:
                tensor.fill_(7)
    return model


def save(folder: Path, content: Any, name: str = "checkpoint.pt", **options: Any) -> Path:
    """Save an object with torch.save and return the path."""
    torch.save(content, folder / name, **options)
    return folder / name


def assert_same_tensors(model: nn.Module, state: State) -> None:
    """Check that a network holds these tensors and no others."""
    loaded = model.state_dict()
    assert loaded.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor.to(loaded[name].dtype)), name


def refusal(path: Path, arch: str = "resnet20", arch_args: dict[str, Any] | None = None) -> str:
    """What `load_checkpoint` says after the path, checked to be one line that begins with the path."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, arch, arch_args)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path} ")
    return message.removeprefix(f"{path} ")
