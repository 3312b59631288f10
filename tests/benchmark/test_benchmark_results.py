"""A comparison as data: written and read back, two of several picked, speed-ups set against the work that went."""

import dataclasses
import json

import numpy as np
import pytest
from slimnet_cli.output.comparison_tables import note_doubts

from slimnet.benchmark import (
    Accuracies,
    Comparison,
    Counts,
    Environment,
    Interval,
    Latency,
    LayerTimes,
    Memory,
    Profile,
    labels,
)
from slimnet.benchmark.profile import added, efficiency
from slimnet.errors import UsageError
from slimnet.training import Accuracy

WHERE = Environment("CPU", "AVX2", 2, None, "Linux", "3.12", "2.9", "1.20", "0.1", "2026-01-01 00:00 UTC", "2 GHz")
NAMES = ("dense", "slim", "other")


def samples(*medians: float) -> tuple[tuple[float, ...], ...]:
    times = np.random.default_rng(0).lognormal(0, 0.01, 21)
    return tuple(tuple((median * times / np.median(times)).tolist()) for median in medians)


def comparison() -> Comparison:
    layers = (
        LayerTimes("conv", "conv", (80, 20, None), (*samples(3.0, 1.5), None)),
        LayerTimes("fc", "linear", (20, 20, 5), samples(1.0, 1.0, 0.5)),
        LayerTimes("MaxPool", "other", (0, 0, 0), samples(0.5, 0.25, 0.5)),
    )
    return Comparison(
        counts=(Counts("dense", 90, 100, {"onnx": 7}), Counts("slim", 30, 40, {}), Counts("other", 1, None, {})),
        latencies=(
            Latency("onnxruntime", 8, 1, NAMES, samples(4.0, 2.0, 1.0), "cpu", samples(3.9, 1.9, 0.9), (11, 10), 0.0),
            Latency("torch", 1, 2, NAMES, samples(9.0, 9.0, 9.0), "cuda"),
        ),
        environment=WHERE,
        memories=(Memory("cpu", 8, NAMES, (300, 200, 100)),),
        accuracies=(Accuracies("torch", "digits", NAMES, tuple(Accuracy(0.9, 1.0, 10) for _ in NAMES)),),
        profiles=(Profile("onnxruntime", 8, 1, NAMES, layers),),
    )


def test_a_comparison_is_read_back_as_it_was():
    found = comparison()
    assert Comparison.from_json(found.to_json()) == found
    assert Comparison.from_dict(found.to_dict()) == found


def test_a_comparison_is_a_line_where_python_shows_it_and_a_table_of_words_in_a_notebook():
    """Oracle: the medians above; 100 against 40 MACs, 4 ms against 2."""
    found = comparison()
    assert repr(found).startswith("<Comparison: dense, slim, other; onnxruntime, batch 8, 1 thread: 4.00")
    assert "\n" not in repr(found)
    lines = str(found).splitlines()
    assert lines[0] == "compared with dense:"
    assert lines[1].startswith("  slim: 2.50 × fewer MACs, onnxruntime, batch 8, 1 thread: 2.00")
    assert lines[2].startswith("  other: onnxruntime, batch 8, 1 thread: 4.00")
    assert found._repr_html_().startswith("<pre>compared with dense:\n  slim: ")


def test_an_older_document_without_memory_accuracy_and_layers_is_read():
    document = comparison().to_dict()
    for name in ("memories", "accuracies", "profiles"):
        del document[name]
    del document["environment"]["clock"], document["latencies"][0]["device"]
    for name in ("cpu_ms", "sittings", "overload"):
        del document["latencies"][0][name]
    found = Comparison.from_dict(document)
    bare = dataclasses.replace(comparison().latencies[0], cpu_ms=None, sittings=(), overload=None)
    assert found.latencies == (bare, comparison().latencies[1])
    assert found.latencies[0].cpu_speedup() is None
    assert found.latencies[0].sitting_speedups() == ()
    assert (found.memories, found.profiles) == ((), ())


def broken() -> list:
    def without(*path):
        document = json.loads(comparison().to_json())
        *way, last = path
        place = document
        for step in way:
            place = place[step]
        del place[last]
        return document

    uneven = json.loads(comparison().to_json())
    uneven["profiles"][0]["rows"][0]["samples_ms"][1].append(1.0)
    return [
        pytest.param(uneven, id="a layer with more rounds in one contender"),
        pytest.param(without("counts"), id="no counts"),
        pytest.param(without("latencies", 0, "samples_ms"), id="no samples"),
        pytest.param(without("latencies", 0, "samples_ms", 1), id="a contender without samples"),
        pytest.param(without("latencies", 0, "names", 1), id="a name too few"),
        pytest.param(without("profiles", 0, "rows", 0, "macs", 0), id="a layer without MACs"),
        pytest.param(without("environment", "cpu"), id="no processor"),
        pytest.param([], id="a list"),
        pytest.param({"counts": 3}, id="a number"),
    ]


@pytest.mark.parametrize("document", broken())
def test_what_is_no_comparison_is_refused_in_one_line(document):
    with pytest.raises(UsageError, match=r"a result of slimnet benchmark --json.* measure again$") as refusal:
        Comparison.from_dict(document)
    assert "\n" not in str(refusal.value)


def test_what_is_not_json_is_refused():
    with pytest.raises(UsageError, match="not JSON"):
        Comparison.from_json("{")


