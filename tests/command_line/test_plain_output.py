"""Pipes, NO_COLOR and TERM=dumb give plain text: no escape sequence in what any command writes."""

import io
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import slimnet_cli
from slimnet_cli.output import phases, terminal


class Terminal(io.StringIO):
    """Claims to be one."""

    def isatty(self) -> bool:
        return True


PLAIN = {
    "a pipe": (io.StringIO, {}),
    "a pipe with FORCE_COLOR": (io.StringIO, {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "CLICOLOR_FORCE": "1"}),
    "NO_COLOR": (Terminal, {"NO_COLOR": "1"}),
    "NO_COLOR with FORCE_COLOR": (Terminal, {"NO_COLOR": "1", "FORCE_COLOR": "1"}),
    "a dumb terminal": (Terminal, {"TERM": "dumb"}),
}
STYLED = {"a terminal": {}, "NO_COLOR without a value": {"NO_COLOR": ""}}


@pytest.fixture
def shown(monkeypatch):
    """What a command, or another function, writes to streams of a class, with progress as soon as there is any."""

    def of(stream: type[io.StringIO], environment: dict[str, str], show) -> str:
        monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 0)
        monkeypatch.setattr(phases, "FIRST_LINE", 0)
        for name, value in {"TERM": "xterm-256color", "COLORTERM": "truecolor", **environment}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.stdout", out := stream())
        monkeypatch.setattr("sys.stderr", err := stream())
        show()
        return out.getvalue() + err.getvalue()

    return of


def in_progress() -> None:
    with terminal.working("Tracing") as say:
        say("layer 3")
    with terminal.progress("Training", 3) as advance:
        advance(1, "loss 0.5")
    with terminal.board("Runs", 3) as board:
        board.show(1, ["a run"])
        board.say("done")
    with phases.progress_of("slim", [phases.Phase("trace"), phases.Phase("cut")]) as phased:
        phased.at(1, 0.5, "cutting")


@pytest.mark.parametrize(("stream", "environment"), PLAIN.values(), ids=PLAIN)
def test_results_errors_and_progress_are_plain(shown, stream, environment, basic):
    """Of commands that open a bundle and draw tables, of one that fails, and of every display of progress."""

    def show() -> None:
        assert slimnet_cli.run(["inspect", str(basic.folder)]) == 0
        assert slimnet_cli.run(["verify", str(basic.folder)]) == 0
        assert slimnet_cli.run(["inspect", "missing.pt"]) == 2
        in_progress()

    text = shown(stream, environment, show)
    assert "error: " in text
    assert "Training" in text
    assert "\x1b" not in text
    assert "\r" not in text


def lines_in_a_file(path: Path, commands: Sequence[Sequence[str]], monkeypatch) -> list[str]:
    """The lines of a file that gets both streams, as of `slimnet ... > FILE 2>&1`, buffered as Python buffers files."""
    monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setattr(phases, "FIRST_LINE", 0)
    with open(path, "w") as file, os.fdopen(os.dup(file.fileno()), "w", buffering=1) as errors:
        monkeypatch.setattr("sys.stdout", file)
        monkeypatch.setattr("sys.stderr", errors)
        for command in commands:
            assert slimnet_cli.run(command) == 0
    return path.read_text(encoding="utf-8").splitlines()


def test_a_file_of_both_streams_has_every_step_and_sentence_in_a_line_of_its_own(tmp_path, monkeypatch, basic):
    """Progress, tables, long sentences and the next step, in the order in which they were written."""
    monkeypatch.chdir(tmp_path)
    forecast = ["reproduce", "table4", "--dry-run", "--scale", "small", "--threads", "1"]
    folder = str(basic.folder)
    written = lines_in_a_file(tmp_path / "log", [forecast, ["inspect", folder], ["verify", folder]], monkeypatch)
    following = [number for number, line in enumerate(written) if "next: " in line]
    assert len(following) == 3
    assert all(written[number].startswith("next: ") for number in following)
    timing = [number for number, line in enumerate(written) if "Timing steps: " in line]
    assert timing
    assert all(written[number].startswith("Timing steps: ") for number in timing)
    assert max(timing) < min(following)
    (needs,) = (line for line in written if line.startswith("CIFAR-100 is not in data"))
    assert needs.endswith("(170 MB)"), "not broken at a width that no file has"


def test_text_in_a_file_is_broken_nowhere_and_in_a_terminal_at_its_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    for stream, lines in ((io.StringIO, 1), (Terminal, 5)):
        monkeypatch.setattr("sys.stdout", out := stream())
        terminal.result().print("word " * 40)
        assert len(out.getvalue().splitlines()) == lines


@pytest.mark.parametrize("name", slimnet_cli.commands.commands)
def test_help_and_misuse_of_every_command_are_plain(shown, name):
    def show() -> None:
        assert slimnet_cli.run([name, "--help"]) == 0
        assert slimnet_cli.run([name, "--no-such-option"]) == 2

    text = shown(Terminal, {"NO_COLOR": "1"}, show)
    assert "Usage: " in text
    assert "\x1b" not in text


@pytest.mark.parametrize("environment", STYLED.values(), ids=STYLED)
def test_a_terminal_has_styles(shown, environment):
    """So that the tests above see what they look for."""
    assert "\x1b[1" in shown(Terminal, environment, lambda: slimnet_cli.run(["inspect", "missing.pt"]))


@pytest.mark.parametrize("plain", [True, False], ids=["NO_COLOR", "styled"])
def test_a_real_terminal_agrees(plain):
    """A process of its own that has a pseudo-terminal for its errors."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": "1" if plain else ""}
    command = [sys.executable, "-m", "slimnet_cli", "inspect", "missing.pt"]
    try:
        code = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment, check=False
        ).returncode
        text = os.read(ours, 10_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert code == 2
    assert text.endswith("\r\n")
    assert ("\x1b" in text) is not plain
