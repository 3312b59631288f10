"""The default of `slimnet slim`, on each runtime: is the slim network ever slower than the dense one?

The networks, images and dead channels are those of latency.py. In each place three networks take turns: the dense one,
the one without any removable channel (`--round none`), and the one with the removable channels without which it is no
faster by the runtime's kernels (`--round fast:RUNTIME`; for onnxruntime that is the default), whose times are measured
once on the machine. Every place is measured twice, one after the other: the second measurement shows whether the
interval of the first one holds. On one thread times are CPU times where other programs disturb those of the clock.

    python benchmarks/never_slower.py --folder DIR --prepare [NAME ...]    # whatever else runs
    python benchmarks/never_slower.py --folder DIR [--threads 1] [--runtime onnxruntime ...] [NAME ...]
    python benchmarks/never_slower.py --published bench.json
    python benchmarks/never_slower.py --table

The third adds what `slimnet benchmark DENSE none fast auto --json > bench.json` measured of a published network. The
first writes all networks into DIR, the second measures them. What is already in DIR or in the output file is not
made again, so that an interrupted run goes on where it was.
"""

import argparse
import functools
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import torch
from latency import DEAD, NETWORKS, SIDE, kill, place, write
from machines import describe_machine
from torch import nn
from zoo import images, network, outputs, relative

import slimnet
from slimnet.benchmark import Contender, Interval, Latency, Settings, environment, macs, measure
from slimnet.benchmark.runtimes.table import find_runtime
from slimnet.compat import torchvision
from slimnet.kernel_widths.fast_widths import FastWidths
from slimnet.planning.width_prices import PriceCurve

RUNTIMES = ("onnxruntime", "openvino", "torch", "ncnn", "executorch")
DENSE, NONE = "dense", "none"
FACTS = "facts.json"
SHOWN_WIDTHS = (49, 52, 56, 57, 60, 62, 63)
"""The widths of the table of kernels, next to 64."""


def fast(runtime: str) -> str:
    """The name of the network whose widths are fast under a runtime."""
    return f"fast:{runtime}"


