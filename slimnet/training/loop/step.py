"""A training step: forward, backward, optimiser, regularisers; and the sums over the steps of a report."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from slimnet.errors import UsageError
from slimnet.surgery.plan import SurgeryPlan
from slimnet.training.loop.checkpoint_file import copied
from slimnet.training.loop.distributed import Ranks
from slimnet.training.recipe.optimisers import check_kept, make_optimiser, set_learning_rate
from slimnet.training.recipe.recipe import Recipe
from slimnet.training.recipe.regularisers import Regularisers


class Tally:
    """Loss and hits since the last report; the sums are on the device, so that steps need not synchronise."""

    def __init__(self, device: torch.device) -> None:
        self.steps = 0
        self._loss = torch.zeros((), device=device)
        self._hits = torch.zeros((), device=device, dtype=torch.int64)

    def add(self, loss: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor) -> None:
        """Add the results of a batch; the caller counts the `steps`."""
        self._loss += loss
        self._hits += (scores.argmax(1) == labels).sum()

    def means(self, ranks: Ranks, batch_size: int) -> tuple[float, float]:
        """Mean loss and accuracy over the steps counted, of all processes."""
        loss, hits = self._summed(ranks)
        return float(loss) / (self.steps * ranks.count), int(hits) / (self.steps * batch_size)

    def clear(self) -> None:
        """Reset; in place, since a captured graph adds to these tensors."""
        self.steps = 0
        self._loss.zero_()
        self._hits.zero_()

    def state(self, ranks: Ranks) -> dict[str, Any]:
        """The sums of all processes, for a checkpoint."""
        loss, hits = self._summed(ranks)
        return {"loss": loss.cpu(), "hits": hits.cpu(), "steps": self.steps}

    def restore(self, state: Mapping[str, Any], ranks: Ranks) -> None:
        """Restore stored sums; the first process takes all of them.

        Raises:
            ValueError: the number of steps is invalid.
        """
        if type(state["steps"]) is not int or state["steps"] < 0:
            raise ValueError(f"{state['steps']!r:.40} steps since the last report")
        self.steps = state["steps"]
        if ranks.first:
            self._loss.copy_(state["loss"])
            self._hits.copy_(state["hits"])

    def _summed(self, ranks: Ranks) -> tuple[torch.Tensor, torch.Tensor]:
        sums = self._loss.clone(), self._hits.clone()
        ranks.add_up(*sums)
        return sums


class Step:
    """An optimiser step on a batch, in the recipe's precision.

    A call does not synchronise with the device, so that a CUDA graph can capture it.

    Attributes:
        optimiser: the optimiser of `model`.
        forward: the callable of the forward pass: `model`, or a wrapper around it.
    """

    def __init__(self, recipe: Recipe, model: nn.Module, regularisers: Regularisers) -> None:
        self.optimiser = make_optimiser(recipe, model)
        self.forward: Callable[..., Any] = model
        self._recipe = recipe
        self._regularisers = regularisers

    def __call__(self, images: torch.Tensor, labels: torch.Tensor, iteration: int, tally: Tally) -> None:
        """Train on images `(N, C, H, W)` with labels `(N,)`, the step after `iteration` others."""
        scale = self._recipe.schedule_scale(iteration)
        set_learning_rate(self.optimiser, self._recipe.lr * scale)
        with self._precision(images.device):
            scores = self.forward(images)
        if not isinstance(scores, torch.Tensor):
            raise UsageError(
                f"{self._recipe.arch} answers with {type(scores).__name__} in training, not with scores; "
                "turn its auxiliary outputs off in arch_args"
            )
        loss = functional.cross_entropy(scores.float(), labels)
        self.optimiser.zero_grad()
        loss.backward()
        self._regularisers.before_step(self.optimiser)
        self.optimiser.step()
        self._regularisers.after_step(scale)
        tally.add(loss.detach(), scores.detach(), labels)

    def cut(self, plan: SurgeryPlan) -> None:
        """Adapt to a cut of the network and of the optimiser."""
        self._regularisers.cut(plan)

    def _precision(self, device: torch.device) -> AbstractContextManager[Any]:
        if self._recipe.precision == "fp32":
            return nullcontext()
        # Every weight is used once per step, so caching its bfloat16 copy gains nothing, and breaks graph capture.
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)

    def state(self) -> dict[int, dict[str, Any]]:
        """Copies of the optimiser's state for each parameter, by the parameter's number, on the CPU."""
        kept = self.optimiser.state_dict()["state"]
        return {number: {name: _kept(value) for name, value in each.items()} for number, each in kept.items()}

    def restore(self, state: Mapping[int, Mapping[str, Any]]) -> None:
        """Restore a stored state, with the memory layout of the parameters.

        Raises:
            ValueError: it is not the state of this optimiser.
        """
        parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        check_kept(self._recipe.optimiser, parameters, state)
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": dict(state), "param_groups": groups})
        for parameter, kept in self.optimiser.state.items():
            for name, value in kept.items():
                if torch.is_tensor(value):
                    alike = value.ndim and value.shape == parameter.shape
                    place = torch.empty_like(parameter if alike else value, dtype=value.dtype, device=value.device)
                    kept[name] = place.copy_(value)


def _kept(value: Any) -> Any:
    return copied(value) if torch.is_tensor(value) else value
