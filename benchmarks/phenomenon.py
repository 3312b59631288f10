"""Do filters die by themselves, and what makes them: the paper's trends on CIFAR-10, narrower, shorter and smaller.

BasicNet at a quarter of its width is trained for 6,000 iterations on images of half the resolution, 16×16 (the paper:
full width, 406,250 iterations, 32×32), with the learning rate dropped at 77 %, as the paper drops it, for every
optimiser, regulariser, λ and batch size below. Of each network the error on the test images, the sparsity by γ and
the sparsity by activation are written down, with what a slim network costs. None of these numbers is the paper's; the
order in which they come is what is compared.

    python benchmarks/phenomenon.py --data cifar10.npz [--seeds 2] [--workers 2]
    python benchmarks/phenomenon.py --table

Cells that are in the output file are not run again, so that an interrupted run goes on where it was.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

import slimnet
from slimnet.benchmark.environment import environment
from slimnet.data import ImageData, load_data
from slimnet.inputs import Inputs
from slimnet.sparsity import ACTIVATION_LIMIT, activation_peaks
from slimnet.training import Recipe, evaluate, sparsity_by_gamma, train

WIDTH = 0.25
ITERATIONS = 6000
RESULTS = Path(__file__).parent / "results" / "phenomenon.json"

Settings = dict[str, Any]
CELLS: dict[str, Settings] = {
    "Adam, L2 1e-3": {"l2": 1e-3},
    "Adam, L2 2e-3": {"l2": 2e-3},
    "Adam, L2 1e-4": {"l2": 1e-4},
    "Adam, WD 1e-3": {"weight_decay": 1e-3},
    "SGD, L2 1e-3": {"l2": 1e-3, "optimiser": "sgd"},
    "Adam, L2 1e-3, batch 20": {"l2": 1e-3, "batch_size": 20},
    "Adam, L2 1e-3, batch 80": {"l2": 1e-3, "batch_size": 80},
}
"""By name; what is not said is Adam at the paper's settings and a batch of 40."""

PAPER = {
    "Adam, L2 1e-3": (83, 85, 13.1),
    "Adam, L2 2e-3": (86, 88, 14.7),
    "Adam, L2 1e-4": (70, 71, 10.5),
    "Adam, WD 1e-3": (90, 90, 27.8),
    "SGD, L2 1e-3": (27, 27, 21.8),
    "Adam, L2 1e-3, batch 20": (82, None, 15.2),
    "Adam, L2 1e-3, batch 80": (80, None, 12.2),
}
"""Sparsity by γ, sparsity by activation and test error in %, CIFAR-10, tables 1 and 3: three runs' means."""

TRENDS = (
    ("Adam, L2 1e-3", "Adam, WD 1e-3", "L2 kills more filters than weight decay under Adam, at equal λ"),
    ("Adam, WD 1e-3", "SGD, L2 1e-3", "Adam kills more than SGD"),
    ("Adam, L2 1e-3", "SGD, L2 1e-3", "Adam with L2 kills more than SGD with L2"),
    ("Adam, L2 2e-3", "Adam, L2 1e-3", "more λ, more dead filters"),
    ("Adam, L2 1e-3", "Adam, L2 1e-4", "more λ, more dead filters"),
    ("Adam, L2 1e-3, batch 20", "Adam, L2 1e-3", "smaller batches, more dead filters, at equal iterations"),
    ("Adam, L2 1e-3", "Adam, L2 1e-3, batch 80", "smaller batches, more dead filters, at equal iterations"),
)
"""(more, less, what is claimed)."""


