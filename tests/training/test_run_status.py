"""How a run stands that another process trains: the newest report, the time left, and whether it is still at work."""

import dataclasses
import json
from pathlib import Path

import pytest
from runs import images, recipe

from slimnet.storage.files import in_use
from slimnet.training import train
from slimnet.training.loop.progress import Progress
from slimnet.training.run.resumable_run import Interval, KeptRun
from slimnet.training.run.run_folder import METRICS, create_run, read_history, reopen_run
from slimnet.training.run.run_status import TAIL, resumes_at, stamp, status_of


def write_metrics(
    folder: Path, count: int, *, pace: float, total: int = 4000, before: tuple[Progress, ...] = ()
) -> list[str]:
    """Metrics of as many reports, twenty iterations apart, at a pace in seconds an iteration."""
    at, spent = (before[-1].iteration, before[-1].seconds) if before else (0, 0.0)
    steps = [20 * (number + 1) for number in range(count)]
    reports = [Progress(at + step, total, 1.0, 0.5, 0.25, spent + pace * step) for step in steps]
    lines = [json.dumps(dataclasses.asdict(each)) + "\n" for each in (*before, *reports)]
    (folder / METRICS).write_text("".join(lines))
    return lines


def test_a_run_in_a_folder_stands_where_its_history_says(tmp_path):
    """Oracle: the reader of the whole folder; the run itself says where it was saved."""
    assert status_of(tmp_path / "run") is None
    assert stamp(tmp_path / "run") is None
    with create_run(tmp_path / "run", recipe()) as folder:
        data, seen = images(), []
        kept = KeptRun(folder, lambda state: train(recipe(), data, every=2, state=state), interval=Interval(4))
        assert (status_of(folder.path), resumes_at(folder.path)) == (None, None)
        for progress in kept:
            found = status_of(folder.path)
            seen.append(stamp(folder.path))
            assert found.progress == read_history(folder.path).progress[-1]
            assert found.progress.iteration == progress.iteration
        assert found.seconds_left == 0
        assert resumes_at(folder.path) == 4
        assert len(set(seen)) == len(seen) == 4


def test_the_first_report_tells_the_time_left_at_the_pace_of_the_whole_run(tmp_path):
    write_metrics(tmp_path, 1, pace=0.5)
    assert status_of(tmp_path).seconds_left == pytest.approx((4000 - 20) * 0.5)


def test_the_time_left_is_reckoned_at_the_pace_of_late(tmp_path):
    """An earlier session took a hundred times as long for its 200 iterations: it is far up in a long file."""
    slow = tuple(Progress(20 * n, 40_000, 2.0, 0.1, 0.0, 20.0 * 20 * n) for n in range(1, 11))
    lines = write_metrics(tmp_path, 200, pace=0.2, total=40_000, before=slow)
    assert sum(map(len, lines)) > 2 * TAIL
    found = status_of(tmp_path)
    assert found.progress.iteration == 4200
    assert found.seconds_left == pytest.approx((40_000 - 4200) * 0.2)


@pytest.mark.parametrize("rest", ['{"iteration": 80, "to', "{", ""])
def test_a_line_that_is_being_written_is_left_for_later(tmp_path, rest):
    lines = write_metrics(tmp_path, 3, pace=1.0)
    (tmp_path / METRICS).write_text("".join(lines) + rest)
    assert status_of(tmp_path).progress.iteration == 60


def test_a_folder_is_in_use_as_long_as_a_run_is_held_there(tmp_path):
    assert not in_use(tmp_path / "run")
    with create_run(tmp_path / "run", recipe()):
        assert in_use(tmp_path / "run")
    assert not in_use(tmp_path / "run")
    with reopen_run(tmp_path / "run"):
        assert in_use(tmp_path / "run")
