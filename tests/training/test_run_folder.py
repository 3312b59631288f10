"""A run's folder: what is in it, what is refused, and what survives damage."""

import dataclasses
import json
import os
import resource
from pathlib import Path

import pytest
import torch
from runs import finished, images, recipe, same

from slimnet.checkpoint import load_checkpoint
from slimnet.errors import CheckpointError, DataError, SlimnetError, UsageError
from slimnet.storage.files import whole_file
from slimnet.storage.staging import staging_path
from slimnet.training import train
from slimnet.training.loop.training_run import DivergedError
from slimnet.training.recipe.recipe import Recipe
from slimnet.training.run import checkpoints
from slimnet.training.run.resumable_run import Interval, KeptRun
from slimnet.training.run.run_folder import RunFolder, create_run, read_history, reopen_run, snapshots

LENGTH, EVERY = 40, 4
PLAN = recipe(iterations=LENGTH, l2=0.01)


PROMISED = ("recipe.json", "images.json", "metrics.jsonl", "sessions.jsonl", "checkpoints", "history", "lock")


def kept(folder: RunFolder, *, plan: Recipe = PLAN, every: int = EVERY, interval: int = 10) -> KeptRun:
    """A run in a folder that writes a checkpoint every ten iterations, at the next report."""
    begin = lambda state: train(plan, images(), every=every, state=state)  # noqa: E731
    return KeptRun(folder, begin, interval=Interval(interval))


def trained(path: Path, *, until: int = LENGTH, plan: Recipe = PLAN) -> None:
    """Begin a run in a folder and leave it after a report, as if the process had ended there."""
    with create_run(path, plan) as folder:
        run = kept(folder, plan=plan)
        for progress in run:
            if progress.iteration >= until:
                break
        if until >= LENGTH:
            run.close()


def numbers(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in (folder / "checkpoints").iterdir())


