"""Callbacks for PyTorch Lightning: `Monitoring` logs dead channels, `Shrinking` removes them during training."""

import sys
from typing import Any

from slimnet.callbacks.target import ShrinkingCallback, checked_interval, part_of
from slimnet.errors import UsageError
from slimnet.modules.example_inputs import ExampleInputs
from slimnet.monitor import Monitor, Reading

# Lightning is published as two packages with classes of their own: what the caller uses is imported by now.
if "lightning.pytorch" in sys.modules:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    from pytorch_lightning import Callback, LightningModule, Trainer


class Monitoring(Callback):
    """Logs the dead channels of a network every `every` steps, as `slimnet/dead` and so on (`Reading.scalars`).

    `network` is the path of the network in the Lightning module, such as "model"; "" is the module itself. `layers`
    logs a number for each layer as well.

    Attributes:
        reading: the last one; None before the first.

    Raises:
        UsageError: `every` is below 1, or there is no module at this path (when training starts).
    """

    def __init__(
        self,
        example_inputs: ExampleInputs,
        every: int = 500,
        *,
        network: str = "",
        threshold: float = 1e-3,
        layers: bool = False,
    ) -> None:
        self._inputs, self._every = example_inputs, checked_interval(every)
        self._network, self._threshold, self._layers = network, threshold, layers
        self.reading: Reading | None = None

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        """Read the network, if it is time."""
        if trainer.global_step % self._every:
            return
        model = part_of(module, self._network)
        self.reading = Monitor(model, placed(self._inputs, module), self._threshold).read()
        module.log_dict(self.reading.scalars(layers=self._layers))


class Shrinking(ShrinkingCallback, Callback):
    """Removes dead channels every `every` steps with a `slimnet.Shrinker`, and at the end what rounded widths kept.

    `network` is the path of the network in the Lightning module, such as "model", and `also` the paths of copies that
    are narrowed with it, such as "average.module"; "" is the module itself. `options` are those of the shrinker.
    `report` is called with a line for each cut.

    A checkpoint of Lightning then has narrow weights. The plan that makes the network so narrow again is in the
    checkpoint, in the state of this callback: `slimnet.apply_plan(model, slimnet.SurgeryPlan.from_json(plan))`.

    Attributes:
        shrinker: made when training starts, since only then is there an optimiser.

    Raises:
        UsageError: `every` is below 1, several processes or several optimisers train, or there is no module at a path
            (when training starts).
    """

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Make the shrinker."""
        if trainer.world_size > 1:
            raise UsageError(
                f"{trainer.world_size} processes train, each behind a wrapper that cannot be narrowed; train in one, "
                "or with slimnet train, which shrinks in several"
            )
        if len(trainer.optimizers) != 1:
            raise UsageError(f"{len(trainer.optimizers)} optimisers train the module, and a shrinker needs one")
        self._make_shrinker(module, trainer.optimizers[0], placed(self._inputs, module))

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        """Look, and cut what has been dead at enough looks."""
        if self.shrinker is not None and trainer.global_step % self._every == 0:
            self._show(trainer.global_step, self.shrinker.step())

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Cut what rounded widths have kept."""
        if self.shrinker is not None:
            self._show(trainer.global_step, self.shrinker.finish())

    def state_dict(self) -> dict[str, Any]:
        """The plan of all cuts so far as JSON, None before the first."""
        plan = self.shrinker.plan if self.shrinker is not None else None
        return {"plan": None if plan is None else plan.to_json()}


def placed(inputs: ExampleInputs, module: LightningModule) -> ExampleInputs:
    """Example inputs on the device of a Lightning module, moved as its batches are."""
    moved: ExampleInputs = module.transfer_batch_to_device(inputs, module.device, 0)
    return moved