def recipe_of(settings: Settings, data: str, iterations: int, seed: int) -> Recipe:
    """A cell's recipe: horizontal flips, and one drop at the paper's share of the iterations (250 of 325 epochs)."""
    return Recipe(
        arch="basicnet",
        arch_args={"width": WIDTH},
        data=data,
        iterations=iterations,
        drops=(iterations * 250 // 325,),
        flips=True,
        seed=seed,
        **settings,
    )


def cell(name: str, data: str, iterations: int, seed: int) -> dict[str, Any]:
    """Train one network on one thread and measure it."""
    torch.set_num_threads(1)
    images = halved(load_data(data))
    recipe = recipe_of(CELLS[name], data, iterations, seed)
    start = time.perf_counter()
    run = train(recipe, images, threads=1)
    losses = [progress.loss for progress in run]
    seconds = time.perf_counter() - start
    model = run.model.eval()
    slimmed = slimnet.slim(model, next(images.batches("test", 100))[0])
    accuracy = evaluate(model, images)
    return {
        "recipe": dataclasses.asdict(recipe) | {"data": Path(data).name},
        "seconds": seconds,
        "train_loss": losses[-1],
        "error": 1 - accuracy.top1,
        "test_images": accuracy.n,
        "sparsity_by_gamma": sparsity_by_gamma(model),
        "sparsity_by_activation": inactive(model, images),
        "slim": {
            "removed": slimmed.plan.removed_channels,
            "macs": [slimmed.plan.macs_before, slimmed.plan.macs_after],
            "params": [slimmed.plan.params_before, slimmed.plan.params_after],
            "largest_relative_difference": slimmed.certificate.max_rel_difference,
            "error": 1 - evaluate(slimmed.model, images).top1,
        },
    }


def halved(images: ImageData) -> ImageData:
    """The same images at half their resolution: the mean of every 2×2 pixels."""
    small = []
    for split in ("train", "test"):
        pixels, labels = images.split(split)
        wide = pixels.to(torch.int16)
        total = wide[:, ::2, ::2] + wide[:, 1::2, ::2] + wide[:, ::2, 1::2] + wide[:, 1::2, 1::2]
        small.append((((total + 2) // 4).to(torch.uint8), labels))
    return ImageData.of(f"{images.name} at half resolution", *small, images.classes)


def inactive(model: torch.nn.Module, images: ImageData) -> float:
    """Sparsity by activation: the share of convolution channels that are 0 behind the ReLU on all training images."""
    batches = (Inputs.of(inputs) for inputs, _ in images.batches("train", 500))
    peaks = [
        peak for (module, _, _), peak in activation_peaks(model, batches).items() if module.startswith("features.")
    ]
    return (torch.cat(peaks) <= ACTIVATION_LIMIT).double().mean().item()


def table(results: dict[str, Any]) -> str:
    """Paper and ours side by side in Markdown, and which trends hold."""
    lines = [
        "| cell | paper: γ / act. / error | ours: γ / act. / error | MACs left | seeds |",
        "|---|---|---|---|---|",
    ]
    for name in CELLS:
        runs = [each for key, each in results["cells"].items() if key.rpartition(", seed ")[0] == name]
        if runs:
            lines.append(f"| {name} | {paper(name)} | {ours(runs)} | {macs_left(runs)} | {len(runs)} |")
    lines.append("")
    lines += [f"- {verdict(results, *trend)}" for trend in TRENDS]
    return "\n".join(lines)


def paper(name: str) -> str:
    """The paper's three numbers."""
    gamma, activation, error = PAPER[name]
    return f"{gamma} / {'–' if activation is None else activation} / {error}"


def ours(runs: list[dict[str, Any]]) -> str:
    """The same three of ours, in percent, means over seeds."""
    names = ("sparsity_by_gamma", "sparsity_by_activation", "error")
    return " / ".join(f"{100 * statistics.fmean(run[name] for run in runs):.1f}" for name in names)


def macs_left(runs: list[dict[str, Any]]) -> str:
    """What share of the MACs a slim network still has, in percent."""
    return f"{100 * statistics.fmean(after / before for before, after in (run['slim']['macs'] for run in runs)):.0f} %"


def verdict(results: dict[str, Any], more: str, less: str, claim: str) -> str:
    """Whether one cell's sparsity by γ is above another's."""
    means = []
    for name in (more, less):
        runs = [each for key, each in results["cells"].items() if key.rpartition(", seed ")[0] == name]
        if not runs:
            return f"{claim}: not run"
        means.append(100 * statistics.fmean(run["sparsity_by_gamma"] for run in runs))
    outcome = "holds" if means[0] > means[1] else "does not hold"
    return f"{claim}: {outcome} ({more} {means[0]:.1f} %, {less} {means[1]:.1f} %)"


def write(path: Path, results: dict[str, Any]) -> None:
    """Replace the results file in one step."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    os.replace(temporary, path)


def run(options: argparse.Namespace, results: dict[str, Any]) -> None:
    """Run the cells that are missing, several at a time, and write each down as it ends."""
    wanted = {f"{name}, seed {seed}": (name, seed) for seed in range(options.seeds) for name in CELLS}
    missing = {key: each for key, each in wanted.items() if key not in results["cells"]}
    results["environment"] = dict(environment().rows())
    results["settings"] = {
        "width": WIDTH,
        "image": 16,
        "iterations": options.iterations,
        "workers": options.workers,
        "threads": 1,
    }
    with ProcessPoolExecutor(options.workers) as pool:
        # The longest first, so that no worker is left alone with one at the end.
        order = sorted(missing, key=lambda key: -CELLS[missing[key][0]].get("batch_size", 40))
        waiting = {
            pool.submit(cell, missing[key][0], options.data, options.iterations, missing[key][1]): key for key in order
        }
        for number, done in enumerate(as_completed(waiting), 1):
            results["cells"][waiting[done]] = done.result()
            write(options.out, results)
            print(f"{number}/{len(missing)} {waiting[done]}", file=sys.stderr, flush=True)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cifar10", help="cifar10, or an .npz file")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print what is in the output file and run nothing")
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else {"cells": {}}
    if not options.table:
        run(options, results)
    print(table(results))


if __name__ == "__main__":
    main()
