"""Does L2 scaled by what a channel costs remove more MACs: cost-aware and plain at equal λ and iterations.

The demo's BasicNet (a quarter of the paper's widths) is trained on the embedded digits, 8×8 pixels, for 1,000
iterations under Adam with the demo's learning rate and drop: a toy beside the paper's 406,250, and named so wherever
its numbers appear. Each λ and seed is run twice, with the same L2 on every γ and with L2 by MACs, its mean over all γ
kept at λ; all else is equal, the weights and the images' order included. Every network is then really slimmed, and
the error is the slim network's on the 359 test images, of which one is 0.28 %; the cross-entropy beside it is finer.

    python benchmarks/cost_aware.py [--iterations 1000] [--seeds 3] [--out benchmarks/results/cost_aware.json]
    python benchmarks/cost_aware.py --table

Runs that are in the output file are not made again, so that an interrupted benchmark goes on where it was. All of
them take about six minutes on one core.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kept_runs
import torch
from torch import nn
from torch.nn import functional

import slimnet
from slimnet.data import ImageData, load_data
from slimnet.training import DIGITS_DEMO, Recipe, evaluate, sparsity_by_gamma, train

STRENGTHS = (1e-2, 2e-2, 4e-2)
KINDS = {"plain": None, "cost-aware": "macs"}
ITERATIONS = 1000
RESULTS = Path(__file__).parent / "results" / "cost_aware.json"

Row = dict[str, Any]


def recipe_of(kind: str, l2: float, seed: int, iterations: int) -> Recipe:
    """The demo's recipe, shorter, with this L2."""
    return dataclasses.replace(DIGITS_DEMO.lasting(iterations), l2=l2, seed=seed, cost_aware=KINDS[kind])


def trained(recipe: Recipe, images: ImageData) -> Row:
    """Train one network, slim it, and measure what is left."""
    start = time.perf_counter()
    run = train(recipe, images)
    losses = [progress.loss for progress in run]
    seconds = time.perf_counter() - start
    model = run.model.eval()
    slimmed = slimnet.slim(model, next(images.batches("test", 16))[0])
    accuracy = evaluate(slimmed.model, images)
    return {
        "recipe": dataclasses.asdict(recipe),
        "seconds": seconds,
        "train_loss": losses[-1],
        "error": 1 - accuracy.top1,
        "cross_entropy": cross_entropy(slimmed.model, images),
        "test_images": accuracy.n,
        "sparsity_by_gamma": sparsity_by_gamma(model),
        "macs": [slimmed.plan.macs_before, slimmed.plan.macs_after],
        "params": [slimmed.plan.params_before, slimmed.plan.params_after],
        "largest_relative_difference": slimmed.certificate.max_rel_difference,
    }


@torch.no_grad()
def cross_entropy(model: nn.Module, images: ImageData) -> float:
    """Mean over the test images."""
    scored = [(model(inputs), labels) for inputs, labels in images.batches("test", 100)]
    return float(functional.cross_entropy(*(torch.cat(each) for each in zip(*scored, strict=True))))


def table(results: Row) -> str:
    """What each λ came to, in Markdown, and the differences between pairs of runs that only the L2 tells apart."""
    lines = [
        "| λ | L2 | MACs left | parameters left | filters dead | error | cross-entropy | seeds |",
        "|---" * 8 + "|",
    ]
    strengths = sorted({run["recipe"]["l2"] for run in results["runs"].values()})
    for l2 in strengths:
        for kind in KINDS:
            runs = list(runs_of(results, kind, l2).values())
            if runs:
                lines.append(f"| {l2:g} | {kind} | {' | '.join(cells(runs))} | {len(runs)} |")
    return "\n".join([*lines, "", *(f"- {difference(results, l2)}" for l2 in strengths)])


def runs_of(results: Row, kind: str, l2: float) -> dict[int, Row]:
    """The runs of one λ and kind by seed."""
    recipes = {name: run["recipe"] for name, run in results["runs"].items()}
    chosen = [name for name, each in recipes.items() if (each["l2"], each["cost_aware"]) == (l2, KINDS[kind])]
    return {recipes[name]["seed"]: results["runs"][name] for name in chosen}


def cells(runs: list[Row]) -> list[str]:
    """Means over seeds."""
    return [
        f"{mean(runs, left('macs')):.1f} %",
        f"{mean(runs, left('params')):.1f} %",
        f"{mean(runs, lambda run: 100 * run['sparsity_by_gamma']):.1f} %",
        f"{mean(runs, lambda run: 100 * run['error']):.2f} %",
        f"{mean(runs, lambda run: run['cross_entropy']):.4f}",
    ]


def left(what: str) -> Callable[[Row], float]:
    """What share of the MACs or parameters a slim network still has, in percent."""
    return lambda run: 100 * run[what][1] / run[what][0]


def mean(runs: list[Row], value: Callable[[Row], float]) -> float:
    """Of a value over some runs."""
    return statistics.fmean(map(value, runs))


def difference(results: Row, l2: float) -> str:
    """Cost-aware less plain, seed by seed, with the least and the most of them."""
    plain, aware = (runs_of(results, kind, l2) for kind in KINDS)
    pairs = [(plain[seed], aware[seed]) for seed in sorted(plain.keys() & aware.keys())]
    if not pairs:
        return f"λ = {l2:g}: not run"
    macs = [left("macs")(after) - left("macs")(before) for before, after in pairs]
    error = [100 * (after["error"] - before["error"]) for before, after in pairs]
    return f"λ = {l2:g}, cost-aware less plain: MACs {spread(macs)}, error {spread(error)} (points, {len(pairs)} seeds)"


def spread(values: list[float]) -> str:
    """Mean, least and most."""
    return f"{statistics.fmean(values):+.2f} ({min(values):+.2f} to {max(values):+.2f})"


def main() -> None:
    """Make the runs that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kept_runs.add_arguments(parser, RESULTS, iterations=ITERATIONS, seeds=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = kept_runs.read(parser, options)
    if not options.table:
        images = load_data(DIGITS_DEMO.data)

        def make(kind: str, l2: float, seed: int) -> Row:
            return trained(recipe_of(kind, l2, seed, options.iterations), images)

        wanted = kept_runs.every_run(KINDS, STRENGTHS, options.seeds, make)
        settings = {"iterations": options.iterations, "threads": 1, "data": "digits (embedded)"}
        kept_runs.make_missing(options.out, results, wanted, settings)
    print(table(results))


if __name__ == "__main__":
    main()
