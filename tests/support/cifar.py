"""The real CIFAR-10 test images and published checkpoints, where the machine has them; a visible skip else.

They lie in the folder that the environment variable SLIMNET_SHARED_DATA names, or in `shared/data` beside the
repository.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def shared_file(relative: str) -> Path:
    """A file or folder of the shared data; skips the test where it is absent."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    path = Path(os.environ.get("SLIMNET_SHARED_DATA", beside)) / relative
    if not path.exists():
        pytest.skip(f"{path} is absent; set SLIMNET_SHARED_DATA to the folder that holds {relative}")
    return path


def checkpoint_file(name: str) -> Path:
    """One of akamaster's CIFAR-10 checkpoints: `resnet20` (91.73 %) or `resnet56` (93.39 %)."""
    files = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
    return shared_file(f"checkpoints/{files[name]}")


def load_cifar10_test() -> tuple[torch.Tensor, torch.Tensor]:
    """The 10,000 test images `(N, 3, 32, 32)`, normalised as for ImageNet, and their labels `(N,)`."""
    folder = shared_file("cifar10")
    strips = [Image.open(file).convert("RGB") for file in sorted(folder.glob("test-*.webp"))]
    # A strip is 500 images one below the other: 16,000 rows of 32 pixels.
    pixels = np.concatenate([np.asarray(strip).reshape(-1, 32, 32, 3) for strip in strips])
    labels = np.loadtxt(folder / "test-labels.txt", dtype=np.int64)
    scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return scaled.sub_(mean).div_(std).contiguous(), torch.from_numpy(labels)


@torch.inference_mode()
def predictions(model: nn.Module, images: torch.Tensor, batch_size: int = 100) -> torch.Tensor:
    """The class that the network, in evaluation mode, gives every image: `(N,)`."""
    model.eval()
    return torch.cat([model(batch).argmax(1) for batch in images.split(batch_size)])


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The percentage of images that the network classifies as labelled."""
    return (predictions(model, images) == labels).double().mean().item() * 100