def prepare(name: str, dead: int, folder: Path, runtimes: tuple[str, ...]) -> None:
    """Write the networks of one cell into a folder, as far as they are missing, with what is known of them."""
    inputs, fresh = images("", 1, SIDE), images("", 2, SIDE // 2)
    dense = network(name)
    kill(dense, dead / 100)
    folder.mkdir(parents=True, exist_ok=True)
    facts = json.loads((folder / FACTS).read_text()) if (folder / FACTS).exists() else {}
    expected = outputs(dense, fresh)
    for each in (DENSE, NONE, *map(fast, runtimes)):
        if each in facts:
            continue
        model: nn.Module = dense
        kept = 0
        if each != DENSE:
            slimmed = slimnet.slim(dense, inputs, round_to=None if each == NONE else each)
            model, kept = slimmed.model, slimmed.plan.kept_for_speed
        forms = forms_of(each)
        if "onnx" in forms:
            slimnet.export_onnx(model, inputs, folder / f"{each}.onnx")
        if "module" in forms:
            torch.save(model, folder / f"{each}.pt")
        facts[each] = {"macs": macs(model, inputs), "error": relative(expected, outputs(model, fresh)), "kept": kept}
        write(folder / FACTS, facts)


def forms_of(name: str) -> set[str]:
    """The forms in which a network is stored: that of its runtime, and for those of every runtime both."""
    of = {fast(runtime): find_runtime(runtime).needs for runtime in RUNTIMES}
    return {of[name]} if name in of else {"onnx", "module"}


def contenders_of(folder: Path, runtime: str) -> list[Contender]:
    """The dense network, the smallest one and the fast one, as a runtime takes them."""
    names = (DENSE, NONE, fast(runtime))
    if find_runtime(runtime).needs == "onnx":
        return [Contender(name, onnx=folder / f"{name}.onnx") for name in names]
    torchvision()  # before its classes are loaded, which needs it whole
    return [Contender(name, torch.load(folder / f"{name}.pt", weights_only=False)) for name in names]


def timed(contenders: list[Contender], settings: Settings) -> dict[str, Any]:
    """One measurement of all three: medians in milliseconds, and how many times faster than dense, with intervals."""
    (latency,) = measure(contenders, images("", 1, SIDE), settings)
    return {
        "dense_ms": round(latency.median_ms(0), 3),
        "rounds": len(latency.samples_ms[0]),
        **{name: of_interval(latency, number) for number, name in ((1, NONE), (2, "fast"))},
    }


def of_interval(latency: Latency, number: int) -> dict[str, Any]:
    """The speed-up of a network over the dense one."""
    found: Interval = latency.reliable_speedup(number)
    rounded = {key: round(getattr(found, key), 4) for key in ("value", "low", "high")}
    return rounded | {"by_clock": latency.speedup(number).doubt == "", "doubt": found.doubt}


def speedup(measured: Mapping[str, Any]) -> str:
    """A speed-up with its interval."""
    return f"{measured['value']:.2f} ({measured['low']:.2f} to {measured['high']:.2f})"


def is_slower(measured: Mapping[str, Any]) -> bool:
    """Whether a network is surely slower than the dense one."""
    return bool(measured["high"] < 1)


def cells_at(results: Mapping[str, Any], where: str) -> Iterator[tuple[str, Mapping[str, Any], list[Any]]]:
    """The cells that were measured in a place: name, facts and measurements."""
    for key, cell in sorted(results["cells"].items()):
        if where in cell["places"]:
            yield key, cell["facts"], cell["places"][where]


def line(key: str, facts: Mapping[str, Any], runtime: str, measured: list[Any]) -> str:
    """One network in one place."""
    first, second = measured
    work = {name: facts[DENSE]["macs"] / facts[name]["macs"] for name in (NONE, fast(runtime))}
    cells = (
        key,
        f"{first['dense_ms']:.1f}",
        f"{work[NONE]:.2f}",
        speedup(first[NONE]),
        f"{facts[fast(runtime)]['kept']:,}",
        f"{work[fast(runtime)]:.2f}",
        speedup(first["fast"]),
        speedup(second["fast"]),
        f"{efficiency(facts, runtime, measured):.2f}",
    )
    return "| " + " | ".join(cells) + " |"


def efficiency(facts: Mapping[str, Any], runtime: str, measured: list[Any]) -> float:
    """The speed-up of the fast network, in the mean of both measurements, over its MACs reduction."""
    value = statistics.fmean(each["fast"]["value"] for each in measured)
    return float(value * facts[fast(runtime)]["macs"] / facts[DENSE]["macs"])


def count_slower(rows: Sequence[list[Any]], name: str) -> int:
    """In how many places a network is surely slower than the dense one, both times."""
    return sum(all(is_slower(each[name]) for each in row) for row in rows)


def overlap(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether two intervals have something in common."""
    return max(one["low"], other["low"]) <= min(one["high"], other["high"])


def summary(results: Mapping[str, Any], where: str) -> str:
    """How many cells are slower than dense in a place, both times, and with which efficiency."""
    runtime = where.partition(",")[0]
    found = list(cells_at(results, where))
    rows = [row for *_, row in found]
    slower = {name: count_slower(rows, name) for name in (NONE, "fast")}
    hold = sum(overlap(row[0]["fast"], row[1]["fast"]) for *_, row in found)
    median = statistics.median(efficiency(facts, runtime, row) for _, facts, row in found)
    return f"| {where} | {len(found)} | {slower[NONE]} | {slower['fast']} | {median:.2f} | {hold} |"


def kernels(prices: Mapping[str, Any]) -> list[str]:
    """The time of a 3×3 convolution by its width, over that at 64 channels, on each runtime."""
    lines = [
        "3×3 convolutions between a width and 64 channels, 14×14 pixels: their time over that of the width 64.",
        "",
        f"| runtime | {' | '.join(map(str, SHOWN_WIDTHS))} |",
        "|---|" + "--:|" * len(SHOWN_WIDTHS),
    ]
    for runtime, each in prices.items():
        curve = PriceCurve(tuple(each["spatial"]["widths"]), tuple(each["spatial"]["prices"]))
        times = [width * price for width, price in enumerate(curve.up_to(64))]
        lines.append(f"| {runtime} | " + " | ".join(f"{times[width] / times[64]:.2f}" for width in SHOWN_WIDTHS) + " |")
    return [*lines, ""]


def of_published(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the table shows of a comparison by `slimnet benchmark --json`."""
    # A list: the keys of an object are stored in alphabetical order.
    macs_of = [(each["name"], each["macs"]) for each in document["counts"]]
    rows = []
    for each in document["latencies"]:
        known = {name: each[name] for name in Latency.__dataclass_fields__ if name in each}
        latency = Latency(**known | {"names": tuple(each["names"])})
        speedups = [of_interval(latency, number) for number in range(1, len(latency.names))]
        rows.append({"place": place(latency.runtime, latency.threads, latency.batch), "speedups": speedups})
    return {"macs": macs_of, "rows": rows, "environment": dict(environment().rows())}


def published(found: Mapping[str, Any]) -> list[str]:
    """A published network with each kind of widths, in every place."""
    (_, dense), *others = found["macs"]
    less = [f"{name}, {100 * (1 - macs / dense):.1f} % fewer MACs" for name, macs in others]
    lines = [
        "The published ResNet-56 of CIFAR-10, 49 of whose channels are removable: how many times faster than the "
        "dense network it is without them (*none*), by default, with widths for onnxruntime also elsewhere (*fast*), "
        "and with the widths of `--round auto`. "
        f"Measured on {describe_machine(found['environment'], 'Measured')}.",
        "",
        f"| configuration | {' | '.join(less)} |",
        "|---|" + "--:|" * len(less),
    ]
    for row in found["rows"]:
        cells = [f"({each['doubt']})" if each["doubt"] else speedup(each) for each in row["speedups"]]
        lines.append(f"| {row['place']} | {' | '.join(cells)} |")
    return [*lines, ""]


def table(results: Mapping[str, Any]) -> str:
    """The summary of every place, the kernels, and the networks in each place."""
    places = sorted({where for cell in results["cells"].values() for where in cell["places"]})
    parts = [
        "| configuration | cells | slower without rounding | slower by default | efficiency, median "
        "| intervals that hold |",
        "|---|--:|--:|--:|--:|--:|",
        *(summary(results, where) for where in places),
        "",
        *kernels(results["prices"]),
        *(published(results["published"]) if "published" in results else ()),
    ]
    for where in places:
        parts += [
            f"{where}:",
            "",
            "| network, % dead | dense ms | MACs ÷ none | speed-up none | channels kept | MACs ÷ fast | speed-up fast "
            "| measured again | efficiency |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
            *(line(key, facts, where.partition(",")[0], row) for key, facts, row in cells_at(results, where)),
            "",
        ]
    missing = [
        key for key in (f"{name} {dead}" for name, dead in product(NETWORKS, DEAD)) if key not in results["cells"]
    ]
    parts += [f"Not measured yet: {', '.join(missing)}.", ""] if missing else []
    errors = [facts[name]["error"] for cell in results["cells"].values() for facts in [cell["facts"]] for name in facts]
    return "\n".join([*parts, f"The largest error of an output, relative to the largest output: {max(errors):.0e}."])


def main() -> None:
    """Prepare or measure what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NETWORKS)
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each of two measurements in each place")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runtime", nargs="*", default=RUNTIMES, choices=RUNTIMES)
    parser.add_argument("--dead", type=int, nargs="*", default=DEAD, help="percentages of dead channels")
    parser.add_argument("--folder", type=Path, help="where the networks are kept between the two steps")
    parser.add_argument("--prepare", action="store_true", help="make the networks and measure nothing")
    parser.add_argument("--published", type=Path, metavar="FILE", help="add a comparison of a published network")
    parser.add_argument("--table", action="store_true", help="print what is in the output file and run nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "never_slower.json")
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else {"cells": {}, "prices": {}}
    if options.published is not None:
        results["published"] = of_published(json.loads(options.published.read_text()))
        write(options.out, results)
    options.table |= options.published is not None
    if not options.table and options.folder is None:
        parser.error("say with --folder where the networks are kept")
    torch.set_num_threads(1)
    read_operators_once()
    for name, dead in () if options.table else product(options.names, options.dead):
        advance(options, results, name, dead)
    if results["cells"]:
        print(table(results))


def read_operators_once() -> None:
    """Let torch's ONNX exporter read its table of operators once, not at every export: half of the time of one."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))


def advance(options: argparse.Namespace, results: dict[str, Any], name: str, dead: int) -> None:
    """Prepare or measure one cell as far as it has not been; what was found is written at once."""
    key, folder = f"{name} {dead}", options.folder / f"{name}_{dead}"
    cell = results["cells"].get(key, {"facts": {}, "places": {}})
    wanted = [each for each in options.runtime if place(each, options.threads, 1) not in cell["places"]]
    if not wanted:
        return
    print(key, file=sys.stderr, flush=True)
    prepare(name, dead, folder, tuple(wanted))
    if options.prepare:
        return
    cell["facts"] |= json.loads((folder / FACTS).read_text())
    results["cells"][key] = cell
    for runtime in wanted:
        results["prices"][runtime] = asdict(FastWidths(runtime).prices())
        settings = Settings((1,), options.threads, options.seconds, runtimes=(runtime,))
        contenders = contenders_of(folder, runtime)
        cell["places"][place(runtime, options.threads, 1)] = [timed(contenders, settings) for _ in range(2)]
        results["environment"] = dict(environment().rows())
        write(options.out, results)


if __name__ == "__main__":
    main()
