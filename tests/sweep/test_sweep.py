"""slimnet sweep as a person runs it: real processes, interrupted and killed, here and on a local Ray."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import slimnet_cli
from processes import LONGEST_WAIT, below, runs

from slimnet.errors import UsageError
from slimnet.sweep import workers
from slimnet.sweep.jobs import Job, Outcome, command

GRID = """
[base]
arch = "basicnet"
data = "digits"
iterations = {iterations}
batch_size = 10
arch_args = {{widths = [4, 4], pool_after = [1], hidden = 6, in_channels = 1}}
{more}
"""


def grid(folder: Path, more: str = "[grid]\nseed = [0, 1]\n", iterations: int = 6) -> Path:
    path = folder / "grid.toml"
    path.write_text(GRID.format(iterations=iterations, more=more))
    return path


def swept(folder: Path, *options: str) -> list[dict[str, Any]]:
    """What the table of a sweep's folder says; the program's own JSON is checked against it."""
    with contextlib.closing(sqlite3.connect(folder / "sweep" / "sweep.sqlite")) as table:
        rows = table.execute("SELECT key, state, result FROM cells ORDER BY position").fetchall()
    return [{"key": key, "state": state, "result": result and json.loads(result)} for key, state, result in rows]


def run(folder: Path, *options: str) -> int:
    arguments = ["sweep", str(folder / "grid.toml"), "-o", str(folder / "sweep"), "--threads", "1"]
    return slimnet_cli.run([*arguments, "--device", "cpu", "--json", *options])


def test_every_cell_is_trained_once_and_its_row_says_how(tmp_path, capsys):
    """Two processes at a time; the same command again does nothing, and a grown grid only what is new."""
    grid(tmp_path)
    assert run(tmp_path, "--concurrent", "2") == 0
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert [line[:13] for line in err.splitlines() if "% of the filters dead" in line] == [
        "1 of 2: seed=",
        "2 of 2: seed=",
    ]
    rows = swept(tmp_path)
    assert [row["state"] for row in rows] == ["done", "done"]
    assert [row["result"]["recipe"]["seed"] for row in rows] == [0, 1]
    assert [(row["key"], row["result"]) for row in printed] == [(row["key"], row["result"]) for row in rows]
    for row in printed:
        assert json.loads((Path(row["folder"]) / "recipe.json").read_text())["iterations"] == 6
        assert (Path(row["folder"]) / "model.pt").is_file()
        assert Path(row["folder"] + ".log").is_file()
        assert 0 <= row["result"]["accuracy"]["top1"] <= 1

    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep" / "runs").rglob("model.pt")}
    grid(tmp_path, "[grid]\nseed = [1, 2]\n")
    assert run(tmp_path) == 0
    assert [row["recipe_seed"] for row in seeds(json.loads(capsys.readouterr().out))] == [1, 2]
    assert [row["state"] for row in swept(tmp_path)] == ["done"] * 3
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in files.items())


def seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"recipe_seed": row["result"]["recipe"]["seed"]} for row in rows]


def test_a_cell_that_fails_is_reported_does_not_stop_the_others_and_is_tried_again_alone(tmp_path, capsys, monkeypatch):
    grid(tmp_path, '[[cells]]\narch = "torchvision:nonesuch"\narch_args = {}\n[[cells]]\nseed = 1\n')
    assert run(tmp_path) == 1
    failed, done = json.loads(capsys.readouterr().out)
    assert (failed["state"], done["state"]) == ("failed", "done")
    assert "nonesuch" in failed["error"]
    assert "\n" not in failed["error"]
    tried = []

    def train(job: Job, *_: object) -> Outcome:
        tried.append(job.key)
        return Outcome(job.key, error="it is still not there")

    monkeypatch.setattr(workers, "train_in_subprocess", train)
    assert run(tmp_path) == 1
    assert tried == []
    assert run(tmp_path, "--retry") == 1
    assert tried == [failed["key"]]


LONG = 1_000_000
"""Iterations that no test waits for, however slowly it goes on itself."""


@contextlib.contextmanager
def begun(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A sweep in a process of its own, once its first cell has reported."""
    program = [sys.executable, "-m", "slimnet_cli", "sweep", str(folder / "grid.toml"), "-o", str(folder / "sweep")]
    process = subprocess.Popen(
        [*program, "--threads", "1", "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + LONGEST_WAIT
        while not any(path.stat().st_size for path in (folder / "sweep").glob("runs/*/metrics.jsonl")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_lets_the_cell_at_hand_save_and_the_next_sweep_goes_on(tmp_path, capsys):
    grid(tmp_path, iterations=LONG)
    with begun(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LONGEST_WAIT)
        assert process.returncode == 130
        assert "the same command resumes" in errors
    assert [row["state"] for row in swept(tmp_path)] == ["waiting", "waiting"]
    (folder,) = [path.parent for path in (tmp_path / "sweep" / "runs").glob("*/recipe.json")]
    reached = max(int(path.stem) for path in (folder / "checkpoints").glob("*.pt"))
    assert 0 < reached < LONG

    recipe = json.loads((folder / "recipe.json").read_text())
    job = Job(folder.name, json.dumps(recipe), folder, tmp_path)
    assert command(job)[4:6] == ["--resume", str(folder)]


def test_a_sweep_keeps_others_out_and_its_cell_saves_and_leaves_when_it_is_killed(tmp_path, capsys):
    grid(tmp_path, iterations=LONG)
    with begun(tmp_path) as process:
        assert run(tmp_path) == 2
        assert "in use: another process is sweeping there" in capsys.readouterr().err
        (cell,) = below(process.pid)
        process.kill()
        deadline = time.monotonic() + LONGEST_WAIT
        while runs(cell):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    (folder,) = [path.parent for path in (tmp_path / "sweep" / "runs").glob("*/recipe.json")]
    reached = max(int(path.stem) for path in (folder / "checkpoints").glob("*.pt"))
    assert 0 < reached < LONG


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--concurrent", "0"], "concurrent"),
        (["--gpus", "-1"], "gpus"),
        (["--threads", "0"], "threads"),
    ],
)
def test_misuse_is_one_line(options, message, tmp_path, capsys):
    grid(tmp_path)
    assert run(tmp_path, *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_without_ray_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    grid(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(tmp_path, "--ray", "auto") == 2
    assert "pip install '.[ray]' in a clone of slimnet" in capsys.readouterr().err


def test_a_cluster_that_is_not_there_is_reported_in_one_line(tmp_path, capsys, monkeypatch):
    """Nothing has been begun by then."""
    grid(tmp_path)

    def init(**_):
        raise ConnectionError("Could not find any running Ray instance.\nSet RAY_ADDRESS.")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    assert run(tmp_path, "--ray", "auto") == 2
    printed = capsys.readouterr().err.splitlines()[-1]
    assert "no Ray cluster at 'auto' (Could not find any running Ray instance.)" in printed
    assert "ray start --head" in printed
    with contextlib.closing(sqlite3.connect(tmp_path / "sweep" / "sweep.sqlite")) as table:
        assert table.execute("SELECT DISTINCT state FROM cells").fetchall() == [("waiting",)]


def test_a_cluster_of_this_machine_alone_is_started_again_where_that_takes_too_long(monkeypatch):
    """As on a busy machine. A cluster that others started is not: whether it is there does not change."""
    begins, ends = [], []

    def init(**_):
        begins.append(1)
        if len(begins) < 3:
            raise RuntimeError("The current node timed out during startup. This could happen because ...")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, shutdown=lambda: ends.append(1)))
    workers.Ray("local", {})._cluster()
    assert (len(begins), len(ends)) == (3, 2)
    begins.clear()
    with pytest.raises(UsageError, match="no Ray cluster at 'auto'"):
        workers.Ray("auto", {})._cluster()
    assert len(begins) == 1


@pytest.mark.sweep
def test_cells_run_on_a_ray_cluster(tmp_path):
    """A cluster of this machine alone, in a process of its own: Ray keeps threads and sockets that outlive a test."""
    grid(tmp_path)
    program = [sys.executable, "-m", "slimnet_cli", "sweep", "grid.toml", "-o", "sweep", "--device", "cpu"]
    ended = subprocess.run(
        [*program, "--threads", "1", "--ray", "local"],
        cwd=tmp_path,
        env=os.environ | {"RAY_DISABLE_IMPORT_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    rows = swept(tmp_path)
    assert [row["state"] for row in rows] == ["done", "done"]
    assert [row["result"]["recipe"]["seed"] for row in rows] == [0, 1]
