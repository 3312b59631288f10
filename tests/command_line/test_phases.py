"""The progress of named phases, by a clock of our own: shares, time left, and lines in a file."""

import io
import json

import pytest
import slimnet_cli
import torch
from bundles import onnx_file
from rich.console import Console
from slimnet_cli.output import phases, terminal
from slimnet_cli.output.export_phases import export_phases, int8_phases
from slimnet_cli.output.phases import Phase, TimeLeft, line, progress_of
from slimnet_cli.output.slimming_phases import slimming_phases

import slimnet
from slimnet.bundle.bundle import SAVING
from slimnet.pipeline import CERTIFYING, SEARCHING


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_phases_of_known_length_are_known_from_the_start():
    """Oracle: by hand. 10 s and 30 s, of which 4 s have passed."""
    clock = Clock()
    left = TimeLeft([Phase("a", 10.0), Phase("b", 30.0)], clock)
    clock.now = 4.0
    left.at(0)
    assert (left.left, left.done) == (36.0, 0.1)
    clock.now = 12.0
    left.at(1)
    assert left.left == 30.0


def test_the_share_of_a_phase_says_how_long_it_takes():
    """Oracle: by hand. A quarter of a phase took 20 s, so the phase takes 80 s, and another of its kind as long."""
    clock = Clock()
    left = TimeLeft([Phase("accuracy of a"), Phase("accuracy of b"), Phase("latency", 5.0)], clock)
    clock.now = 1.0
    left.at(0)
    assert (left.left, left.done) == (None, None), "nothing is known of the passes yet"
    clock.now = 20.0
    left.at(0, 0.25)
    assert left.left == pytest.approx(60 + 80 + 5)
    clock.now = 80.0
    left.at(1)
    assert left.left == pytest.approx(80 + 5)
    clock.now = 100.0
    left.at(1, 0.5)
    assert left.left == pytest.approx(20 + 5), "the second one is quicker"


def test_phases_take_in_proportion_to_their_weight():
    """Oracle: by hand. A weight of 1 took 3 s, so one of 4 takes 12; of what takes longer the end is not known."""
    clock = Clock()
    left = TimeLeft([Phase("plan"), Phase("exports", weight=4.0)], clock)
    clock.now = 3.0
    left.at(1)
    assert left.left == pytest.approx(12)
    clock.now = 100.0
    assert (left.left, left.done) == (None, None)


def test_a_short_first_phase_says_nothing_of_long_ones():
    """Oracle: by hand. 1 of 101 is known, then a quarter of 100 took 50 s, so that the rest takes 150."""
    clock = Clock()
    left = TimeLeft([Phase("reading"), Phase("exporting", weight=60.0), Phase("comparing", weight=40.0)], clock)
    clock.now = 4.0
    left.at(1)
    assert line("Exporting", left) == "Exporting: 2/3, exporting"
    clock.now = 54.0
    left.at(1, 0.5)
    assert left.left == pytest.approx(50 + (4 + 50) / (1 + 30) * 40)


def test_what_takes_longer_than_expected_takes_no_time_from_later_phases():
    """Oracle: by hand. 20 s are known for the second one, however long the first one takes."""
    clock = Clock()
    left = TimeLeft([Phase("a", 10.0), Phase("b", 20.0)], clock)
    clock.now = 25.0
    assert left.left == 20.0


def test_all_is_done_only_at_the_end():
    """100 % and no time left are said when the last phase is done, and never before."""
    clock = Clock()
    left = TimeLeft([Phase("a"), Phase("b", weight=0.001)], clock)
    clock.now = 50.0
    left.at(0, 1.0)
    assert line("Work", left) == "Work: 1/2, 99 %, a 100 %"
    left.at(1, 0.5)
    assert line("Work", left).startswith("Work: 2/2, 99 %, b 50 %")
    left.at(1, 1.0)
    assert line("Work", left) == "Work: 2/2, 100 %, b 100 %"


def test_a_line_has_one_time_that_is_left():
    clock, shown = Clock(), []
    left = TimeLeft([Phase("fitting"), Phase("exports")], clock)
    progress = phases.PhaseProgress(left, lambda note: shown.append(line("Slimming", left, note)))
    clock.now = 60.0
    progress.telling("making images", "steps")(12, 200)
    progress.counting("fitting", "fitting weights", "layers")(6, 9)
    assert shown[0] == "Slimming: 1/2, fitting, making images: 12 of 200 steps"
    assert shown[1] == "Slimming: 1/2, 33 %, 2 min 0 s left, fitting 67 %, fitting weights: 6 of 9 layers"


def test_a_line_begins_with_what_matters_at_80_columns():
    clock = Clock()
    left = TimeLeft([Phase("accuracy of dense by torch"), Phase("latency on onnxruntime, batch 32", 4.0)], clock)
    clock.now = 90.0
    left.at(0, 0.5)
    assert line("Measuring", left, "5,000 of 10,000 images") == (
        "Measuring: 1/2, 49 %, 1 min 34 s left, accuracy of dense by torch 50 %, 5,000 of 10,000 images"
    )
    assert len(line("Measuring", left).partition(", accuracy")[0]) < 40


