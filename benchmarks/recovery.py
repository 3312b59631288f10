"""Methods after a fine-tuning long enough to recover: a published ResNet-56 at the same MACs, the same recipe for all.

Each method brings the network to 1/2.13, 1/2.57 and 1/4 of its MACs, the reductions at which others print results. The
rest is fine-tuned for 40 epochs of CIFAR-10: SGD with momentum and L2 of 5e-4, 128 images, from 0.05 along a cosine,
flips and crops, bfloat16. The recipe was set before any of it was run, and is not tuned to a method. Errors are those
of the last iteration, in float32 on the 10,000 test images. `dense` is the network itself, fine-tuned alike: what the
recipe alone is worth.

    python benchmarks/recovery.py FILE.th data/cifar10.npz --folder DIR [--only "NAME at 2.13" ...]
    python benchmarks/recovery.py FILE.th data/cifar10.npz --folder DIR --latency
    python benchmarks/recovery.py --table

A run takes two hours or more on one core. It stores a checkpoint each minute in DIR, from which the same command goes
on, and writes its row down when it ends. `--latency` adds how many times faster than the dense network each is.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import rivals
import torch
from never_slower import of_interval, speedup
from resnet56_bench import ARCH, Bench
from resnet56_curves import network, write
from torch import nn

from slimnet.benchmark import Settings, compare, environment
from slimnet.training import Recipe
from slimnet.training.finetune import Finetuning, retraining

RESULTS = Path(__file__).parent / "results" / "recovery.json"
NETWORK, CHECKPOINTS = "network.pt", "checkpoints"

FEWER = (2.13, 2.57, 4.0)
"""How many times fewer the MACs are."""
METHODS = ("implicit, fitted", rivals.GROUP_PRUNER, "li2017, plain", "liu2017, plain")
"""What chooses the channels; *plain* as its paper does, with nothing else corrected before the fine-tuning."""
EPOCHS, BATCH, TRAINING_IMAGES = 40, 128, 50_000
DENSE = "dense"

Row = dict[str, Any]


def every_cell() -> dict[str, tuple[str, float | None]]:
    """The method and the reduction of each run by its name, the most telling first."""
    cells: dict[str, tuple[str, float | None]] = {
        f"{method} at {fewer:g}": (method, fewer) for fewer in FEWER for method in METHODS
    }
    return cells | {DENSE: (DENSE, None)}


def recipe_of(epochs: float) -> Recipe:
    """The fine-tuning, the same for all."""
    iterations = max(1, round(epochs * TRAINING_IMAGES / BATCH))
    changes = {"lr": 0.05, "l2": 5e-4, "cosine": True, "flips": True, "crop": 4, "precision": "bf16"}
    return retraining(ARCH, "cifar10", iterations, batch_size=BATCH, **changes)


def recipe_data(recipe: Recipe) -> Row:
    """A recipe as the results file holds it."""
    data: Row = json.loads(recipe.to_json())
    return data


def prepared(bench: Bench, method: str, fewer: float | None, folder: Path) -> tuple[nn.Module, Row]:
    """The network before its fine-tuning and what is known of it: stored in the folder, or made and stored there."""
    facts_file, network_file = folder / "facts.json", folder / NETWORK
    if facts_file.exists():
        return torch.load(network_file, weights_only=False), json.loads(facts_file.read_text())
    model, facts = network(bench, method, None if fewer is None else 1 / fewer)
    facts |= {"method": method, "fewer": fewer, "error_before": bench.error(model)}
    (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    torch.save(model, network_file)
    # Last: who finds the facts finds the network as well.
    write(facts_file, facts)
    return model, facts


def recovered(bench: Bench, method: str, fewer: float | None, folder: Path) -> Row:
    """Make a network, fine-tune it, and store it in its folder; the row says what came out."""
    model, facts = prepared(bench, method, fewer, folder)
    tuning = Finetuning(model, bench.recipe, bench.data, evaluations=8, folder=folder / CHECKPOINTS, threads=1)
    for progress in tuning:
        print(f"  {progress.iteration}/{progress.total}, loss {progress.loss:.3f}", file=sys.stderr, flush=True)
    torch.save(tuning.model.eval(), folder / NETWORK)
    return facts | {
        "course": [dataclasses.astuple(point) for point in tuning.course],
        "error": tuning.course[-1].error,
        "seconds": tuning.run.seconds,
    }


def run_missing(bench: Bench, options: argparse.Namespace, results: Row) -> None:
    """Run the cells that are asked for and not there yet, and write each down as it ends."""
    results["recipe"] = recipe_data(bench.recipe)
    missing = [name for name in options.only or every_cell() if name not in results["runs"]]
    for number, name in enumerate(missing, 1):
        print(f"{number}/{len(missing)} {name}", file=sys.stderr, flush=True)
        results["runs"][name] = recovered(bench, *every_cell()[name], folder_of(name, options))
        results["environment"] = dict(environment().rows())
        write(options.out, results)


def measure_latencies(bench: Bench, options: argparse.Namespace, results: Row) -> None:
    """Measure all networks that are there in turns with the dense one, under onnxruntime, one image on one thread."""
    names = [name for name in results["runs"] if name != DENSE]
    models = {DENSE: bench.model}
    models |= {name: torch.load(folder_of(name, options) / NETWORK, weights_only=False) for name in names}
    settings = Settings(batches=(1,), threads=1, seconds=options.seconds, runtimes=("onnxruntime",))
    (latency,) = compare(models, bench.inputs[:1], settings).latencies
    for number, name in enumerate(names, 1):
        results["runs"][name]["speedup"] = of_interval(latency, number)
    results["latency_environment"] = dict(environment().rows())
    write(options.out, results)


def folder_of(name: str, options: argparse.Namespace) -> Path:
    """Where a run keeps its network and checkpoints."""
    found: Path = options.folder / name.replace(", ", "-").replace(" ", "-")
    return found


def table(results: Row) -> str:
    """Error in per cent before and after the fine-tuning, and what is left, by reduction and method."""
    lines = [
        "| MACs, times fewer | method | error before | error | MACs, millions | parameters, thousands | times faster |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]
    known = results["runs"]
    return "\n".join(lines + [line(known[name]) for name in every_cell() if name in known])


def line(run: Row) -> str:
    """One run."""
    fewer = "1" if run["fewer"] is None else f"{run['fewer']:g}"
    errors = [f"{100 * run[name]:.2f}" for name in ("error_before", "error")]
    faster = speedup(run["speedup"]) if "speedup" in run else "–"
    sizes = f"{run['macs'] / 1e6:.1f} | {run['params'] / 1e3:.0f}"
    return f"| {fewer} | {run['method']} | {' | '.join(errors)} | {sizes} | {faster} |"


def main() -> None:
    """Run what is missing, or measure latencies, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("data", nargs="?")
    parser.add_argument("--folder", type=Path, default=Path("runs/recovery"), help="where networks are kept")
    parser.add_argument("--only", action="append", default=[], choices=every_cell(), help="this run alone, or several")
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    parser.add_argument("--latency", action="store_true", help="measure the networks that are there")
    parser.add_argument("--seconds", type=float, default=60.0, help="for the measurement of latencies")
    parser.add_argument("--table", action="store_true", help="print what is in the output file and run nothing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else {"runs": {}}
    if not options.table:
        if options.checkpoint is None or options.data is None:
            parser.error("name the checkpoint and the images; see --help")
        torch.set_num_threads(1)
        recipe = recipe_of(options.epochs)
        if results.get("recipe", recipe_data(recipe)) != recipe_data(recipe):
            parser.error(f"{options.out} was made with another recipe; give another --out")
        bench = Bench(options.checkpoint, options.data, recipe, recipe, float32=True)
        (measure_latencies if options.latency else run_missing)(bench, options, results)
    print(table(results))


if __name__ == "__main__":
    main()
