"""Callbacks for Hugging Face's Trainer: `Monitoring` logs dead channels, `Shrinking` removes them during training.

The Trainer's own optimiser is AdamW, whose decoupled weight decay does not make filters die: give it another one,
`Trainer(..., optimizers=(torch.optim.Adam(model.parameters(), weight_decay=1e-4), None))`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from slimnet.callbacks.target import ShrinkingCallback, checked_interval, part_of
from slimnet.errors import SlimnetError, UsageError
from slimnet.modules.example_inputs import ExampleInputs
from slimnet.monitor import Monitor, Reading
from slimnet.storage.files import whole_file
from slimnet.torch_state.devices import device_of

PLAN_FILE = "slimnet_plan.json"
"""The file in a checkpoint's folder with the plan of all cuts so far."""

Log = Callable[[dict[str, float]], object]


class Monitoring(TrainerCallback):  # type: ignore[misc]
    """Reads the dead channels of a network every `every` steps, and logs `slimnet/dead` and so on.

    `log` is called with the numbers (`Reading.scalars`), such as `trainer.log`, which sends them wherever the trainer
    reports to: `trainer.add_callback(Monitoring(images, log=trainer.log))`. Without it they are added to
    `trainer.state.log_history`. `network` is the path of the network in the trained model, such as "backbone"; "" is
    the model itself. `layers` logs a number for each layer as well.

    Attributes:
        reading: the last one; None before the first.

    Raises:
        UsageError: `every` is below 1, or there is no module at this path (when it is first read).
    """

    def __init__(
        self,
        example_inputs: ExampleInputs,
        every: int = 500,
        *,
        log: Log | None = None,
        network: str = "",
        threshold: float = 1e-3,
        layers: bool = False,
    ) -> None:
        self._inputs, self._every, self._log = example_inputs, checked_interval(every), log
        self._network, self._threshold, self._layers = network, threshold, layers
        self.reading: Reading | None = None

    def on_step_end(  # type: ignore[override]
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **_: Any
    ) -> None:
        """Read the network, if it is time."""
        if state.global_step % self._every:
            return
        network = part_of(model, self._network)
        self.reading = Monitor(network, placed(self._inputs, network), self._threshold).read()
        numbers = self.reading.scalars(layers=self._layers)
        if self._log is not None:
            self._log(dict(numbers))
        else:
            state.log_history.append({**numbers, "step": state.global_step})


class Shrinking(ShrinkingCallback, TrainerCallback):  # type: ignore[misc]
    """Removes dead channels every `every` steps with a `slimnet.Shrinker`, and at the end what rounded widths kept.

    `network` is the path of the network in the trained model, such as "backbone", and `also` the paths of copies that
    are narrowed with it; "" is the model itself. `options` are those of the shrinker. `report` is called with a line
    for each cut.

    A checkpoint of the Trainer then has narrow weights. The plan that makes the network so narrow again is beside
    them, in `slimnet_plan.json`: `slimnet.apply_plan(model, slimnet.SurgeryPlan.from_json(text))`.

    Attributes:
        shrinker: made when training starts, since only then is there an optimiser.

    Raises:
        UsageError: `every` is below 1, several processes or GPUs train, or there is no module at a path (when training
            starts).
    """

    def on_train_begin(  # type: ignore[override]
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        optimizer: Any,
        **_: Any,
    ) -> None:
        """Make the shrinker."""
        if args.world_size > 1 or args.n_gpu > 1:
            raise UsageError(
                "several processes or GPUs train, behind a wrapper that cannot be narrowed; train in one, or with "
                "slimnet train, which shrinks in several"
            )
        # accelerate wraps the optimiser.
        own = optimizer if isinstance(optimizer, torch.optim.Optimizer) else optimizer.optimizer
        own = getattr(own, "optimizer", own)
        self._make_shrinker(model, own, placed(self._inputs, part_of(model, self._network)))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look, and cut what has been dead at enough looks."""
        if self.shrinker is not None and state.global_step % self._every == 0:
            self._show(state.global_step, self.shrinker.step())

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write the plan of all cuts so far beside the weights of a checkpoint."""
        plan = self.shrinker.plan if self.shrinker is not None else None
        folder = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
        if plan is not None and folder.is_dir():
            with whole_file(folder / PLAN_FILE, SlimnetError) as file:
                file.write_text(plan.to_json(), encoding="utf-8")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Cut what rounded widths have kept."""
        if self.shrinker is not None:
            self._show(state.global_step, self.shrinker.finish())


def placed(inputs: ExampleInputs, network: nn.Module) -> ExampleInputs:
    """Example inputs on the device of a network."""
    device = device_of(network)
    moved: ExampleInputs = pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), inputs)
    return moved
