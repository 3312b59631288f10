"""What is shown of work that is under way: how much is done and the time left first, then figures."""

import io
import re

import pytest
from rich.console import Console
from slimnet_cli.output import terminal

STATUS = "epoch 2.3, loss 0.500, accuracy 25 %, 12 % of the filters dead, 9 channels removed, 40 % of the MACs left"


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test sets it."""
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("seconds", "left"), [(1.0, "under a minute left"), (60.0, "2 min left"), (3000.0, "1 h 40 min left")]
)
def test_the_time_left_goes_by_the_pace_so_far(seconds, left, clock):
    """By hand: 20 steps took so long, and 40 are left; nothing is known at the first look, nor left at the end."""
    pace = terminal.Pace(80)
    assert pace.left(20) == ""
    clock[0] = seconds
    assert pace.left(20) == ""
    assert pace.left(40) == left
    assert pace.left(80) == ""


def test_a_file_gets_what_is_done_and_left_before_the_figures(clock, capsys):
    with terminal.progress("Training", 100) as advance:
        for done, now in ((20, 10.0), (40, 90.0)):
            clock[0] = now
            advance(done, STATUS)
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"Training: 20/100, {STATUS}"
    # 20 steps took 80 seconds, so the other 60 take four minutes.
    assert second == f"Training: 40/100, 4 min left, {STATUS}"
    assert second[:80].startswith("Training: 40/100, 4 min left, epoch 2.3, loss 0.500, accuracy 25 %, 12 % of")


@pytest.mark.parametrize("width", [120, 80, 50, 36])
def test_a_terminal_shows_total_bar_and_time_first_and_breaks_no_figure(width, monkeypatch):
    """However narrow. Oracle: the lines that rich wrote."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(terminal, "notes", lambda: console)
    with terminal.progress("Training", 406_250) as advance:
        advance(120_000, STATUS)
    shown = re.sub(r"\x1b\[[0-9?]*[a-zA-Z]", "\n", output.getvalue())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", shown) if line.strip()]
    bar = next(number for number, line in enumerate(lines) if "120000/406250" in line)
    assert re.search(r"Training 120000/406250 ━+╸? *[-\d:]+$", lines[bar])
    figures = [figure for line in lines[bar + 1 :] for figure in line.rstrip(",").split(", ")]
    assert figures == STATUS.split(", ")
    assert max(map(len, lines)) <= width


def test_a_figure_wider_than_the_terminal_is_left_to_it():
    assert terminal.in_lines("loss 0.5, a very long figure", 12) == "loss 0.5,\na very long figure"
    assert terminal.in_lines("", 12) == ""
