"""A run that is made longer or shorter on its way: its recipe stays the recipe of all its steps."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from runs import everything, images, recipe
from test_resume import keep
from test_shrinking_runs import dying
from test_shrinking_runs import start as start

from slimnet.errors import SlimnetError, UsageError
from slimnet.sweep.jobs import Job, Outcome, outcome
from slimnet.training import Recipe, train
from slimnet.training.recipe.continuation import change_in_words, continued
from slimnet.training.run import run_folder
from slimnet.training.run.resumable_run import KeptRun
from slimnet.training.run.run_folder import create_run, recipe_of, reopen_run

SCHEDULES = [{"drops": (6, 14)}, {"cosine": True}]


def alone(plan: Recipe) -> list[torch.Tensor]:
    """What a run of a recipe ends with that is trained from the start."""
    run = train(plan, images(), threads=1)
    for _ in run:
        pass
    return everything(run)


def change(path: Path, plan: Recipe) -> None:
    """A process that gives a run another length, and is killed before its first step."""
    with reopen_run(path) as folder:
        KeptRun(folder, lambda state: train(plan, images(), threads=1, state=state))


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, first, second))


@pytest.mark.parametrize("changes", SCHEDULES, ids=["drops", "cosine"])
@pytest.mark.parametrize("until", [0, 9], ids=["finished", "under way"])
def test_a_longer_run_is_one_of_its_new_recipe(tmp_path, changes, until):
    """Twice longer and once shorter, with a process that ends at once. Oracle: that recipe, trained from the start."""
    plan = recipe(iterations=12, **changes)
    kept = keep(tmp_path / "run", plan, images(), until=until)
    for length, stop in ((20, 16), (30, 17), (19, 0)):
        plan = continued(plan, kept.run.iteration, length)
        # The process ends at once: the recipe has changed, and the newest checkpoint is of the one before.
        change(tmp_path / "run", plan)
        assert recipe_of(tmp_path / "run") == plan
        kept = keep(tmp_path / "run", recipe_of(tmp_path / "run"), images(), until=stop)
    assert kept.run.iteration == plan.iterations == 19
    assert equal(everything(kept.run), alone(plan))
    assert Recipe.from_json(plan.to_json()) == plan


def test_rounded_widths_that_were_exact_once_are_so_in_the_new_recipe_too(tmp_path, start):
    """A finished run that is made longer has been cut at its old end. Oracle: the new recipe, from the start."""
    plan = dying(start, shrink_round=4, iterations=19)
    kept = keep(tmp_path / "run", plan, images())
    longer = continued(plan, 19, 27)
    again = keep(tmp_path / "run", longer, images())
    run = train(longer, images(), threads=1)
    for _ in run:
        pass
    assert kept.run.plan is not None
    assert equal(everything(again.run), everything(run))
    assert again.run.plan == run.plan


def test_the_cosine_falls_to_0_at_the_new_end_from_there_on():
    """By hand: half a cosine over twelve iterations up to the ninth, and over twenty afterwards."""
    plan = continued(recipe(iterations=12, cosine=True), 9, 20)
    halves = [(1 + math.cos(math.pi * step / (12 if step < 9 else 20))) / 2 for step in range(21)]
    assert [plan.schedule_scale(step) for step in range(21)] == halves
    assert plan.lengths_before == ((9, 12),)
    assert continued(plan, 9, 30).lengths_before == ((9, 12),), "no step was taken with twenty"
    assert continued(plan, 11, 30).lengths_before == ((9, 12), (11, 20))
    assert continued(plan, 11, 20) == plan
    assert continued(recipe(iterations=12, cosine=True), 0, 20) == recipe(iterations=20, cosine=True)


def test_drops_stay_and_later_ones_may_change():
    plan = recipe(iterations=12, drops=(6, 11))
    assert continued(plan, 9, 40) == dataclasses.replace(plan, iterations=40)
    assert continued(plan, 9, 40, (6, 30)) == dataclasses.replace(plan, iterations=40, drops=(6, 30))
    assert continued(plan, 9, 9).drops == (6, 11)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((8,), "the run is at iteration 9 and cannot end at 8; give at least 9"),
        ((20, (7, 11)), r"the run is at iteration 9, and its drops before that were at \[6\]; repeat these"),
        ((20, (11, 6)), "the recipe's drops is"),
    ],
)
def test_what_cannot_go_on_so_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        continued(recipe(iterations=12, drops=(6, 11)), 9, *arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 20, "cosine": True}, "was begun with iterations 12, not 20"),
        ({"drops": (3,)}, r"was begun with drops \(\), not \(3,\)"),
        ({"iterations": 20, "seed": 1}, "was begun with seed 0, not 1"),
        ({"iterations": 4}, "of iteration 5 of 4"),
    ],
)
def test_a_recipe_with_other_steps_does_not_go_on(changes, message):
    """A cosine over another length has other steps from the first on."""
    plan = recipe(iterations=12, cosine=changes.get("cosine", False))
    run = train(plan, images(), every=5)
    next(run)
    with pytest.raises(SlimnetError, match=message):
        train(dataclasses.replace(plan, **changes), images(), state=run.state())


@pytest.mark.parametrize("pairs", [5, [3], [(3,)], [(0, 4)], [(3, 0)], [(5, 9), (3, 9)], [(3, "9")], "ab"])
def test_lengths_that_are_none_are_refused(pairs):
    with pytest.raises(UsageError, match=r"the recipe's lengths_before is .*; it must be pairs"):
        recipe(lengths_before=pairs)


@pytest.mark.parametrize(
    ("plan", "done", "length", "drops", "words"),
    [
        ({}, 9, 20, None, "20 iterations instead of 12: the learning rate stays 0.001"),
        (
            {"drops": (6, 11)}, 9, 20, None,
            "20 iterations instead of 12: the drops of the learning rate stay where they were, at 6 and 11",
        ),
        (
            {"drops": (6, 11)}, 9, 10, None,
            "10 iterations instead of 12: the drops of the learning rate stay where they were, at 6 and 11, "
            "1 of them after its end",
        ),
        (
            {"drops": (6, 11)}, 9, 20, (6, 15),
            "20 iterations instead of 12: the drops of the learning rate are others from here on, at 6 and 15",
        ),
        (
            {"cosine": True}, 6, 24, None,
            # Half of it, and 1/2 + √2/4 of it.
            "24 iterations instead of 12: the cosine falls to 0 at 24; at iteration 6 the learning rate goes from "
            "0.0005 to 0.000854",
        ),
        (
            {"cosine": True}, 12, 24, None,
            "24 iterations instead of 12: the cosine falls to 0 at 24; at iteration 12 the learning rate goes from "
            "0 to 0.0005",
        ),
    ],
)  # fmt: skip
def test_what_becomes_of_the_schedule_is_said_in_one_line(plan, done, length, drops, words):
    begun = recipe(iterations=12, **plan)
    assert change_in_words(begun, continued(begun, done, length, drops), done) == words


def finished_run(path: Path) -> Recipe:
    """A run that has ended, with what the command line leaves beside its model."""
    plan = recipe(iterations=6)
    keep(path, plan, images())
    (path / "report.html").write_text("old")
    (path / "slim").mkdir()
    (path / "slim" / "plan.json").write_text("{}")
    return plan


def test_what_the_shorter_run_left_is_kept_under_its_length(tmp_path):
    path = tmp_path / "run"
    plan = finished_run(path)
    before = (path / "model.pt").read_bytes()
    (path / "slim_6").mkdir()
    keep(path, continued(plan, 6, 8), images(), until=7)
    assert not any((path / name).exists() for name in ("model.pt", "report.html", "slim"))
    assert (path / "model_6.pt").read_bytes() == before
    assert (path / "report_6.html").read_text() == "old"
    assert (path / "slim_6" / "plan.json").exists()
    keep(path, recipe_of(path), images())
    assert torch.load(path / "model.pt", weights_only=True)["iteration"] == 8


def test_a_process_that_ends_before_the_recipe_is_written_leaves_the_finished_run(tmp_path, monkeypatch):
    path = tmp_path / "run"
    plan = finished_run(path)
    before = (path / "model.pt").read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    longer = continued(plan, 6, 8)
    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "write_recipe", killed)
        with pytest.raises(KeyboardInterrupt):
            keep(path, longer, images())
    assert recipe_of(path) == plan
    keep(path, plan, images())
    assert (path / "model.pt").read_bytes() == before


def test_a_run_of_another_length_is_no_result_of_a_sweep(tmp_path):
    """Its cell was named by the recipe; a warm start's digest, which the run adds, is no such difference."""
    plan = recipe(warm_start="a.pt")
    job = Job("k", plan.to_json(), tmp_path / "k", tmp_path)
    ran = dataclasses.replace(plan, warm_start_sha256="0")
    assert outcome(job, 0, f'{{"recipe": {ran.to_json()}}}', []).error is None
    longer = continued(ran, 3, 40)
    message = f"the run in {tmp_path / 'k'} was given another length; move it elsewhere"
    assert outcome(job, 0, f'{{"recipe": {longer.to_json()}}}', []) == Outcome("k", error=message)


def test_a_run_without_a_checkpoint_takes_another_length(tmp_path):
    with create_run(tmp_path / "run", recipe()):
        pass
    assert keep(tmp_path / "run", continued(recipe(), 0, 9), images()).run.iteration == 9
