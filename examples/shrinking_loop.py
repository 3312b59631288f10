"""Train in your own loop with a shrinker: scheduler and EMA copy continue, and the result is saved as a bundle.

    python examples/shrinking_loop.py [FOLDER]

A narrow network learns the handwritten digits of scikit-learn in half a minute. Most of its filters die on the way.
Every fifty steps, filters that were dead at three looks in a row are removed from the network, from its averaged copy
and from Adam's state. Training continues as it would with these filters at zero.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

import slimnet
from slimnet.shrinking import DenseShape

NETWORK = {"width": 0.25, "hidden": 32, "in_channels": 1, "num_classes": 10}
STEPS, DROP, SHRINK_EVERY = 700, 500, 50


def digits() -> tuple[TensorDataset, TensorDataset]:
    """Images `(N, 1, 8, 8)` between 0 and 1 with labels `(N,)`: to train with, and to test with."""
    found = load_digits()
    images, labels = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16, torch.tensor(found.target)
    return TensorDataset(images[:1400], labels[:1400]), TensorDataset(images[1400:], labels[1400:])


def endless(loader: DataLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of a loader, over and over."""
    while True:
        yield from loader


def accuracy(model: nn.Module, data: TensorDataset) -> float:
    """The share of images that are classified correctly, 0..1."""
    images, labels = data.tensors
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def main(folder: Path) -> None:
    """Train, shrink and save."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    train, test = digits()
    model = slimnet.build("basicnet", NETWORK).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2, betas=(0.9, 0.99), eps=1e-5, weight_decay=2e-2)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimiser, [DROP], gamma=0.1)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)
    examples = train.tensors[0][:16]
    # Made once, before the first cut. What is narrowed with the network is named: here the averaged copy.
    shrinker = slimnet.Shrinker(model, optimiser, examples, also=[average.module])

    batches = endless(DataLoader(train, batch_size=20, shuffle=True, drop_last=True))
    for step in range(1, STEPS + 1):
        images, labels = next(batches)
        loss = nn.functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        scheduler.step()
        average.update_parameters(model)
        if step % SHRINK_EVERY == 0 and (cut := shrinker.step()):
            print(f"step {step}: {cut}")
    shrinker.finish()

    print(f"all in all: {shrinker.projected}")
    slimmed = slimnet.slim(dense_network(shrinker, average.module), examples, loader=DataLoader(test, batch_size=100))
    print(slimmed.certificate)
    print(f"{100 * accuracy(slimmed.model, test):.1f} % of {len(test)} test images are classified correctly")
    print(f"saved to {slimnet.save(slimmed, folder)}")


def dense_network(shrinker: slimnet.Shrinker, narrow: nn.Module) -> nn.Module:
    """The network as it was built, with zeros for what was removed: other tools know its shapes, a bundle its name."""
    dense = slimnet.build("basicnet", NETWORK)
    weights = narrow.state_dict() if shrinker.plan is None else DenseShape(shrinker.plan).weights(narrow)
    dense.load_state_dict(weights)
    return dense.eval()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "slim"))