def test_efficiency_is_the_speedup_over_the_macs_reduction():
    """Oracle: 100 MACs became 40, which is 2.5 times fewer, and 4 ms became 2."""
    found = comparison()
    assert found.macs_reduction(1) == 2.5
    assert found.efficiency(found.latencies[0], 1).value == pytest.approx(2 / 2.5)
    assert found.efficiency(found.latencies[0]) is None, "the last contender's MACs are not known"
    row = found.to_dict()["latencies"][0]
    assert row["efficiency"][1]["value"] == pytest.approx(0.8)
    assert row["efficiency"][2] is None
    assert row["cpu_speedup"][1]["value"] == pytest.approx(3.9 / 1.9)
    assert row["sitting_speedups"][1] == pytest.approx([2, 2])
    assert row["speedup"][1]["doubt"] == ""
    assert row["images_per_second"][:2] == pytest.approx([2000, 4000])


def test_what_other_programs_made_unmeasurable_is_said_once():
    """Oracle: by hand. Half of the CPU time is half of the time taken by others."""
    found = comparison()
    assert found.doubts == ()
    busy = dataclasses.replace(found.latencies[0], cpu_ms=samples(2.0, 1.0, 0.5))
    doubtful = dataclasses.replace(found, latencies=(busy, found.latencies[1]))
    assert doubtful.doubts == (
        "onnxruntime, batch 8, 1 thread is not measurable on this busy machine: other programs took 50 % of the time",
    )
    assert "faster" not in doubtful.summary.partition(";")[2].partition(";")[0]
    assert Comparison.from_json(doubtful.to_json()) == doubtful


@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_the_cpu_time_is_recommended_only_where_it_can_be_compared(spread, capsys):
    """Others took half of the time; where the CPU times vary threefold as well, the note is not given."""
    found = comparison()
    factors = spread ** np.random.default_rng(1).uniform(-1, 1, (3, 21))
    varied = tuple(map(tuple, (factors * samples(2.0, 1.0, 0.5)).tolist()))
    busy = dataclasses.replace(found.latencies[0], cpu_ms=varied, samples_ms=samples(8.0, 4.0, 2.0))
    note_doubts(dataclasses.replace(found, latencies=(busy,)))
    said = capsys.readouterr().err
    assert "other programs took" in said
    assert ("the CPU time, which can be compared now" in said) == (not busy.cpu_speedup(1).doubt) == (spread == 1.0)


def test_efficiency_keeps_what_the_interval_says():
    assert efficiency(Interval(1.0, 1.5, 3.0), 2.0) == Interval(0.5, 0.75, 1.5)
    assert efficiency(None, 2.0) is efficiency(Interval(1.0, 1.5, 3.0), None) is None


def test_a_layer_tells_where_work_became_time_and_where_not():
    """Oracle: by hand. A quarter of the MACs in half the time is 0.5; the same MACs have none."""
    (profile,) = comparison().profiles
    conv, fc = profile.layers
    assert conv.efficiency(1).value == pytest.approx(0.5)
    assert (conv.macs_reduction(1), fc.macs_reduction(1)) == (4, 1)
    assert fc.efficiency(1) is None, "no work was saved that time could follow"
    assert conv.speedup() is conv.median_ms(-1) is None
    (pool,) = profile.others
    assert pool.efficiency(1) is None
    assert pool.speedup(1).value == pytest.approx(2)
    assert profile.total_ms(0) == pytest.approx(4.5)
    assert profile.total_ms(1, profile.layers) == pytest.approx(2.5)
    convolutions, linear, rest = profile.sums
    assert (convolutions.name, convolutions.macs, convolutions.samples_ms) == (
        "all convolutions",
        conv.macs,
        conv.samples_ms,
    )
    assert (linear.median_ms(1), rest.median_ms(0)) == (fc.median_ms(1), pool.median_ms(0))


def test_rows_of_a_kind_are_added_round_by_round():
    """Oracle: by hand. The second contender lacks a layer, the third's MACs are not known."""
    rows = [
        LayerTimes("a", "conv", (5, 3, 2), ((1.0, 2.0), (1.0, 1.0), (4.0, 4.0))),
        LayerTimes("b", "conv", (7, None, None), ((10.0, 30.0), None, (1.0, 2.0))),
    ]
    found = added("conv", rows)
    assert found.macs == (12, 3, None)
    assert found.samples_ms == ((11.0, 32.0), (1.0, 1.0), (5.0, 6.0))
    assert added("conv", [LayerTimes("b", "conv", (7, None), ((1.0,), None))]).samples_ms == ((1.0,), None)


def test_a_pair_is_the_comparison_of_those_two():
    found = comparison().pair(2)
    assert found.names == ("dense", "other")
    assert found.latencies[0].names == ("dense", "other")
    assert found.latencies[0].speedup().value == pytest.approx(4)
    assert found.memories[0].peak_bytes == (300, 100)
    assert found.profiles[0].rows[0].samples_ms[1] is None
    assert Comparison.from_dict(found.to_dict()) == found


def test_labels_name_the_device_and_several_thread_counts():
    one, other = comparison().latencies
    assert labels([one, other]) == ["onnxruntime, batch 8, 1 thread", "torch on cuda, batch 1, 2 threads"]
    assert labels([one]) == ["onnxruntime, batch 8"]


def test_the_environment_shows_a_gpu_only_where_one_was_used():
    assert ("Clock", "2 GHz") in WHERE.rows()
    assert not any("GPU" in name for name, _ in WHERE.rows())
    there = dataclasses.replace(WHERE, gpu="H100", driver="driver 1")
    assert {"GPU": "H100", "GPU's driver and clocks": "driver 1"}.items() <= dict(there.rows()).items()
