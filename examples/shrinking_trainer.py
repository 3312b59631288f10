"""Train with the Trainer of Hugging Face transformers and two callbacks: one logs the dead filters, one removes them.

    pip install '.[huggingface]'
    python examples/shrinking_trainer.py [FOLDER]

A narrow network learns the handwritten digits of scikit-learn in half a minute. The Trainer's own AdamW does not make
filters die, so Adam with L2 is passed to it. The folder of the last checkpoint has the narrow weights, and the plan
that makes the network as narrow again.
"""

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from transformers import Trainer, TrainingArguments

import slimnet
from slimnet.callbacks.huggingface import PLAN_FILE, Monitoring, Shrinking

NETWORK = {"width": 0.25, "hidden": 32, "in_channels": 1, "num_classes": 10}
STEPS, DROP, SHRINK_EVERY = 700, 500, 50


class Classifier(nn.Module):
    """The network, with the loss that the Trainer asks a model for."""

    def __init__(self) -> None:
        super().__init__()
        self.network = slimnet.build("basicnet", NETWORK)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Logits `(N, 10)` of images `(N, 1, 8, 8)`, and with labels the loss."""
        logits = self.network(pixel_values)
        found = {} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}
        return found | {"logits": logits}


def main(folder: Path) -> None:
    """Train, shrink, and read the last checkpoint again."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = load_digits()
    images, labels = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16, torch.tensor(found.target)
    examples = [{"pixel_values": image, "labels": label} for image, label in zip(images[:1400], labels, strict=False)]
    model = Classifier()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2, betas=(0.9, 0.99), eps=1e-5, weight_decay=2e-2)
    settings = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        save_steps=STEPS,
        per_device_train_batch_size=20,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [DROP], gamma=0.1)
    trainer = Trainer(model, settings, train_dataset=examples, optimizers=(optimiser, schedule))
    monitoring = Monitoring(images[:16], SHRINK_EVERY, network="network", log=trainer.log)
    trainer.add_callback(monitoring)
    trainer.add_callback(Shrinking(images[:16], SHRINK_EVERY, network="network", report=print))
    trainer.train()
    print(monitoring.reading)

    network = load(folder / f"checkpoint-{STEPS}").eval()
    with torch.no_grad():
        correct = (network(images[1400:]).argmax(1) == labels[1400:]).float().mean().item()
    print(f"{100 * correct:.1f} % of {len(images[1400:])} test images are classified correctly")


def load(checkpoint: Path) -> nn.Module:
    """The narrow network of a checkpoint: built, narrowed by the plan beside the weights, and filled."""
    network, plan = slimnet.build("basicnet", NETWORK), checkpoint / PLAN_FILE
    if plan.exists():
        network = slimnet.apply_plan(network, slimnet.SurgeryPlan.from_json(plan.read_text(encoding="utf-8")))
    weights = slimnet.checkpoint.read_state_dict(checkpoint / "model.safetensors")
    network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in weights.items()})
    return network


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "digits"))