def test_a_finished_run_leaves_what_its_folder_promises(tmp_path):
    """Oracle: the names in the contract, and torch's and slimnet's own readers."""
    trained(tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {*PROMISED, "model.pt"}
    assert Recipe.from_json((tmp_path / "run" / "recipe.json").read_text()) == PLAN
    expected = finished(train(PLAN, images(), every=EVERY))
    for path in (tmp_path / "run" / "model.pt", tmp_path / "run" / "checkpoints" / f"{LENGTH:08d}.pt"):
        assert torch.load(path, weights_only=True)["iteration"] == LENGTH
        assert same(expected, load_checkpoint(path, PLAN.arch, PLAN.arch_args).state_dict())


def test_metrics_are_the_reports_one_object_a_line(tmp_path):
    """Oracle: a run without a folder; only the clock and the forecasts differ."""
    trained(tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for line, progress in zip(lines, train(PLAN, images(), every=EVERY), strict=True):
        reported = dataclasses.asdict(progress)
        for name in ("iteration", "total", "epoch", "loss", "accuracy", "sparsity"):
            assert line[name] == reported[name]
    assert lines[-1]["epoch"] == LENGTH * 5 / 12
    # By hand, for an 8 × 8 image: a 5 × 5 and a 3 × 3 convolution, a hidden layer of 8 and 3 classes.
    assert lines[-1]["macs"] == 64 * 4 * 2 * 25 + 16 * 6 * 4 * 9 + 6 * 8 + 8 * 3
    assert 0 < lines[-1]["macs_if_slimmed"] <= lines[-1]["macs"]


def test_macs_if_slimmed_are_those_of_the_slim_network(tmp_path):
    """Oracle: by hand, with half of the first layer's channels dead."""
    still = dataclasses.replace(PLAN, lr=1e-12)
    with create_run(tmp_path / "run", still) as folder:
        run = kept(folder, plan=still)
        with torch.no_grad():
            run.run.model.features.bn1.weight[:2].zero_()
            run.run.model.features.bn1.bias[:2].fill_(-1)
        assert list(run)[-1].macs_if_slimmed == 64 * 2 * 2 * 25 + 16 * 6 * 2 * 9 + 6 * 8 + 8 * 3


def test_history_has_both_scales_and_shifts_of_every_snapshot(tmp_path):
    """Oracle: the snapshots that a run without a folder keeps in memory."""
    trained(tmp_path / "run")
    run = train(PLAN, images(), every=EVERY)
    finished(run)
    history = read_history(tmp_path / "run")
    assert history.recipe == PLAN
    assert history.iterations.tolist() == [each.progress.iteration for each in run.history]
    assert list(history.scales) == list(history.shifts) == ["features.bn1", "features.bn2", "classifier.bn1"]
    for row, snapshot in enumerate(run.history):
        assert same(snapshot.scales, {name: values[row] for name, values in history.scales.items()})
        assert same(snapshot.shifts, {name: values[row] for name, values in history.shifts.items()})
    assert torch.equal(run.history[-1].shifts["features.bn2"], run.model.features.bn2.bias.detach())
    assert [each.progress.loss for each in snapshots(history)] == [each.progress.loss for each in run.history]


def test_a_folder_without_reports_has_an_empty_history(tmp_path):
    with create_run(tmp_path / "run", PLAN):
        pass
    history = read_history(tmp_path / "run")
    assert (history.progress, history.scales, len(history.iterations)) == ([], {}, 0)


def test_the_newest_two_checkpoints_are_kept(tmp_path):
    trained(tmp_path / "run", until=32)
    assert numbers(tmp_path / "run") == [20, 32]


def test_going_on_forgets_what_came_after_the_checkpoint(tmp_path):
    """A line that a crash cut short, later reports and snapshots, and files left half-written all go."""
    path = tmp_path / "run"
    trained(path, until=28)
    for name in ("checkpoints/00000028.pt", "history/00000028.safetensors", "model.pt"):
        staging_path(path / name).write_text("half")
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 32, "tot')
    with reopen_run(path) as folder:
        assert kept(folder).run.iteration == 20
        history = read_history(path)
    assert [each.iteration for each in history.progress] == [4, 8, 12, 16, 20]
    assert history.iterations.tolist() == [4, 8, 12, 16, 20]
    assert not list(path.rglob(".*"))


# ---- damage


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Change one byte in the middle of the weights."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other(path: Path) -> None:
    path.write_text("<html>")


@pytest.mark.parametrize("damage", [cut, flip, empty, other])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_is_named(tmp_path, damage):
    path = tmp_path / "run"
    trained(path)
    damage(path / "checkpoints" / f"{LENGTH:08d}.pt")
    with reopen_run(path) as folder:
        run = kept(folder)
        assert run.run.iteration == 32
        assert [each.name for each in run.damaged] == [f"{LENGTH:08d}.pt.damaged"]
        for _ in run:
            pass
        run.close()
    assert same(finished(train(PLAN, images(), every=EVERY)), run.run.model.state_dict())
    assert checkpoints.newest(path / "checkpoints").damaged == ()


def test_damage_to_every_checkpoint_is_said_in_one_line(tmp_path):
    path = tmp_path / "run"
    trained(path)
    for each in (path / "checkpoints").iterdir():
        cut(each)
    with (
        reopen_run(path) as folder,
        pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged") as caught,
    ):
        kept(folder)
    assert "\n" not in str(caught.value)


@pytest.fixture
def no_room_for_checkpoints():
    """Files may not grow beyond 4 kB, as on a disk that is full: a report has room, a checkpoint has none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_line_and_the_earlier_checkpoints_stay(tmp_path, request):
    path = tmp_path / "run"
    trained(path, until=20)
    with reopen_run(path) as folder:
        run = kept(folder)
        request.getfixturevalue("no_room_for_checkpoints")
        with pytest.raises(
            SlimnetError, match=r"cannot write .*00000032\.pt: .*; free disk space, or choose another path"
        ) as caught:
            list(run)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert numbers(path) == [12, 20]


# ---- divergence


def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(tmp_path):
    """The run is fine until somebody sets a weight to infinity after the first checkpoint."""
    with create_run(tmp_path / "run", PLAN) as folder:
        run = kept(folder)
        while next(run).iteration < 16:
            pass
        run.run.model.features.conv1.weight.data[0] = torch.inf
        with pytest.raises(DivergedError, match=r"loss became nan .*below 0\.001\. .*00000012\.pt is from before"):
            list(run)
    assert numbers(tmp_path / "run") == [12]


def test_weights_that_are_not_finite_are_never_kept(tmp_path):
    with create_run(tmp_path / "run", PLAN) as folder:
        run = kept(folder)
        while next(run).iteration < 16:
            pass
        run.run.model.classifier.fc2.bias.data[0] = torch.nan
        with pytest.raises(DivergedError, match=r"classifier\.fc2\.bias is no longer finite at iteration 16"):
            run.save()
    assert numbers(tmp_path / "run") == [12]


# ---- what is refused


def test_only_one_process_at_a_time_trains_in_a_folder(tmp_path):
    path = tmp_path / "run"
    with create_run(path, PLAN), pytest.raises(UsageError, match="in use: another process") as caught, reopen_run(path):
        pass
    assert "\n" not in str(caught.value)
    with reopen_run(tmp_path / "run") as folder:
        assert folder.recipe == PLAN


def test_a_place_that_is_taken_is_refused(tmp_path):
    trained(tmp_path / "run", until=4)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    (tmp_path / "file").touch()
    for name, message in (
        ("run", "already holds a run; resume it with --resume"),
        ("photos", r"holds cat\.jpg and no run; name another folder"),
        ("file", "cannot write .*file"),
    ):
        with pytest.raises(SlimnetError, match=message), create_run(tmp_path / name, PLAN):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "photos", "run"]


def test_a_run_that_was_killed_before_it_had_a_recipe_is_begun_again(tmp_path):
    """The hidden file that was to become the recipe is there, and gone once the run has ended."""
    with whole_file(tmp_path / "recipe.json", SlimnetError) as staging:
        pass
    (tmp_path / "recipe.json").unlink()
    staging.touch()
    trained(tmp_path)
    assert (tmp_path / "model.pt").is_file()
    assert not staging.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"is not the folder of a run \(there is no readable recipe\.json"),
        ("{", "recipe.json: the recipe is not JSON"),
    ],
)
def test_a_folder_without_a_run_cannot_be_taken_up(tmp_path, content, message):
    if content is not None:
        (tmp_path / "recipe.json").write_text(content)
    for read in (lambda: reopen_run(tmp_path).__enter__(), lambda: read_history(tmp_path)):
        with pytest.raises(UsageError, match=message):
            read()


def test_a_recipe_that_does_not_match_the_run_is_refused(tmp_path):
    """Whether the recipe in the folder was edited, or the caller brings another one."""
    path = tmp_path / "run"
    trained(path, until=12)
    with reopen_run(path) as folder, pytest.raises(UsageError, match=r"was begun with l2 0\.01, not 0\.5"):
        kept(folder, plan=dataclasses.replace(PLAN, l2=0.5))
    edited = dataclasses.replace(PLAN, batch_size=6)
    (path / "recipe.json").write_text(edited.to_json())
    with reopen_run(path) as folder, pytest.raises(UsageError, match="was begun with batch_size 5, not 6"):
        kept(folder, plan=folder.recipe)


def test_other_data_than_the_run_was_begun_with_is_refused(tmp_path):
    trained(tmp_path / "run", until=12)
    with reopen_run(tmp_path / "run") as folder, pytest.raises(DataError, match="its images was 12 and is 15"):
        KeptRun(folder, lambda state: train(PLAN, images(15), state=state))


def test_checkpoints_come_after_at_least_one_iteration():
    with pytest.raises(UsageError, match="a checkpoint every 0 iterations"):
        Interval(0)


def test_a_damaged_history_is_named(tmp_path):
    trained(tmp_path / "run")
    cut(next((tmp_path / "run" / "history").iterdir()))
    with pytest.raises(CheckpointError, match=r"history/.*\.safetensors is damaged"):
        read_history(tmp_path / "run")
