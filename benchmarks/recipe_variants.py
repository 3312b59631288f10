"""What the paper does not print about its recipe: 32-0.25x on CIFAR-10, a quarter as long, with one thing changed.

The full-length 32-0.25x of this repository fits the training images further than the paper's, and classifies fewer test
images correctly. The paper does not say where its network pools, and mentions flips as the only augmentation.
Each run here has 100,000 iterations, the learning rate falling after 80,000, L2 1e-4, bfloat16, dead channels removed
every 500 iterations; all else is the paper's. A run takes about 50 minutes on one core.

    slimnet train data/cifar10.npz --arch basicnet --arch-args '{"widths": "32-0.25x"}' --l2 1e-4 --flips --crop 4 \
        --iterations 100000 --drops 80000 --precision bf16 --shrink -o RUN
    python benchmarks/recipe_variants.py --keep RUN NAME --data data/cifar10.npz
    python benchmarks/recipe_variants.py --look CHECKPOINT NAME --data data/cifar10.npz
    python benchmarks/recipe_variants.py --layers RUN NAME
    python benchmarks/recipe_variants.py --table

NAME says what is changed, such as "flips and crops". `--look` reads a checkpoint of any run, for what its network is
before the learning rate falls; NAME is then the network of the paper, such as "table3-l2-1e-3-batch-40-cifar10".
`--layers` reads where the dead filters are in a run of the full width with L2 1e-3, finished or not: where a network
pools decides in which layers filters die first.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import recovery
import torch

import slimnet
from slimnet.benchmark.environment import environment
from slimnet.data import load_data
from slimnet.errors import SlimnetError
from slimnet.reproduction.catalogue import Printed, by_worth
from slimnet.reproduction.measure import scores
from slimnet.storage.files import whole_file
from slimnet.storage.folder_names import MODEL
from slimnet.training import Recipe
from slimnet.training.analysis.metrics import DEAD_BELOW
from slimnet.training.run.run_folder import read_history

RESULTS = Path(__file__).parent / "results" / "recipe_variants.json"
CELL = "table4-32-0.25x-cifar10"
LAYERS_CELL = "supp-table1-adam-l2-1e-3-cifar10"
LAYERS_AT = (16_250, 32_500, 406_250)

Row = dict[str, Any]


def read_run(run: Path, data: str) -> Row:
    """What a finished run logged, and the loss and the error of its network on the test images."""
    recipe = Recipe.from_json((run / "recipe.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    model = slimnet.load_checkpoint(run / MODEL, recipe.arch, recipe.arch_args).eval()
    found = scores(model, load_data(data), "test", 256)
    return {
        "recipe": recipe_data(recipe),
        "loss_before_drop": mean_loss(rows, recipe.drops[0]),
        "loss": mean_loss(rows, recipe.iterations),
        "dead": rows[-1]["sparsity"],
        "error": found.error,
        "test_loss": found.loss,
    }


def read_checkpoint(path: Path, data: str) -> Row:
    """The loss and the error of a checkpoint's network on training and test images, in evaluation mode."""
    state = torch.load(path, weights_only=True)
    recipe = Recipe.from_json(state["recipe"])
    model = slimnet.build(recipe.arch, recipe.arch_args)
    model.load_state_dict(state["state_dict"])
    images = load_data(data)
    row: Row = {"recipe": recipe_data(recipe), "iteration": state["iteration"]}
    for split in ("train", "test"):
        found = scores(model, images, split, 250)
        row |= {f"{split}_loss": found.loss, f"{split}_error": found.error}
    return row


def read_layers(run: Path) -> list[Row]:
    """Of a run with L2 1e-3: the share of dead filters in each convolution, at a few iterations that it has reached."""
    history = read_history(run)
    recipe = recipe_data(history.recipe)
    reached = history.iterations.tolist()
    norms = [name for name in history.scales if name.startswith("features.")]
    rows: list[Row] = []
    for wanted in LAYERS_AT:
        nearest = min(reached, key=lambda iteration: abs(iteration - wanted))
        if abs(nearest - wanted) <= wanted // 20:
            scales = [history.scales[name][reached.index(nearest)] for name in norms]
            dead = [float((scale.abs() < DEAD_BELOW).double().mean()) for scale in scales]
            rows.append({"iteration": nearest, "dead": dead, "recipe": recipe})
    return rows


def recipe_data(recipe: Recipe) -> Row:
    """A recipe as the results file holds it, with the name of the data: its path is the machine's own."""
    return recovery.recipe_data(recipe) | {"data": "cifar10"}


