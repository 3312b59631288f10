"""Several processes that train together remove dead channels: the same ones, and with the same bits after a stop."""

from dataclasses import replace

import pytest
import torch
from runs import TINY, images, recipe
from test_distributed import InFolder, Weights, together

from slimnet.errors import SlimnetError
from slimnet.models import build
from slimnet.surgery.plan import SurgeryPlan
from slimnet.training import Recipe, save_checkpoint, train
from slimnet.training.analysis.metrics import batchnorm_scales
from slimnet.training.loop.distributed import Ranks

WIDTHS = {**TINY, "widths": [8, 12], "hidden": 16}


@pytest.fixture(scope="module")
def dead_filters(tmp_path_factory) -> Recipe:
    """A recipe whose network has channels that are always 0, which a shrinking run removes after six iterations."""
    torch.manual_seed(0)
    model = build("basicnet", WIDTHS)
    with torch.no_grad():
        for name in batchnorm_scales(model):
            norm = model.get_submodule(name)
            norm.weight[::3], norm.bias[::3] = 5e-4, -0.04
    path = tmp_path_factory.mktemp("start") / "start.pt"
    save_checkpoint(model, path, recipe(arch_args=WIDTHS), 0)
    own = {"arch_args": WIDTHS, "iterations": 12, "batch_size": 6, "warm_start": str(path)}
    return recipe(**own, optimiser="sgd", momentum=0.9, lr=0.02, l2=0.1, shrink_every=2)


class Narrowed(Weights):
    """Trains a recipe that shrinks and answers with the dense shape's weights, and with the plan."""

    def __call__(self, ranks: Ranks) -> tuple[dict[str, list], str]:
        run = train(self.plan, images(), every=3, ranks=ranks)
        for _ in run:
            pass
        weights = {name: value.tolist() for name, value in run.dense_model().state_dict().items()}
        return weights, "" if run.plan is None else run.plan.to_json()


def test_processes_that_train_together_cut_alike(dead_filters):
    """Oracle: the same two processes without cuts; dead channels change nothing."""
    (weights, plan), (others, other_plan) = together(Narrowed(dead_filters))
    assert SurgeryPlan.from_json(plan).removed_channels == 3 + 4 + 6
    assert plan == other_plan
    learned = [name for name in weights if "running" not in name]
    assert {name: weights[name] for name in learned} == {name: others[name] for name in learned}
    (dense, no_plan), _ = together(Narrowed(replace(dead_filters, shrink_every=0)))
    assert not no_plan
    for name in learned:
        narrow, whole = torch.tensor(weights[name]), torch.tensor(dense[name])
        alive = narrow != 0
        torch.testing.assert_close(narrow[alive], whole[alive], rtol=1e-4, atol=1e-5)


def test_processes_resume_after_a_cut_with_the_bits_of_an_uninterrupted_run(dead_filters, tmp_path):
    parts, whole = InFolder(tmp_path / "parts", dead_filters, until=6), InFolder(tmp_path / "whole", dead_filters)
    assert together(parts) == [9, 9]
    assert together(InFolder(tmp_path / "parts", dead_filters)) == together(whole) == [12, 12]
    first, second = (torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("parts", "whole"))
    assert all(map(torch.equal, first["state_dict"].values(), second["state_dict"].values()))


def test_processes_that_would_cut_differently_are_refused(dead_filters):
    """Where they are is the same for both; only γ differs, as after a fault of a memory."""
    for message in together(Astray(dead_filters)):
        assert message.startswith("the processes of this run have different γ, and would remove different channels")


class Astray(Weights):
    """Trains with another dead channel in the second process, and answers with the error."""

    def __call__(self, ranks: Ranks) -> str:
        run = train(replace(self.plan, lr=1e-9), images(), every=3, ranks=ranks)
        with torch.no_grad():
            run.model.features.bn1.weight[1 + ranks.number] = 1e-9
            run.model.features.bn1.bias[1 + ranks.number] = -1.0
        with pytest.raises(SlimnetError) as caught:
            list(run)
        return str(caught.value)
