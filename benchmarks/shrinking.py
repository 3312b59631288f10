"""How much time it saves to remove dead filters during training: whole runs, dense and shrinking, and their steps.

    python benchmarks/shrinking.py --part runs [--seeds 3] [NAME...]     # whole runs of `RUNS`, to the end
    python benchmarks/shrinking.py --part steps [--threads 1]            # a step against the MACs that are left
    python benchmarks/shrinking.py --part course --run RUN               # a run of `slimnet train` of any length
    python benchmarks/shrinking.py --table

A dense and a shrinking run of one recipe and seed are trained in turns, a report at a time, so that whatever else the
machine does slows both. Their times, errors and sparsities are those of the whole runs. Recipes that are shorter than
the paper's say so in their names.

Steps are timed on the paper's BasicNet at full width and on ones whose layers all have the same share of its filters,
with CIFAR's shape of images, batches of 40, Adam with L2, and the trainer's own loop; in turns as well. Efficiency is
how many times a step is shorter, divided by how many times the MACs are fewer.

The time of a run that took hours beside other programs is that of its steps: the dense network and those with the
widths that the run had at several of its snapshots are timed in turns, and each iteration takes what a network with its
MACs takes, between two of them by linear interpolation; on one thread it is CPU time. What cuts and reports take is not
in it. *At full length* is the whole schedule if the rest of its steps takes as long as the last one.

Runs that are in the output file are not made again, so that an interrupted benchmark goes on where it was.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machines import describe_machine
from safetensors.torch import load_file
from train_throughput import noise

from slimnet.benchmark.counts import macs
from slimnet.benchmark.environment import environment
from slimnet.data import ImageData, load_data
from slimnet.errors import SlimnetError
from slimnet.models import build
from slimnet.models.arguments import scaled
from slimnet.models.basicnet import WIDTHS
from slimnet.storage.files import whole_file
from slimnet.training import DIGITS_DEMO, Progress, Recipe, TrainingRun, evaluate, train
from slimnet.training.recipe.machine_settings import Tuning
from slimnet.training.recipe.recipe import Precision

RESULTS = Path(__file__).parent / "results" / "shrinking.json"

SHARES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.18, 0.12)
"""The shares of the filters in each layer; with 0.18 BasicNet has as many as the paper leaves under L2 1e-3."""

SNAPSHOTS = 6
"""About so many snapshots of a run give the widths that are timed."""

Row = dict[str, Any]


def basicnet(l2: float, iterations: int, data: str, **changes: Any) -> Recipe:
    """The paper's BasicNet under Adam, with a schedule of so many iterations."""
    drops = (iterations * 250 // 325,)
    fields = {"arch": "basicnet", "data": data, "iterations": iterations, "drops": drops, "l2": l2, "flips": True}
    return Recipe(**(fields | changes))


def runs_of(data: str) -> Mapping[str, tuple[Recipe, int]]:
    """The whole runs by name: the dense recipe, and how often the other one looks for dead filters."""
    resnet = Recipe(
        arch="resnet20", data=data, iterations=10_000, drops=(7_500,), l2=1e-3, flips=True, batch_size=40, lr=1e-3
    )
    return {
        "demo": (DIGITS_DEMO, 50),
        "basicnet 32-0.25x, L2 1e-3, 10,000 iterations": (
            basicnet(1e-3, 10_000, data, arch_args={"widths": "32-0.25x"}), 250,
        ),
        "basicnet 64-1x, L2 1e-3, 20,000 iterations, bf16": (basicnet(1e-3, 20_000, data, precision="bf16"), 500),
        "basicnet 64-1x, L2 1e-4, 20,000 iterations, bf16": (basicnet(1e-4, 20_000, data, precision="bf16"), 500),
        "resnet20, L2 1e-3, 10,000 iterations": (resnet, 250),
    }  # fmt: skip


def race(recipe: Recipe, shrink_every: int, images: ImageData, threads: int) -> Row:
    """Train a dense and a shrinking network in turns, to the end; what each took and came to."""
    recipes = {"dense": recipe, "shrinking": dataclasses.replace(recipe, shrink_every=shrink_every)}
    runs = {
        name: train(each, images, every=100, tuning=Tuning(threads=threads)) for name, each in recipes.items()
    }  # fmt: skip
    reports: dict[str, list[Progress]] = {name: [] for name in runs}
    for pair in zip(*runs.values(), strict=True):
        for name, progress in zip(runs, pair, strict=True):
            reports[name].append(progress)
        dense, shrinking = (reports[name][-1] for name in runs)
        if dense.iteration % 1000 < 100:
            times = f"{dense.iteration}/{dense.total}: {dense.seconds:.0f} s dense, {shrinking.seconds:.0f} s shrinking"
            print(f"{times}, {100 * shrinking.sparsity:.0f} % dead", flush=True)
    return {name: outcome(run, reports[name]) for name, run in runs.items()} | {
        "recipe": json.loads(recipe.to_json()),
        "shrink_every": shrink_every,
        "threads": threads,
        "slowest_turn": slowest_turn(reports["dense"], reports["shrinking"]),
    }


def outcome(run: TrainingRun, reports: Sequence[Progress]) -> Row:
    """What a run took and came to, and its course in some fifty points."""
    last = reports[-1]
    chosen = [*reports[:: max(1, len(reports) // 50)], last]
    return {
        "seconds": last.seconds,
        "sparsity": last.sparsity,
        "test_error": 1 - evaluate(run.dense_model().eval(), run.data).top1,
        "macs_left": 1.0 if run.plan is None else run.plan.macs_after / run.plan.macs_before,
        "course": [[each.iteration, each.seconds, each.sparsity, each.macs_left] for each in chosen],
    }


def slowest_turn(dense: Sequence[Progress], shrinking: Sequence[Progress]) -> float:
    """The 95th percentile over turns of how much longer the shrinking run took than the dense one."""
    ratios = [mine / theirs for mine, theirs in zip(turns(shrinking), turns(dense), strict=True)]
    return statistics.quantiles(ratios, n=20)[-1] if len(ratios) > 1 else 1.0


def turns(reports: Sequence[Progress]) -> list[float]:
    """The seconds from each report to the next."""
    times = [0.0, *(each.seconds for each in reports)]
    return [after - before for before, after in pairwise(times)]


def share_times(threads: int, repeats: int, steps: int) -> Row:
    """Seconds of a step at each share of the filters, in turns, and the MACs of the networks."""
    networks = {str(share): {"widths": [*scaled(WIDTHS["64-1x"], share)]} for share in SHARES}
    rows = step_times(networks, threads, repeats, steps)
    return {"threads": threads, "batch_size": 40, "shares": rows}


def step_times(
    networks: Mapping[str, Row],
    threads: int,
    repeats: int,
    steps: int,
    precision: Precision = "fp32",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Row]:
    """Seconds of a step of BasicNets with these arguments, in turns, and the MACs of the networks, by their names."""
    images = noise()
    found: dict[str, Row] = {}
    loops: dict[str, Iterator[Progress]] = {}
    for name, arguments in networks.items():
        recipe = basicnet(1e-3, 10**9, "noise", arch_args=arguments, drops=(), precision=precision)
        loops[name] = train(recipe, images, every=steps, tuning=Tuning(threads=threads))
        count = macs(build("basicnet", arguments).eval(), torch.randn(1, 3, 32, 32))
        found[name] = {**arguments, "macs": count, "seconds": []}
    for repeat in range(repeats + 1):
        for name, loop in loops.items():
            start = clock()
            next(loop)
            if repeat:
                found[name]["seconds"].append((clock() - start) / steps)
    return found


def course_time(run: Path, options: argparse.Namespace) -> Row:
    """How long a run of BasicNet takes so far by its steps, dense and shrinking."""
    recipe = Recipe.from_json((run / "recipe.json").read_text(encoding="utf-8"))
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    networks = {"0": {"widths": [*WIDTHS["64-1x"]], "hidden": 256}, **snapshots(run)}
    clock = time.process_time if options.threads == 1 else time.perf_counter
    rows = step_times(networks, options.threads, options.repeats, options.steps, recipe.precision, clock)
    points = sorted((row["macs"], statistics.median(row["seconds"])) for row in rows.values())
    dense = logged[0]["macs"]
    seconds, last = 0.0, 0
    for each in logged:
        # After a resumption some iterations are logged twice.
        steps, last = max(0, each["iteration"] - last), max(last, each["iteration"])
        seconds += steps * seconds_at(points, each.get("macs_left", dense))
    return {
        "l2": recipe.l2,
        "precision": recipe.precision,
        "iterations": last,
        "of": logged[-1]["total"],
        "dense_seconds": last * points[-1][1],
        "seconds": seconds,
        "macs_left": logged[-1].get("macs_left", dense) / dense,
        "sparsity": logged[-1]["sparsity"],
        "threads": options.threads,
        "steps": rows,
    }


def snapshots(run: Path) -> dict[str, Row]:
    """The arguments of the narrower networks at some snapshots of a run, by the iteration: γ is 0 where it was cut."""
    files = sorted((run / "history").glob("*.safetensors"))
    found: dict[str, Row] = {}
    for file in files[:: max(1, len(files) // SNAPSHOTS)]:
        scales = {name: int(value.count_nonzero()) for name, value in load_file(file).items()}
        widths = [scales[f"scale/features.bn{number}"] for number in range(1, 8)]
        found[str(int(file.stem))] = {"widths": widths, "hidden": scales["scale/classifier.bn1"]}
    return found


def seconds_at(points: Sequence[tuple[int, float]], count: int) -> float:
    """The seconds of a step of a network with so many MACs, between those that were timed."""
    return float(np.interp(count, [each for each, _ in points], [seconds for _, seconds in points]))


def table(results: Row) -> str:
    """Markdown: whole runs, then steps."""
    parts = [runs_table(results["runs"], results.get("environment", {})), courses_table(results.get("courses", {}))]
    return "\n\n".join(part for part in (*parts, *map(steps_table, results["steps"].values())) if part)


def courses_table(courses: Mapping[str, Row]) -> str:
    """A line a run that was timed by its steps."""
    if not courses:
        return ""
    lines = [
        "| run, by the time of its steps | iterations | dense, h | shrinking, h | times faster | at full length "
        "| ms a step, dense and last | MACs left | dead |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in courses.items():
        first, last = (statistics.median(steps["seconds"]) for steps in ends(row["steps"]))
        cells = [
            f"{name}, L2 {row['l2']:g}, {row['precision']}, {row['threads']} thread{'s' if row['threads'] > 1 else ''}",
            f"{row['iterations']:,} of {row['of']:,}",
            f"{row['dense_seconds'] / 3600:.2f}",
            f"{row['seconds'] / 3600:.2f}",
            f"{row['dense_seconds'] / row['seconds']:.2f}",
            f"{row['of'] * first / (row['seconds'] + (row['of'] - row['iterations']) * last):.2f}",
            f"{1e3 * first:.0f}, {1e3 * last:.0f}",
            f"{100 * row['macs_left']:.1f} %",
            f"{100 * row['sparsity']:.1f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ends(steps: Mapping[str, Row]) -> tuple[Row, Row]:
    """The first and the last of the networks whose steps were timed."""
    ordered = sorted(steps.items(), key=lambda item: int(item[0]))
    return ordered[0][1], ordered[-1][1]


def runs_table(runs: Mapping[str, Row], machine: Row) -> str:
    """A line a recipe: means over its seeds; `machine` is that of the runs which name none."""
    if not runs:
        return ""
    lines = [
        "| run | seeds | dense, s | shrinking, s | times faster | MACs left | dead, dense and shrinking | test error, "
        "dense and shrinking | slowest turns | on |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    names = dict.fromkeys(name.rsplit(", seed ", 1)[0] for name in runs)
    for name in names:
        own = [run for each, run in runs.items() if each.rsplit(", seed ", 1)[0] == name]
        dense, shrinking = ([run[kind] for run in own] for kind in ("dense", "shrinking"))
        place = own[0].get("environment", machine)
        ratios = [one["seconds"] / other["seconds"] for one, other in zip(dense, shrinking, strict=True)]
        spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
        cells = [
            f"{name}, {own[0]['threads']} thread{'s' if own[0]['threads'] > 1 else ''}",
            str(len(own)),
            f"{mean(dense, 'seconds'):.0f}",
            f"{mean(shrinking, 'seconds'):.0f}",
            f"{statistics.fmean(ratios):.2f}{spread}",
            f"{100 * mean(shrinking, 'macs_left'):.0f} %",
            f"{100 * mean(dense, 'sparsity'):.0f} %, {100 * mean(shrinking, 'sparsity'):.0f} %",
            f"{100 * mean(dense, 'test_error'):.1f} %, {100 * mean(shrinking, 'test_error'):.1f} %",
            f"{statistics.fmean(run['slowest_turn'] for run in own):.2f}",
            describe_machine(place),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def mean(rows: Sequence[Row], name: str) -> float:
    """Of one number of several runs."""
    return statistics.fmean(row[name] for row in rows)


def steps_table(steps: Row) -> str:
    """A line a share of the filters."""
    dense = steps["shares"][str(SHARES[0])]
    threads = f"{steps['threads']} thread{'s' if steps['threads'] > 1 else ''}"
    lines = [
        f"| share of the filters, {threads} | MACs | of dense | ms a step (quartiles) | times faster | efficiency |",
        "|---|---|---|---|---|---|",
    ]
    for share, row in steps["shares"].items():
        # Turns are side by side, so that ratios are those of neighbours.
        faster = statistics.median(a / b for a, b in zip(dense["seconds"], row["seconds"], strict=True))
        fewer = dense["macs"] / row["macs"]
        low, middle, high = (1e3 * each for each in statistics.quantiles(row["seconds"], n=4))
        cells = [
            f"{float(share):g}",
            f"{row['macs'] / 1e6:.1f} M",
            f"{100 / fewer:.1f} %",
            f"{middle:.1f} ({low:.1f} to {high:.1f})",
            f"{faster:.2f}",
            f"{faster / fewer:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, add it to the results and print them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="whole runs; all by default")
    parser.add_argument("--part", choices=("runs", "steps", "course"), default="runs")
    parser.add_argument("--run", type=Path, help="the folder of a run of a full-width BasicNet, for --part course")
    parser.add_argument("--name", default="BasicNet", help="what the run is called in the table")
    parser.add_argument("--data", default="cifar10", help="CIFAR-10, as for slimnet train")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9, help="turns of each network")
    parser.add_argument("--steps", type=int, default=5, help="steps of a turn")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print what is in the output file and run nothing")
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else {"runs": {}, "steps": {}}
    if not options.table:
        parts = {"runs": measure_runs, "steps": measure_steps, "course": measure_course}
        parts[options.part](options, results)
    print(table(results))


def measure_runs(options: argparse.Namespace, results: Row) -> None:
    """Train the runs that are missing, and write each down at once."""
    known = runs_of(options.data)
    for name in options.names or known:
        if name not in known:
            raise SystemExit(f"there is no run {name!r}: {', '.join(map(repr, known))}")
    for seed in range(options.seeds):
        for name in options.names or known:
            key = f"{name}, seed {seed}"
            if key not in results["runs"]:
                recipe, every = known[name]
                print(key, flush=True)
                row = race(dataclasses.replace(recipe, seed=seed), every, load_data(recipe.data), options.threads)
                # The path of the data is the machine's own.
                row["recipe"]["data"] = "digits" if recipe is DIGITS_DEMO else "cifar10"
                results["runs"][key] = row | {"environment": dict(environment().rows())}
                write(options.out, results)


def measure_steps(options: argparse.Namespace, results: Row) -> None:
    """Time steps at every share of the filters."""
    results["steps"][str(options.threads)] = share_times(options.threads, options.repeats, options.steps)
    results["environment"] = dict(environment().rows())
    write(options.out, results)


def measure_course(options: argparse.Namespace, results: Row) -> None:
    """Time the steps of a run."""
    if options.run is None:
        raise SystemExit("--part course needs --run, the folder of the run")
    row = course_time(options.run, options) | {"environment": dict(environment().rows())}
    results.setdefault("courses", {})[options.name] = row
    write(options.out, results)


def write(path: Path, results: Row) -> None:
    """Replace the results file in one step; runs and courses name their own machine, the file that of the steps."""
    with whole_file(path, SlimnetError) as file:
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