def mean_loss(rows: Sequence[Row], end: int) -> float:
    """The mean training loss, in training mode, over the last fiftieth of the iterations up to `end`."""
    return statistics.fmean(row["loss"] for row in rows if end * 49 // 50 < row["iteration"] <= end)


def table(results: Row) -> str:
    """The runs, then the networks of the paper's length, in Markdown."""
    found = [runs_table(results["runs"])]
    if results.get("layers"):
        found += [
            "Dead filters by layer, BasicNet 64-1x, CIFAR-10, L2 1e-3, in per cent:",
            layers_table(results["layers"]),
        ]
    if results.get("looks"):
        found += [
            "Networks of the paper's length before and after the learning rate falls, on images as they are:",
            looks_table(results["looks"]),
        ]
    return "\n\n".join(found)


def runs_table(runs: Mapping[str, Row]) -> str:
    """Every run in Markdown, beside the paper's network."""
    lines = [
        "| run | training loss before the drop | at the end | dead by γ | test error | test loss |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in runs.items():
        losses = f"{row['loss_before_drop']:.3f} | {row['loss']:.3f}"
        tested = f"{100 * row['error']:.1f} % | {row['test_loss']:.2f}"
        lines.append(f"| {name} | {losses} | {100 * row['dead']:.1f} % | {tested} |")
    printed = "| the paper, 406,250 iterations | – | {train_loss} | {gamma:.1f} % | {error:.1f} % | {test_loss} |"
    return "\n".join([*lines, printed.format(**printed_numbers(CELL))])


def printed_numbers(cell: str) -> Printed:
    """What the paper prints of a network."""
    return next(entry.paper for entry in by_worth() if entry.name == cell)


def looks_table(looks: Sequence[Row]) -> str:
    """What networks of the paper's length are before and after the learning rate falls, beside the paper's."""
    lines = [
        "| network of the paper | iteration | training loss | training error | test loss | test error |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name in dict.fromkeys(row["name"] for row in looks):
        for row in sorted((row for row in looks if row["name"] == name), key=lambda row: row["iteration"]):
            trained, tested = (
                f"{row[f'{split}_loss']:.2f} | {100 * row[f'{split}_error']:.1f} %" for split in ("train", "test")
            )
            lines.append(f"| {name} | {row['iteration']:,} | {trained} | {tested} |")
        paper = printed_numbers(name)
        lines.append(
            f"| the paper's | 406,250 | {paper['train_loss']} | – | {paper['test_loss']} | {paper['error']} % |"
        )
    return "\n".join(lines)


def layers_table(layers: Mapping[str, Sequence[Row]]) -> str:
    """The share of dead filters in each convolution, beside the paper's."""
    lines = [
        "| run | iteration | C1 | C2 | C3 | C4 | C5 | C6 | C7 |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, rows in layers.items():
        for row in rows:
            shares = " | ".join(f"{100 * share:.0f}" for share in row["dead"])
            lines.append(f"| {name} | {row['iteration']:,} | {shares} |")
    printed = printed_numbers(LAYERS_CELL)["layers"]
    assert isinstance(printed, tuple), "the catalogue has a number for each layer"
    lines.append(f"| the paper | 406,250 | {' | '.join(str(share) for share in printed)} |")
    return "\n".join(lines)


def main() -> None:
    """Keep what a run or a checkpoint came to, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", nargs=2, metavar=("RUN", "NAME"), help="add a finished run")
    parser.add_argument("--look", nargs=2, metavar=("CHECKPOINT", "NAME"), help="add a network of the paper")
    parser.add_argument("--layers", nargs=2, metavar=("RUN", "NAME"), help="add where filters are dead in a run")
    parser.add_argument("--data", default="data/cifar10.npz", help="where cifar10.npz is")
    parser.add_argument("--table", action="store_true", help="print what is in the results and keep nothing")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": {}}
    if (options.keep or options.look or options.layers) and not options.table:
        if options.keep:
            run, name = options.keep
            results["runs"][name] = read_run(Path(run), options.data)
        if options.look:
            path, name = options.look
            results.setdefault("looks", []).append({"name": name, **read_checkpoint(Path(path), options.data)})
        if options.layers:
            run, name = options.layers
            results.setdefault("layers", {})[name] = read_layers(Path(run))
        results["environment"] = dict(environment().rows())
        with whole_file(RESULTS, SlimnetError) as file:
            file.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
