"""A run that goes on ends as if it had never been interrupted, bit for bit, whatever interrupted it."""

import dataclasses
import json
import random
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch
from processes import LONGEST_WAIT, forkserver
from runs import DROPPING, everything, images, recipe, same

from slimnet.data import ImageData, load_data
from slimnet.errors import CheckpointError, UsageError
from slimnet.training import TrainingRun, train
from slimnet.training.recipe.recipe import DIGITS_DEMO, Recipe
from slimnet.training.run.checkpoints import newest
from slimnet.training.run.resumable_run import Interval, KeptRun
from slimnet.training.run.run_folder import create_run, read_history, reopen_run

CLOCKED = ("seconds", "macs", "macs_if_slimmed")
"""What depends on the clock: how long it took, and when there was time for a forecast."""


def keep(path: Path, plan: Recipe, data: ImageData, *, every: int = 4, interval: int = 4, until: int = 0) -> KeptRun:
    """Train in a folder, taking it up where there is a run; tell it to stop at an iteration, if one is given."""
    with reopen_run(path) if path.exists() else create_run(path, plan) as folder:
        begin = lambda state: train(plan, data, every=every, threads=1, state=state)  # noqa: E731
        run = KeptRun(folder, begin, interval=Interval(interval))
        if until:
            stop_at(run.run, until)
        for _ in run:
            pass
        run.close()
    return run


def stop_at(run: TrainingRun, iteration: int) -> None:
    """Wish to stop during the step that ends at an iteration, as a signal would."""
    advance = run._advance

    def watched(number: int) -> None:
        advance(number)
        if number + 1 == iteration:
            run.stop()

    run._advance = watched


def metrics(path: Path) -> list[dict]:
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCKED} for line in lines]


# ---- taken up where it was left


@pytest.mark.parametrize(
    "changes",
    [
        {"l2": 0.01, "flips": True, "crop": 2},
        {"optimiser": "sgd", "drops": (6,), "weight_decay": 1e-3},
        {"optimiser": "amsgrad", "l1_gamma": 1e-3},
        {"optimiser": "adamax"},
        {"optimiser": "adadelta"},
        {"optimiser": "adagrad", "decoupled": 1e-2},
        {"optimiser": "rmsprop"},
        {"precision": "bf16", "cost_aware": "macs", "l2": 0.01},
        DROPPING,
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_a_run_that_goes_on_ends_bit_for_bit_as_one_that_never_stopped(tmp_path, changes):
    """Stopped twice, once between two reports: weights, optimiser, random stream, metrics and history are the same."""
    plan = recipe(iterations=17, **changes)
    whole = keep(tmp_path / "whole", plan, images())
    for iteration in (6, 12):
        assert keep(tmp_path / "parts", plan, images(), until=iteration).run.iteration == iteration
        torch.rand(3)
    parts = keep(tmp_path / "parts", plan, images())
    assert all(map(torch.equal, everything(whole.run), everything(parts.run)))
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    first, second = read_history(tmp_path / "whole"), read_history(tmp_path / "parts")
    assert same(first.scales, second.scales)
    assert same(first.shifts, second.shifts)
    assert len(parts.run.history) == len(whole.run.history)


def test_a_state_goes_on_in_another_run_without_any_folder():
    plan = recipe(iterations=9, flips=True)
    run = train(plan, images(), every=3)
    next(run)
    other = train(plan, images(), every=3, state=run.state())
    assert [progress.loss for progress in run] == [progress.loss for progress in other]
    assert all(map(torch.equal, everything(run), everything(other)))


def test_a_run_asked_to_stop_finishes_its_current_step():
    run = train(recipe(iterations=9), images(), every=4)
    stop_at(run, 6)
    assert [progress.iteration for progress in run] == [4]
    assert run.iteration == 6
    assert list(run) == []


def test_time_spent_is_carried_on():
    plan = recipe(iterations=8)
    run = train(plan, images(), every=4)
    seconds = next(run).seconds
    assert next(train(plan, images(), every=4, state=run.state())).seconds > seconds


def test_a_run_goes_on_without_the_checkpoint_it_was_started_from(tmp_path):
    start = keep(tmp_path / "start", recipe(), images()).close()
    assert start is not None
    plan = recipe(iterations=8, warm_start=str(start))
    keep(tmp_path / "run", plan, images(), until=5)
    start.unlink()
    assert keep(tmp_path / "run", plan, images()).run.iteration == 8
    with pytest.raises(CheckpointError):
        train(plan, images())


def test_another_recipe_does_not_go_on_from_a_state():
    run = train(recipe(), images())
    with pytest.raises(UsageError, match="the run was begun with seed 0, not 1; resume it as it is"):
        train(recipe(seed=1), images(), state=run.state())


def test_a_network_whose_code_has_changed_does_not_go_on():
    """Stands in for an edit: the state names a tensor that the network does not have, or has another shape."""
    state = train(recipe(), images()).state()
    weights = state["state_dict"]
    renamed = {name.replace("fc2", "fc3"): value for name, value in weights.items()}
    reshaped = weights | {"classifier.fc2.bias": torch.zeros(9)}
    for changed in (renamed, reshaped):
        with pytest.raises(CheckpointError, match="the network's code has changed since the run began") as caught:
            train(recipe(), images(), state=state | {"state_dict": changed})
        assert "\n" not in str(caught.value)


# ---- killed


NARROW = {"widths": [4, 8], "pool_after": [1], "hidden": 8, "in_channels": 1, "num_classes": 10}
LONGEST = 0.25
"""Seconds that a process lives at most, from its first step on: enough for some fifteen checkpoints."""


def digits_in(path: Path, plan: Recipe, ready: Event) -> None:
    """What the killed processes do."""
    torch.set_num_threads(1)
    data = load_data("digits")
    ready.set()
    keep(path, plan, data, every=5, interval=5)


@pytest.mark.parametrize("count", [3, pytest.param(20, marks=pytest.mark.sweep)])
def test_killed_at_any_moment_a_run_loses_no_checkpoint_and_ends_the_same(tmp_path, count):
    """Real processes, killed by SIGKILL while they train and write. Oracle: one that is left alone."""
    plan = dataclasses.replace(DIGITS_DEMO.lasting(80 * count), arch_args=NARROW, flips=True)
    context = forkserver()
    generator, path, reached = random.Random(count), tmp_path / "killed", -1
    for _ in range(count):
        ready = context.Event()
        process = context.Process(target=digits_in, args=(path, plan, ready))
        process.start()
        assert ready.wait(LONGEST_WAIT)
        time.sleep(generator.uniform(0, LONGEST))
        process.kill()
        process.join()
        found = newest(path / "checkpoints")
        now = -1 if found is None else int(found.state["iteration"])
        assert found is None or found.damaged == ()
        assert now >= reached
        reached = now
    undisturbed = keep(tmp_path / "whole", plan, load_data("digits"), every=5, interval=1000)
    again = keep(path, plan, load_data("digits"), every=5, interval=5)
    assert all(map(torch.equal, everything(undisturbed.run), everything(again.run)))
    assert metrics(path) == metrics(tmp_path / "whole")
