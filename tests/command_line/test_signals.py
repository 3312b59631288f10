"""Commands that are ended from outside, as real processes: they clean up and say so, or the next one cleans up."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import slimnet_cli
import torch
from command_line import SHORT
from processes import forkserver, read_to_progress
from slimnet_cli.progress.signals import Terminated, end_on_signals, on_signals

from slimnet.models import build
from slimnet.training import Recipe, save_checkpoint
from slimnet.training.run.checkpoints import newest

ARGUMENTS = {"in_channels": 1, "widths": [4, 8], "pool_after": [1], "hidden": 8}
NETWORK = ("--arch", "basicnet", "--arch-args", json.dumps(ARGUMENTS))
COMMANDS = {
    "slim": ("--data", "digits"),
    "ladder": ("--data", "digits", "--steps", "0.5"),
    "compare": ("--data", "digits", "--methods", "random", "--budget", "0.5", "--seconds", "0", "--threads", "1"),
}
FOREVER = 600.0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    recipe = Recipe(arch="basicnet", arch_args=ARGUMENTS, data="digits", iterations=1)
    path = tmp_path_factory.mktemp("net") / "net.pt"
    return save_checkpoint(build("basicnet", ARGUMENTS), path, recipe, 0)


def arguments(command: str, checkpoint: Path, folder: Path) -> list[str]:
    return [command, str(checkpoint), *NETWORK, *COMMANDS[command], "-o", str(folder / "out")]


def run_until_it_writes(arguments: list[str], errors: Path, ready: Connection) -> None:
    """A command as it is typed, which stays where it is about to write its first file."""

    def stay(*_: object, **__: object) -> None:
        ready.send(None)
        # In short sleeps: a signal that comes just before one is only looked at after it.
        until = time.monotonic() + FOREVER
        while time.monotonic() < until:
            time.sleep(0.05)

    Path.write_text = Path.write_bytes = stay
    torch.set_num_threads(1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    sys.argv = ["slimnet", *arguments]
    slimnet_cli.main()


def ended(arguments: list[str], errors: Path, by: signal.Signals) -> int | None:
    """How a command ends that gets a signal in the middle of writing."""
    context = forkserver()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=run_until_it_writes, args=(arguments, errors, theirs))
    process.start()
    theirs.close()
    try:
        ours.recv()
        assert process.pid is not None
        os.kill(process.pid, by)
        process.join()
    finally:
        process.kill()
        process.join()
    return process.exitcode


def hidden(folder: Path) -> list[Path]:
    return list(folder.rglob(".*"))


def sample(cases: list[tuple], kept: list[tuple]) -> list:
    """All cases, of which a plain run takes some: each costs several processes."""
    return [pytest.param(*case, marks=[] if case in kept else [pytest.mark.sweep]) for case in cases]


ENDED = list(product((signal.SIGTERM, signal.SIGHUP), COMMANDS))
KILLED = [(command,) for command in COMMANDS]


@pytest.mark.parametrize(("by", "command"), sample(ENDED, [(signal.SIGTERM, "slim"), (signal.SIGHUP, "ladder")]))
def test_a_command_that_is_asked_to_end_cleans_up_and_says_so_in_one_line(command, by, checkpoint, tmp_path):
    code = ended(arguments(command, checkpoint, tmp_path), tmp_path / "errors", by)
    assert code == 128 + by
    printed = [
        line for line in (tmp_path / "errors").read_text().splitlines() if not line.startswith(("Rungs", "Compar"))
    ]
    assert printed == [f"error: ended by {by.name}; nothing half-written was left behind"]
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("command", sample(KILLED, [("compare",)]))
def test_what_a_killed_command_left_is_removed_by_the_next(command, checkpoint, tmp_path):
    """The next one comes as far as to write too, where it is ended and leaves nothing of its own."""
    typed = arguments(command, checkpoint, tmp_path)
    assert ended(typed, tmp_path / "errors", signal.SIGKILL) == -signal.SIGKILL
    assert len(hidden(tmp_path)) == 1
    assert ended(typed, tmp_path / "errors", signal.SIGTERM) == 128 + signal.SIGTERM
    assert hidden(tmp_path) == []


# ---- training


def training(folder: Path) -> list[str]:
    """A run that reports at once and would take hours."""
    script = "import slimnet_cli, slimnet_cli.output.terminal as t; t.SECONDS_BETWEEN_LINES = 0; slimnet_cli.main()"
    return [sys.executable, "-c", script, "train", "digits", *SHORT, "--iterations", "1000000", "-o", str(folder)]


def saved_at(folder: Path) -> int:
    found = newest(folder / "checkpoints")
    return 0 if found is None else found.state["iteration"]


def test_a_closed_terminal_ends_a_run_with_a_save(tmp_path):
    """As when a connection breaks: the process is hung up, and its output can no longer be written."""
    folder = tmp_path / "run"
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, training(folder))
    metrics = folder / "metrics.jsonl"
    while not metrics.exists() or not metrics.stat().st_size:
        with contextlib.suppress(OSError):
            os.read(terminal, 1)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    reports = [json.loads(line)["iteration"] for line in metrics.read_text().splitlines()]
    assert saved_at(folder) >= reports[-1] > 0
    assert hidden(folder) == []


def test_under_nohup_a_run_outlives_its_terminal(tmp_path):
    """SIGHUP is ignored when it begins, and stays so; SIGTERM still ends it with a save."""
    folder = tmp_path / "run"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = subprocess.Popen(training(folder), stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGHUP, before)
    read_to_progress(process.stderr)
    process.send_signal(signal.SIGHUP)
    for _ in range(3):
        read_to_progress(process.stderr)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "resume with: slimnet train --resume" in errors.splitlines()[-1]
    assert saved_at(folder) > 0


# ---- the handlers


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_unwinds_and_a_second_one_ends_at_once(by, as_before):
    end_on_signals()
    with pytest.raises(Terminated, match=f"ended by {by.name}") as caught:
        signal.raise_signal(by)
    assert caught.value.exit_code == 128 + by
    assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_a_forked_child_ends_by_the_signal_itself(as_before):
    """It has its parent's handlers, but not its parent's work to clean up."""
    end_on_signals()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_only_a_hang_up_stays_ignored(as_before):
    seen: list[int] = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    on_signals((signal.SIGTERM, signal.SIGHUP), lambda number, _: seen.append(number))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.raise_signal(number)
    assert seen == [signal.SIGTERM]
