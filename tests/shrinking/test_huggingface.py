"""The callbacks for the Trainer of transformers, in short real trainings: what they log, cut, write and refuse."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from networks import lively
from torch import nn

import slimnet
from slimnet import compat
from slimnet.errors import UsageError

# transformers imports torchvision, which only comes in by this door where its compiled library does not load.
compat.torchvision()
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from slimnet.callbacks.huggingface import PLAN_FILE, Monitoring, Shrinking  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

ARGS = {"widths": [6, 8], "pool_after": [1], "hidden": 8, "in_channels": 1}
IMAGES = torch.zeros(2, 1, 8, 8)
EVERY = 2


class Classifier(nn.Module):
    """A network of which two channels of the first layer are dead, with the loss that the Trainer asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = lively(slimnet.build("basicnet", ARGS))
        norm = next(module for module in self.backbone.modules() if isinstance(module, nn.BatchNorm2d))
        norm.weight.data[:2], norm.bias.data[:2] = 0, 0

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.backbone(pixel_values)
        loss = {} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}
        return loss | {"logits": logits}


def trainer(folder: Path, model: nn.Module, steps: int = 8) -> transformers.Trainer:
    """A Trainer of a few steps with Adam, which saves at their end."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 1, 8, 8, generator=generator)
    data = [{"pixel_values": image, "labels": number % 10} for number, image in enumerate(images)]
    settings = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=4, save_steps=steps, report_to=[],
        use_cpu=True, disable_tqdm=True, logging_steps=1000,
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0)
    return transformers.Trainer(model, settings, train_dataset=data, optimizers=(optimiser, schedule))


def test_a_training_is_monitored_and_shrunk(tmp_path):
    """Oracle: the channels that were made dead; the plan beside the checkpoint makes a network fit its weights."""
    torch.manual_seed(0)
    model, lines, logged = Classifier(), [], []
    run = trainer(tmp_path, model)
    monitoring = Monitoring(IMAGES, EVERY, network="backbone", log=logged.append)
    shrinking = Shrinking(IMAGES, EVERY, network="backbone", report=lines.append)
    run.add_callback(monitoring)
    run.add_callback(shrinking)
    run.train()
    assert len(lines) == 1
    assert lines[0].startswith("step 6: ")
    assert [numbers["slimnet/dead"] for numbers in logged[:2]] == [2, 2]
    assert monitoring.reading == slimnet.Monitor(model.backbone, IMAGES).read()
    plan = slimnet.SurgeryPlan.from_json((tmp_path / "checkpoint-8" / PLAN_FILE).read_text(encoding="utf-8"))
    assert plan == shrinking.shrinker.plan
    narrow = slimnet.apply_plan(slimnet.build("basicnet", ARGS), plan)
    narrow.load_state_dict(model.backbone.state_dict())
    assert next(narrow.parameters()).shape[0] == 4


def test_without_a_logger_numbers_are_in_the_history_of_the_trainer(tmp_path):
    torch.manual_seed(0)
    run = trainer(tmp_path, Classifier(), steps=2)
    run.add_callback(Monitoring(IMAGES, EVERY, network="backbone"))
    run.train()
    (found,) = (entry for entry in run.state.log_history if "slimnet/dead" in entry)
    assert (found["slimnet/dead"], found["step"]) == (2, 2)


@pytest.mark.parametrize(
    ("network", "settings", "message"),
    [
        ("net", {"world_size": 1, "n_gpu": 0}, "Classifier has no module 'net'; name the path of the network"),
        ("backbone", {"world_size": 2, "n_gpu": 0}, "several processes or GPUs train"),
        ("backbone", {"world_size": 1, "n_gpu": 2}, "several processes or GPUs train"),
    ],
)
def test_what_cannot_be_shrunk_is_refused(network, settings, message):
    model = Classifier()
    optimiser = torch.optim.Adam(model.parameters())
    with pytest.raises(UsageError, match=message):
        Shrinking(IMAGES, network=network).on_train_begin(
            SimpleNamespace(**settings), None, None, model=model, optimizer=optimiser
        )


def test_an_interval_is_at_least_one_step():
    for callback in (Monitoring, Shrinking):
        with pytest.raises(UsageError, match="at least 1"):
            callback(IMAGES, 0)
