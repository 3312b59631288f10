"""What is said of a sweep's cells while they are at work, and of each that has ended."""

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import LONGEST_WAIT
from runs import recipe
from slimnet_cli.output import terminal
from slimnet_cli.output.terminal import ProgressBoard
from slimnet_cli.progress import sweep_progress

from slimnet.sweep import workers
from slimnet.sweep.jobs import Job, Outcome, outcome
from slimnet.sweep.workers import Here, wait_for, wait_until_released
from slimnet.training.run.run_folder import METRICS, create_run

REPORT = {"total": 406250, "loss": 1.5, "accuracy": 0.42, "sparsity": 0.125, "epoch": 0.1}
SCRIPT = """
import sys, time
try:
    open(sys.argv[1], "w").close()
    time.sleep(600)
except KeyboardInterrupt:
    print("bye")
"""
RESULT = {"accuracy": {"top1": 0.9}, "dead_filters": 0.714, "seconds": 7200.0}


class Shown:
    """A board that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.said: list[str] = []
        self.board = ProgressBoard(lambda _, lines: self.lines.__setitem__(slice(None), lines), self.said.append)


def job(folder: Path, key: str) -> Job:
    return Job(key, recipe().to_json(), folder / key, folder)


def watch(folder: Path, *keys: str) -> tuple[sweep_progress.Watch, Shown]:
    shown = Shown()
    names = {key: f"cell {key}" for key in keys}
    return sweep_progress.Watch({key: job(folder, key) for key in keys}, names, shown.board), shown


def report(folder: Path, iteration: int) -> None:
    line = json.dumps(REPORT | {"iteration": iteration, "seconds": 0.4 * iteration}) + "\n"
    folder.mkdir(exist_ok=True)
    with (folder / METRICS).open("a") as file:
        file.write(line)


def test_every_cell_at_work_says_how_far_it_is_and_how_long_it_takes_still(tmp_path):
    """One that goes on says nothing of its old reports as new ones: before its first it shows what its process says."""
    report(tmp_path / "a", 20)
    (tmp_path / "a" / "checkpoints").mkdir()
    (tmp_path / "a" / "checkpoints" / "00000020.pt").touch()
    watched, shown = watch(tmp_path, "a", "b")
    watched.begin("a")
    watched.begin("b")
    assert shown.said == ["cell a: resumes from iteration 20"]
    watched.show()
    assert shown.lines == ["cell a: starting", "cell b: starting"]
    watched.jobs["a"].log.write_text("Decoding images: 20/100\n\n")
    watched.show()
    assert shown.lines[0] == "cell a: Decoding images: 20/100"
    report(tmp_path / "a", 40)
    watched.show()
    assert shown.lines[0] == (
        "cell a: iteration 40 of 406,250, epoch 0.1, loss 1.500, accuracy 42 %, 12 % of the filters dead, 45 h left"
    )
    report(tmp_path / "a", 406250)
    watched.show()
    assert shown.lines[0] == "cell a: trained; its accuracy is being measured"
    watched.say("a", "trained; measuring the features: 256 of 50,000 images")
    watched.show()
    assert shown.lines[0] == "cell a: trained; measuring the features: 256 of 50,000 images"


def test_what_became_of_a_cell_stays_and_an_interrupted_one_counts_for_nothing(tmp_path):
    watched, shown = watch(tmp_path, "a", "b", "c")
    watched.begin("a")
    watched.end(Outcome("a", result=RESULT))
    watched.end(Outcome("b", error="the loss became nan"))
    watched.end(Outcome("c"))
    assert shown.said == [
        "1 of 3: cell a done in 2 h: 10.0 % error, 71 % of the filters dead",
        "2 of 3: cell b failed: the loss became nan",
    ]
    watched.show()
    assert shown.lines == []


def test_a_cluster_shows_so_many_cells_and_counts_the_others(tmp_path):
    keys = [f"{number:02d}" for number in range(sweep_progress.SHOWN + 3)]
    watched, shown = watch(tmp_path, *keys)
    for key in keys:
        watched.begin(key)
    watched.show()
    assert len(shown.lines) == sweep_progress.SHOWN + 1
    assert shown.lines[-1] == "and 3 more"


def test_a_file_gets_lines_and_a_wish_to_stop_is_said_once(tmp_path, monkeypatch):
    """The lines come from another thread, between whose writes `capsys` would empty its buffer."""
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setattr(sweep_progress, "LOOK_SECONDS", 0.01)
    with sweep_progress.watching([job(tmp_path, "a")], {"a": "cell a"}, lambda: True) as watched:
        watched.begin("a")
        report(tmp_path / "a", 20)
        deadline = time.monotonic() + LONGEST_WAIT
        while time.monotonic() < deadline:
            written = file.getvalue()
            if "iteration 20" in written and sweep_progress.STOPPING in written:
                break
            time.sleep(0.01)
        watched.end(Outcome("a", result=RESULT))
    lines = file.getvalue().splitlines()
    assert lines.count(sweep_progress.STOPPING) == 1
    assert any(line.startswith("cell a: iteration 20 of 406,250, ") for line in lines)
    assert lines[-1] == "1 of 1: cell a done in 2 h: 10.0 % error, 71 % of the filters dead"
    assert all(line.isprintable() for line in lines)


def test_lines_in_a_file_come_ever_more_seldom():
    """Ten seconds apart at first; after a day five minutes."""
    assert [terminal.more_seldom(seconds) for seconds in (0, 100, 400, 86_400)] == [1, 1, 2, 30]


@pytest.mark.parametrize(
    ("code", "output", "said", "expected"),
    [
        (0, '{"a": 1}', ["Training: 20/100"], ({"a": 1}, None)),
        (0, "no json", ["Training: 20/100"], (None, "it ended with exit code 0")),
        (130, "", ["interrupted"], (None, None)),
        (1, "", ["a note", "error: the loss became nan"], (None, "the loss became nan")),
        (1, "", ["Traceback", "ZeroDivisionError: division by zero"], (None, "ZeroDivisionError: division by zero")),
        (1, "", [], (None, "it ended with exit code 1")),
        (-9, "", ["Training: 20/100"], (None, "it was killed by signal 9")),
    ],
)
def test_how_a_process_ended_says_what_became_of_its_cell(code, output, said, expected, tmp_path):
    found = outcome(job(tmp_path, "k"), code, output, said)
    assert (found.result, found.error) == expected


def test_a_wish_to_stop_reaches_a_process_whatever_the_sweep_is_doing(tmp_path):
    """One that runs until it is interrupted; nobody but the thread that waits for it looks at the wish."""
    ready = tmp_path / "ready"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(ready)], stdout=subprocess.PIPE, text=True)
    assert wait_for(process, ready.exists) == "bye\n"


def test_a_sweep_that_breaks_off_begins_nothing_more_and_tells_what_runs(tmp_path, monkeypatch):
    trained = []

    def train(job: Job, stopped: workers.Stopped) -> Outcome:
        while job.key != "a" and not stopped():
            time.sleep(0.01)
        trained.append(job.key)
        return Outcome(job.key, error="done")

    monkeypatch.setattr(workers, "train_in_subprocess", train)
    begun_keys: list[str] = []
    outcomes = Here(1).run([job(tmp_path, key) for key in "abcd"], begun_keys.append, lambda: False)
    assert next(outcomes).key == "a"
    outcomes.close()
    assert begun_keys == trained == ["a", "b"][: len(trained)]


def test_a_process_that_has_lost_its_sweep_may_save_and_leave_first(tmp_path):
    """It holds the folder of its run until then; a request to stop ends the waiting."""
    asked = []
    with create_run(tmp_path / "run", recipe()):
        wait_until_released(tmp_path / "run", lambda: bool(asked.append(1)) or len(asked) > 2)
    assert len(asked) == 3
    wait_until_released(tmp_path / "run", lambda: pytest.fail("there is nothing to wait for"))
