"""One run, the best trade-off: L2 on γ that rises and falls over the run, against the same L2 all the time.

BasicNet 32-0.25x on CIFAR-10, all 50,000 images, 10,000 iterations of 40 images under Adam, bfloat16, dead channels
removed every 250 iterations: a fortieth of the paper's length, and named so wherever its numbers appear. *Constant* is
the paper's L2. *Cycle* multiplies the λ of every γ by 2 sin²(πt), t from 0 to 1 over the run, so that its mean is the
same and the last steps are hardly regularised; the regulariser of DemP (Dufort-Labbé et al. 2024) rises and falls in
that way. The λ of all other parameters stays constant, and all else is equal, the initial weights and the order of the
images included. Every network is slimmed at its end, and the error is the slim network's on the 10,000 test images. The
cycle had no lower error at equal MACs, so slimnet has no option for it.

    python benchmarks/l2_schedule.py --data data/cifar10.npz [--seeds 2] [--out FILE.json]
    python benchmarks/l2_schedule.py --table

Runs that are in the output file are not made again, so that an interrupted benchmark goes on where it was. A run takes
about five minutes on one core.
"""

import argparse
import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import kept_runs
import torch

import slimnet
from slimnet.benchmark.counts import macs
from slimnet.data import ImageData, load_data
from slimnet.training import Recipe, TrainingRun, evaluate, train
from slimnet.training.recipe.machine_settings import Tuning
from slimnet.training.recipe.optimisers import scales_and_shifts

STRENGTHS = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
KINDS = ("constant", "cycle")
ITERATIONS = 10_000

RESULTS = Path(__file__).parent / "results" / "l2_schedule.json"

Row = dict[str, Any]
Point = tuple[float, float]
"""MACs left and error, in per cent."""


def recipe_of(l2: float, seed: int, iterations: int, data: str) -> Recipe:
    """The recipe of a run of either kind."""
    return Recipe(
        arch="basicnet",
        arch_args={"widths": "32-0.25x"},
        data=data,
        iterations=iterations,
        drops=(iterations * 250 // 325,),
        l2=l2,
        flips=True,
        precision="bf16",
        shrink_every=max(1, iterations // 40),
        seed=seed,
    )


def strength_at(kind: str, iteration: int, iterations: int) -> float:
    """The factor on the λ of every γ in the step after `iteration` others; its mean over a run is 1."""
    return 1.0 if kind == "constant" else 2 * math.sin(math.pi * (iteration + 0.5) / iterations) ** 2


def set_strength(run: TrainingRun, l2: float) -> None:
    """Set the λ of every γ from the next step on."""
    scales = {id(scale) for scale in scales_and_shifts(run.model).scales}
    (group,) = [group for group in run.optimiser.param_groups if {id(each) for each in group["params"]} == scales]
    group["weight_decay"] = l2


def trained(kind: str, recipe: Recipe, images: ImageData) -> Row:
    """Train one network, slim it, and measure what is left."""
    # A report after each step, so that the next one can have another λ.
    run = train(recipe, images, every=1, tuning=Tuning(threads=1))
    example = next(images.batches("test", 16))[0]
    macs_before = macs(run.model.eval(), example[:1])
    losses = []
    for iteration in range(recipe.iterations):
        set_strength(run, recipe.l2 * strength_at(kind, iteration, recipe.iterations))
        losses.append(next(run).loss)
    slimmed = slimnet.slim(run.model.eval(), example)
    accuracy = evaluate(slimmed.model, images)
    return {
        "kind": kind,
        "recipe": dataclasses.asdict(dataclasses.replace(recipe, data="cifar10")),
        "seconds": run.seconds,
        "train_loss": statistics.fmean(losses[-500:]),
        "error": 1 - accuracy.top1,
        "test_images": accuracy.n,
        "macs": [macs_before, slimmed.plan.macs_after],
    }


def table(results: Row) -> str:
    """What each λ came to, in Markdown, and the errors of both kinds at equal MACs."""
    curves = {kind: curve(results, kind) for kind in KINDS}
    lines = ["| λ | L2 on γ | MACs left | error | training loss | seeds |", "|---" * 6 + "|"]
    for l2 in sorted({run["recipe"]["l2"] for run in results["runs"].values()}):
        for kind in KINDS:
            runs = runs_of(results, kind, l2)
            if runs:
                share, error = point(runs)
                loss = statistics.fmean(run["train_loss"] for run in runs)
                lines.append(f"| {l2:g} | {kind} | {share:.1f} % | {error:.2f} % | {loss:.3f} | {len(runs)} |")
    return "\n".join([*lines, "", *comparisons(curves)])


def runs_of(results: Row, kind: str, l2: float) -> list[Row]:
    """The runs of one kind and λ."""
    return [run for run in results["runs"].values() if (run["kind"], run["recipe"]["l2"]) == (kind, l2)]


def point(runs: Sequence[Row]) -> Point:
    """The mean MACs left and the mean error of some runs."""
    share = statistics.fmean(100 * run["macs"][1] / run["macs"][0] for run in runs)
    return share, statistics.fmean(100 * run["error"] for run in runs)


def curve(results: Row, kind: str) -> list[Point]:
    """The points of a kind by rising MACs, one for each λ."""
    strengths = {run["recipe"]["l2"] for run in results["runs"].values() if run["kind"] == kind}
    return sorted(point(runs_of(results, kind, l2)) for l2 in strengths)


def comparisons(curves: Mapping[str, Sequence[Point]]) -> list[str]:
    """For each point of the cycle within the MACs of the constant one, the error of both."""
    lines = []
    for share, error in curves["cycle"]:
        usual = error_at(curves["constant"], share)
        if usual is not None:
            lines.append(
                f"- at {share:.1f} % of the MACs: cycle {error:.2f} %, constant {usual:.2f} % (interpolated), "
                f"{error - usual:+.2f} points"
            )
    return lines


def error_at(points: Sequence[Point], share: float) -> float | None:
    """The error at some share of the MACs, interpolated over its logarithm; None outside of the points."""
    for (low, first), (high, second) in pairwise(points):
        if low <= share <= high:
            way = math.log(share / low) / math.log(high / low) if high > low else 0.0
            return first + way * (second - first)
    return None


def main() -> None:
    """Make the runs that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="data/cifar10.npz", help="where cifar10.npz is")
    kept_runs.add_arguments(parser, RESULTS, iterations=ITERATIONS, seeds=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = kept_runs.read(parser, options)
    if not options.table:
        images = load_data(options.data)

        def make(kind: str, l2: float, seed: int) -> Row:
            return trained(kind, recipe_of(l2, seed, options.iterations, options.data), images)

        wanted = kept_runs.every_run(KINDS, STRENGTHS, options.seeds, make)
        kept_runs.make_missing(options.out, results, wanted, {"iterations": options.iterations, "threads": 1})
    print(table(results))


if __name__ == "__main__":
    main()
