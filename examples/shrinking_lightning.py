"""Train with PyTorch Lightning and two callbacks: one logs the dead filters, one removes them.

    pip install '.[lightning]'
    python examples/shrinking_lightning.py [FILE.pt]

A narrow network learns the handwritten digits of scikit-learn in half a minute. Every fifty steps dead filters
are logged, and removed from the network, its averaged copy and the optimiser's state.
"""

import sys
from pathlib import Path

import pytorch_lightning as lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

import slimnet
from slimnet.callbacks.lightning import Monitoring, Shrinking

NETWORK = {"width": 0.25, "hidden": 32, "in_channels": 1, "num_classes": 10}
STEPS, DROP, SHRINK_EVERY = 700, 500, 50


class Digits(lightning.LightningModule):
    """The network, with an average of its weights over the last hundred steps or so."""

    def __init__(self) -> None:
        super().__init__()
        self.model = slimnet.build("basicnet", NETWORK)
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(0.99), use_buffers=True)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        """The loss of a batch."""
        images, labels = batch
        return nn.functional.cross_entropy(self.model(images), labels)

    def on_train_batch_end(self, *_: object) -> None:
        """Follow the weights."""
        self.average.update_parameters(self.model)

    def configure_optimizers(self) -> dict[str, object]:
        """Adam with L2 over the network alone, and its schedule."""
        optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-2, betas=(0.9, 0.99), eps=1e-5, weight_decay=2e-2)
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimiser, [DROP], gamma=0.1)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def main(path: Path) -> None:
    """Train, shrink and save."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = load_digits()
    images, labels = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16, torch.tensor(found.target)
    loader = DataLoader(TensorDataset(images[:1400], labels[:1400]), batch_size=20, shuffle=True, drop_last=True)
    module, examples = Digits(), images[:16]
    monitoring = Monitoring(examples, SHRINK_EVERY, network="model")
    shrinking = Shrinking(examples, SHRINK_EVERY, network="model", also=["average.module"], report=print)
    trainer = lightning.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        callbacks=[monitoring, shrinking],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader)
    print(monitoring.reading)
    save(shrinking.shrinker, module.average.module, path)

    model = load(path).eval()
    with torch.no_grad():
        correct = (model(images[1400:]).argmax(1) == labels[1400:]).float().mean().item()
    print(f"{100 * correct:.1f} % of {len(images[1400:])} test images are classified correctly; saved to {path}")


def save(shrinker: slimnet.Shrinker, model: nn.Module, path: Path) -> None:
    """Write the narrow network's weights, and the plan that makes the network as narrow again."""
    torch.save({"plan": shrinker.plan and shrinker.plan.to_json(), "state_dict": model.state_dict()}, path)


def load(path: Path) -> nn.Module:
    """The narrow network that `save` wrote."""
    saved, model = torch.load(path, weights_only=True), slimnet.build("basicnet", NETWORK)
    if saved["plan"]:
        model = slimnet.apply_plan(model, slimnet.SurgeryPlan.from_json(saved["plan"]))
    model.load_state_dict(saved["state_dict"])
    return model


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "digits.pt"))
