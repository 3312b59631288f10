"""What the terminal says of a run that removes dead filters: the time of a step as it trains, and what it has saved."""

import dataclasses
import io

import pytest
from rich.console import Console
from slimnet_cli.commands.train import saved_in_words
from slimnet_cli.output import terminal
from slimnet_cli.progress.live_run import StepTime, watch

from slimnet.training import Progress
from slimnet.training.run.savings import Savings


def reports(milliseconds: list[float], start: int = 0, seconds: float = 0.0) -> list[Progress]:
    """A report every ten iterations whose steps took so long, from the second on; filters are removed half way."""
    found = []
    for number, each in enumerate(milliseconds, 1):
        seconds += each / 100
        left = 400 if 2 * number > len(milliseconds) else None
        macs = None if left is None else 1000
        removed = None if left is None else 9
        iteration = start + 10 * number
        found.append(
            Progress(iteration, 1000, 1.5, 0.5, 0.1, seconds, macs=macs, macs_left=left, channels_removed=removed)
        )
    return found


def test_the_time_of_a_step_is_that_of_the_last_reports_against_the_first():
    """Medians: a pause of the machine in either is not shown."""
    steps = StepTime()
    assert str(steps) == ""
    for report in reports([7] + [240] * 9 + [900] + [60] * 20 + [43] * 9 + [500]):
        steps.add(report)
    assert str(steps) == ", 43 ms a step (240 at first)"


def test_a_resumed_run_remembers_its_first_steps():
    """And does not take the gap between them and its own for a step."""
    steps = StepTime(reports([240] * 11))
    assert str(steps) == ""
    for report in reports([43] * 3, start=700, seconds=9999.0):
        steps.add(report)
    assert str(steps) == ", 43 ms a step (240 at first)"


class Trained(list):
    """Reports, as of a run."""

    class recipe:
        iterations = 1000


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_the_whole_status_below_its_bar(width, monkeypatch):
    """At 80 columns as well. Oracle: the words that rich wrote, whatever line they are in."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(terminal, "notes", lambda: console)
    watch(Trained(reports([240] * 20 + [43] * 20)))
    shown = output.getvalue()
    assert "9 channels removed, 40 % of the MACs left, 43 ms a step (240 at first)" in " ".join(shown.split())
    assert "400/1000" in shown
    assert "…" not in shown


def test_lines_say_what_was_saved_and_fit_into_80_columns():
    savings = Savings.of(reports([240] * 50 + [43] * 50))
    assert savings == Savings(9, 1000, 400, pytest.approx(240), pytest.approx(43))
    lines = saved_in_words(savings)
    assert max(map(len, lines)) < 80
    assert lines == [
        "9 channels removed in training, 40 % of the MACs left",
        "a step took 43 ms at the end, 240 ms at first",
    ]
    shadowed = [dataclasses.replace(each, revived=12, revived_alive=3) for each in reports([240] * 5)]
    line = saved_in_words(Savings.of(shadowed))[-1]
    assert line == "12 removed channels came back in the dense run beside it, 3 alive at its end"
    assert len(line) < 80
    assert Savings.of(reports([240])[:0]) is None
    assert Savings.of(reports([240] * 3)[:1]) is None
    assert saved_in_words(None) == []
    assert saved_in_words(Savings.of(reports([240])[-1:]))[1:] == []
