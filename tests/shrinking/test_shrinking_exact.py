"""A shrunk run is the dense run with the same channels at zero, under every optimiser and regulariser that slimnet has.

The oracle is torch alone: the dense network, trained on the same batches, with γ, β and their moments set to zero by
hand where the shrinker has set them to zero.
"""

from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from dying import DYING, DYING_PLAIN, Mixed, Plain, Positions, batches, dense_twin, let_die, network, set_to_zero
from torch import nn

import slimnet
from slimnet.shrinking import Shrinker
from slimnet.training import Recipe
from slimnet.training.recipe.channel_cost import relative_costs
from slimnet.training.recipe.optimisers import make_optimiser
from slimnet.training.recipe.regularisers import Regularisers

Dying = Mapping[str, Sequence[int]]
EXACT = 1e-12
WARM_UP = 20

RECIPES: dict[str, dict] = {
    "sgd": {"optimiser": "sgd", "lr": 1e-3, "l2": 1e-3},
    "sgd, nesterov": {"optimiser": "sgd", "lr": 1e-3, "nesterov": True, "l2": 1e-3},
    "adam": {"optimiser": "adam", "l2": 1e-3},
    "amsgrad": {"optimiser": "amsgrad", "l2": 1e-3},
    "adamax": {"optimiser": "adamax", "l2": 1e-3},
    "adadelta": {"optimiser": "adadelta", "lr": 0.1, "l2": 1e-3},
    "adagrad": {"optimiser": "adagrad", "l2": 1e-3},
    "rmsprop": {"optimiser": "rmsprop", "l2": 1e-3},
    "adam, the paper's weight decay": {"optimiser": "adam", "weight_decay": 1e-4},
    "adam, decoupled decay": {"optimiser": "adam", "decoupled": 1e-2},
    "sgd, L1 on γ": {"optimiser": "sgd", "lr": 1e-3, "l1_gamma": 1e-4},
    "adam, L2 by cost": {"optimiser": "adam", "l2": 1e-3, "cost_aware": "macs"},
}


class Run:
    """One network in training under a recipe; takes steps as slimnet's loop does."""

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
        self.model, self.recipe = model, recipe
        self.optimiser = make_optimiser(recipe, model)
        example = next(batches(1))[0]
        costs = relative_costs(model, example, recipe.cost_aware) if recipe.cost_aware else None
        self.regularisers = Regularisers(recipe, model, costs)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        loss = nn.functional.cross_entropy(self.model(images), labels)
        self.optimiser.zero_grad()
        loss.backward()
        self.regularisers.before_step(self.optimiser)
        self.optimiser.step()
        self.regularisers.after_step(1.0)
        return loss.item()


class Both:
    """A shrinking run and a dense one, step by step on the same batches."""

    def __init__(self, shrinking: Run, dense: Run, seed: int = 1) -> None:
        self.shrinking, self.dense = shrinking, dense
        self.shrinker = Shrinker(shrinking.model, shrinking.optimiser, next(batches(1))[0], patience=1)
        self.positions = Positions(dense.model)
        self.batches = batches(10**6, seed)
        self.projected: dict[str, set[int]] = {}

    def train(self, steps: int) -> None:
        for _, batch in zip(range(steps), self.batches, strict=False):
            loss, expected = self.shrinking.step(*batch), self.dense.step(*batch)
            assert abs(loss - expected) < EXACT
            self.check_zeros()

    def check_zeros(self) -> None:
        """Not one projected channel of the dense network has come back: γ and β are exactly 0."""
        for name, channels in self.projected.items():
            for own in (name, name.replace("weight", "bias")):
                assert not self.dense.model.get_parameter(own)[sorted(channels)].any()

    def cut(self, dying: Mapping[str, Sequence[int]]) -> None:
        let_die(self.dense.model, dying)
        let_die(self.shrinking.model, {path: self.positions.now(path, places) for path, places in dying.items()})
        cut = self.shrinker.step()
        assert cut is not None
        for name, channels in cut.projection.channels.items():
            places = self.positions.dense(name, channels)
            set_to_zero(self.dense.model, self.dense.optimiser, name, places)
            self.projected.setdefault(name, set()).update(places)
        self.positions.follow(cut.plan)
        self.shrinking.regularisers.cut(cut.plan)

    def apart(self) -> float:
        """The largest difference of a weight, a statistic or a moment of what is left."""
        plan = self.shrinker.plan
        left = slimnet.apply_plan(self.dense.model, plan).state_dict()
        found = [difference(left[name], tensor) for name, tensor in self.shrinking.model.state_dict().items()]
        for key in (
            "momentum_buffer",
            "exp_avg",
            "exp_avg_sq",
            "max_exp_avg_sq",
            "exp_inf",
            "square_avg",
            "acc_delta",
            "sum",
        ):
            kept = moments(self.dense, key)
            if kept is not None:
                left = slimnet.apply_plan(kept, plan).state_dict()
                now = dict(self.shrinking.model.named_parameters())
                state = self.shrinking.optimiser.state
                found += [difference(left[name], state[now[name]][key]) for name in now]
        return max(found)


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    assert one.shape == other.shape
    return (one - other).abs().max().item()


def moments(run: Run, key: str) -> nn.Module | None:
    """A copy of a network with an optimiser's moments in the place of its parameters, which a plan can cut."""
    copy = dense_twin(run.model)
    for (_, parameter), place in zip(run.model.named_parameters(), copy.parameters(), strict=True):
        if key not in run.optimiser.state[parameter]:
            return None
        place.data = run.optimiser.state[parameter][key].clone()
    return copy


def check_exact(
    settings: dict,
    steps: int,
    kind: Callable[[], nn.Module],
    times: Sequence[Mapping[str, Sequence[int]]],
    removed: int,
) -> float:
    """How far the runs are apart at most, so many steps behind each cut."""
    recipe = Recipe(arch="none", data="none", iterations=1, **settings)
    shrinking = Run(recipe, network(kind))
    both = Both(shrinking, Run(recipe, dense_twin(shrinking.model)))
    both.train(WARM_UP)
    worst = 0.0
    for dying in times:
        both.cut(dying)
        both.train(steps)
        worst = max(worst, both.apart())
    assert both.shrinker.plan.removed_channels == removed
    return worst


@pytest.mark.parametrize("name", RECIPES)
def test_a_shrunk_run_is_the_dense_one_with_the_same_channels_at_zero(name):
    assert check_exact(RECIPES[name], 100, Plain, DYING_PLAIN, 4) < EXACT


@pytest.mark.parametrize("name", ["adam"])
def test_so_it_is_with_shortcuts_groups_and_depthwise_layers(name):
    assert check_exact(RECIPES[name], 40, Mixed, DYING, 12) < EXACT


@pytest.mark.sweep
@pytest.mark.parametrize("name", RECIPES)
def test_it_still_is_a_thousand_steps_behind_each_cut(name):
    assert check_exact(RECIPES[name], 1000, Plain, DYING_PLAIN, 4) < EXACT
