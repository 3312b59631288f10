"""slimnet benchmark on ONNX files, which need no export: the tables, the names, and what is refused."""

import importlib
import json
import time
from pathlib import Path

import click
import pytest
import slimnet_cli
import torch
from bundles import onnx_file
from slimnet_cli.options.contenders import named
from slimnet_cli.output.comparison_tables import less

from slimnet.benchmark import Comparison, onnx_macs, usable_cores

QUICK = ["--seconds", "0.02", "--batch", "1", "--threads", "1"]


@pytest.fixture(scope="module")
def net(tmp_path_factory) -> str:
    return str(onnx_file(tmp_path_factory.mktemp("onnx") / "net.onnx"))


def shown(path: str) -> str:
    """How two files of one name are distinguished: by their folder, whose number pytest chooses."""
    return "/".join(Path(path).parts[-2:])


def run(*arguments: str) -> int:
    return slimnet_cli.run(["benchmark", *arguments])


def test_two_networks_have_a_column_for_what_changed(net, capsys):
    assert run(net, net, *QUICK) == 0
    lines = capsys.readouterr().out.splitlines()
    macs = f"{onnx_macs(net):,}"
    assert lines[0].split() == [shown(net), shown(net), "(2)"]
    assert [line.split() for line in lines if line.startswith("multiply")] == [
        ["multiply-accumulates", macs, macs, "unchanged"]
    ]
    (latency,) = [line for line in lines if line.startswith("onnxruntime, batch 1 ")]
    assert "/s" in latency
    assert "efficiency" not in latency, "no work was saved that time could follow"


def test_a_busy_machine_is_called_so_and_cpu_time_shown(net, capsys, monkeypatch):
    """One thread that worked a twentieth of the time: no speed-up by the clock in the table, in JSON, or in a note."""
    measuring = importlib.import_module("slimnet.benchmark.compare")
    monkeypatch.setattr(measuring, "cpu_clock", lambda: lambda: 0.05 * time.perf_counter())
    assert run(f"a={net}", f"b={net}", *QUICK, "--runtime", "onnxruntime") == 0
    printed = capsys.readouterr()
    (latency,) = [line for line in printed.out.splitlines() if line.startswith("onnxruntime, batch 1 ")]
    assert "not measurable on this busy machine" in latency
    assert any(line.startswith("  CPU time ") for line in printed.out.splitlines())
    assert any(line.startswith("  in each sitting ") for line in printed.out.splitlines())
    assert "not measurable on this busy machine: other programs took 9" in printed.err
    assert "measure again while nothing else runs" in printed.err
    assert run(f"a={net}", f"b={net}", *QUICK, "--runtime", "onnxruntime", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["latencies"]
    assert row["speedup"][1]["doubt"].startswith("other programs took 9")
    assert row["cpu_speedup"][1]["value"] > 0


def test_more_networks_have_a_column_each(net, capsys):
    assert run(f"a={net}", f"b={net}", net, *QUICK) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["a", "b", "net.onnx"]
    assert "unchanged" in lines[2]


def test_layers_are_shown_with_what_became_of_their_work(net, capsys):
    assert run(net, net, *QUICK, "--layers") == 0
    text = capsys.readouterr().out
    assert f"Every layer of {shown(net)} and {shown(net)} (2) on onnxruntime, batch 1, 1 thread" in text
    table = text.split("Every layer")[1].splitlines()
    assert [line.split()[0] for line in table if line[:2] in ("a ", "c ", "e ", "f ")] == ["a", "c", "e", "f"]
    shares = [line.partition(":")[0] for line in table if "of the time" in line]
    assert shares == ["all convolutions", "all linear layers", "everything else"]


def test_a_report_of_several_files_is_about_what_was_measured(net, tmp_path, capsys):
    page = tmp_path / "report.html"
    assert run(f"a={net}", f"b={net}", f"c={net}", *QUICK, "--report", str(page)) == 0
    assert str(page) in capsys.readouterr().err.replace("\n", "")
    assert "onnxruntime, batch 1" in page.read_text(encoding="utf-8")


def test_machines_get_a_comparison_that_can_be_read_back(net, capsys):
    assert run(net, net, *QUICK, "--threads", "1,all", "--runtime", "onnxruntime", "--json") == 0
    comparison = Comparison.from_dict(json.loads(capsys.readouterr().out))
    assert [latency.threads for latency in comparison.latencies] == sorted({1, usable_cores()})
    assert comparison.names == (shown(net), f"{shown(net)} (2)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threads", "0"], "positive whole numbers, or all"),
        (["--threads", "1,two"], "positive whole numbers, or all"),
        (["--threads", "100000"], "threads are more than the"),
        (["--batch", "0"], "positive whole numbers"),
        (["--batch", ""], "positive whole numbers"),
        (["--seconds", "0"], "must be positive"),
        (["--seconds", "nan"], "must be positive"),
        (["--runtime", "onnx"], "did you mean onnxruntime"),
        (["--runtime", "torch"], "net.onnx is an ONNX file alone"),
        (["--device", "npu"], "cpu, cuda and cuda:N"),
        (["--report", "nowhere/r.html"], "no folder nowhere"),
        (["--data", "digits"], "net.onnx does not take the images of digits"),
        (["--data", "nothing"], "no data set"),
        pytest.param(
            ["--device", "cuda"],
            "no cuda here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(net, options, message, capsys):
    assert run(net, net, *QUICK, *options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert message in captured.err


def test_one_network_is_not_enough(net, capsys):
    assert run(net) == 2
    assert "at least two" in capsys.readouterr().err


def test_networks_are_named_by_the_user_or_by_their_files(tmp_path):
    assert named(["x/a.pt", "b=c/d"]) == [("a.pt", "x/a.pt"), ("b", "c/d")]
    assert [name for name, _ in named(["slim/", "half/"])] == ["slim", "half"]
    assert [name for name, _ in named(["x/slim", "y/slim", "slim=z"])] == ["x/slim", "y/slim", "slim"]
    assert [name for name, _ in named(["x/a", "x/a", "x/a"])] == ["x/a", "x/a (2)", "x/a (3)"]
    assert [name for name, _ in named(["x/a.pt", "runs/slim", "runs/li/model.onnx"])] == ["a.pt", "slim", "li"]
    (tmp_path / "p=q").mkdir()
    assert named([f"{tmp_path}/p=q", "b"])[0] == ("p=q", f"{tmp_path}/p=q")
    with pytest.raises(click.UsageError, match="two networks are called a"):
        named(["a=1", "a=2", "c"])


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [(100, 40, "60 % less, 2.50 × fewer"), (100, 100, "unchanged"), (40, 100, "150 % more"), (10, 0, "100 % less")],
)
def test_changes_in_words(before, after, words):
    assert less(before, after, fewer=True).replace("\u202f", " ") == words