def test_lines_in_a_file_come_after_two_seconds_and_with_each_phase(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(phases.time, "monotonic", clock)
    monkeypatch.setattr(phases, "FIRST_LINE", 2.0)
    with progress_of("Work", [Phase("a", 20.0), Phase("b", 20.0)]) as progress:
        for second in range(40):
            clock.now = second + 0.5
            progress.at(second // 20, (clock.now % 20) / 20)
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert printed.out == ""
    assert lines[0] == "Work: 1/2, 6 %, 38 s left, a 12 %"
    assert [each.split(",")[0] for each in lines] == ["Work: 1/2"] * 2 + ["Work: 2/2"] * 2
    assert lines[-1].endswith("b 52 %")


def test_short_work_says_nothing(capsys, monkeypatch):
    monkeypatch.setattr(phases.time, "monotonic", Clock())
    monkeypatch.setattr(phases, "FIRST_LINE", 2.0)
    with progress_of("Work", [Phase("a"), Phase("b")]) as progress:
        progress.at(0, 0.5)
        progress.begin("b")
        progress.counting("b")(3, 4)
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_the_bar_and_the_phase(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        terminal, "notes", lambda: Console(file=screen, force_terminal=True, width=80, color_system=None)
    )
    with progress_of("Measuring", [Phase("accuracy of dense by torch", 60.0), Phase("b", 20.0)]) as progress:
        progress.at(0, 0.25, "512 of 2,048 images")
    shown = screen.getvalue()
    assert "Measuring 1/2" in shown
    assert "left" in shown
    assert "accuracy of dense by torch 25 %, 512 of 2,048 images" in shown


@pytest.mark.parametrize("images", [0, 1000])
def test_slim_has_a_phase_for_each_step_of_the_library(images):
    """Oracle: the names that the library reports; widths that are measured take longer."""
    given = {"refit": False, "latency": False, "images": images}
    plain = slimming_phases(widths=False, budget=False, **given)
    assert [each.name for each in plain] == ["reading", SEARCHING, CERTIFYING, *SAVING]
    assert slimming_phases(widths=True, budget=False, **given)[1].weight > plain[1].weight
    names = [each.name for each in slimming_phases(widths=False, budget=True, **given | {"latency": True})]
    assert names[1:3] == ["choosing channels", "correcting and cutting"]
    assert "measuring the latency" in names
    assert ("accuracy of the dense network" in names) == (images > 0)


def test_the_steps_of_the_library_are_phases_and_their_batches_are_not():
    shown: list[tuple[int, str]] = []
    left = TimeLeft([Phase("a"), Phase("b")], Clock())
    progress = phases.PhaseProgress(left, lambda note: shown.append((left.number, note)))
    progress.step(0, 2, "a")
    progress.step(0, 2, "a, batch 1")
    progress.counting("a")(1, 2)
    progress.step(1, 2, "a")
    assert left.share == 0.5, "the end of a step does not begin it again"
    progress.step(1, 2, "b")
    assert (left.number, left.share) == (1, 0.0)
    progress.say("12 of 55 layers")
    assert shown == [(0, ""), (0, "1 of 2 images"), (0, ""), (1, ""), (1, "12 of 55 layers")]


def test_benchmark_names_what_it_measures_and_keeps_results_clean(tmp_path, capsys, monkeypatch):
    """Each line is due at once; progress is on stderr, and stdout is one JSON document."""
    monkeypatch.setattr(phases, "FIRST_LINE", 0.0)
    monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 0.0)
    net = str(onnx_file(tmp_path / "net.onnx"))
    quick = ["--seconds", "0.05", "--batch", "1", "--threads", "1", "--runtime", "onnxruntime", "--layers", "--json"]
    assert slimnet_cli.run(["benchmark", f"a={net}", f"b={net}", *quick]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["latencies"]
    assert "Measuring: 1/2, " in printed.err
    assert "latency on onnxruntime, batch 1, 1 thread" in printed.err
    assert "Measuring: 2/2, " in printed.err
    assert "layers on onnxruntime, batch 1, 1 thread" in printed.err


def test_an_export_has_its_phases(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(phases, "FIRST_LINE", 0.0)
    torch.save(slimnet.build("resnet20").state_dict(), tmp_path / "net.pt")
    line = ["export", str(tmp_path / "net.pt"), "--arch", "resnet20", "-o", str(tmp_path / "net.pt2")]
    assert slimnet_cli.run(line) == 0
    shown = [each for each in capsys.readouterr().err.splitlines() if each.startswith("Exporting: ")]
    names = dict.fromkeys(each.rpartition(", ")[2] for each in shown)
    assert list(names) == [each.name for each in export_phases()]


def test_an_export_in_int8_has_phases_for_each_network():
    names = [each.name for each in int8_phases(["dense", "slim"], 100)]
    assert names[1:] == ["exporting dense", "quantising dense", "exporting slim", "quantising slim", "measuring"]
