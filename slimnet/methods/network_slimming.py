"""Multi-pass Network Slimming: train with L1 on γ, remove the channels with the smallest γ, fine-tune, and repeat."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from slimnet.data import ImageData
from slimnet.errors import UsageError
from slimnet.methods.budget import Budget, select_within_budget
from slimnet.methods.remove import remove_selected
from slimnet.methods.scores import score_channels
from slimnet.surgery.plan import SurgeryPlan
from slimnet.training.analysis.metrics import evaluate
from slimnet.training.finetune import Finetuning
from slimnet.training.recipe.recipe import Recipe

EXAMPLES = 16
"""The number of test images on which plans are certified."""


@dataclass(frozen=True)
class Pass:
    """One pass of Network Slimming; errors are those on the test images, 0..1.

    Attributes:
        model: the slim network, fine-tuned.
        plan: the removal of the pass, relative to the network before it.
        trained: the error after the training with L1 on γ.
        pruned: the error directly after the removal.
        error: the error after the fine-tuning.
    """

    model: nn.Module
    plan: SurgeryPlan
    trained: float
    pruned: float
    error: float


def passes(
    model: nn.Module, data: ImageData, recipe: Recipe, left: float, *, threads: int | None = None
) -> Iterator[Pass]:
    """Slim a network in passes, one for each `next` of the iterator (Liu et al. 2017, section 3 and table 4).

    Each pass trains by `recipe`, which has L1 on γ; removes the channels with the smallest |γ| of the whole network
    until the share `left` of the ranked channels remains; and trains by the same recipe without L1. The next pass
    starts from the result. `model` is not modified.

    Raises:
        UsageError: the recipe has no L1 on γ, or `left` is smaller than possible; the message has the smallest share.
        DataError: the network does not take the data.
    """
    if not recipe.l1_gamma:
        raise UsageError(
            "Network Slimming trains with L1 on γ, and the recipe has none; give it l1_gamma, such as 1e-4"
        )
    budget = Budget("channels", left)
    while True:
        trained = tuned(model, recipe, data, threads)
        inputs, _ = next(data.batches("test", EXAMPLES))
        selection = select_within_budget(trained, inputs, score_channels("liu2017", trained, inputs), budget)
        slimmed = remove_selected(trained, inputs, selection)
        model = tuned(slimmed.model, replace(recipe, l1_gamma=0.0), data, threads)
        errors = (1 - evaluate(each, data).top1 for each in (trained, slimmed.model, model))
        yield Pass(model, slimmed.plan, *errors)


def tuned(model: nn.Module, recipe: Recipe, data: ImageData, threads: int | None) -> nn.Module:
    """A copy of the network, trained by the recipe, in evaluation mode."""
    training = Finetuning(model, recipe, data, evaluations=1, threads=threads)
    for _ in training:
        pass
    return training.model.eval()
