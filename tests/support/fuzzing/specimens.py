"""One good specimen of every kind of file that slimnet reads, each in a folder of its own."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import numpy as np
import safetensors.torch
import slimnet_cli
import torch
from bundles import FILES, SHAPE, basic_net, images, lived_in, make, tied_net
from PIL import Image

from slimnet.benchmark import Accuracies, Comparison, Counts, Environment, Latency, LayerTimes, Memory, Profile
from slimnet.bundle.manifest import write_manifest
from slimnet.comparison import Dense, Outcome, Results, Size
from slimnet.methods import Budget
from slimnet.models import build
from slimnet.reproduction import catalogue, results, scalars
from slimnet.reproduction.scales import recipe_of
from slimnet.slimmed import Slimmed
from slimnet.sweep import Cell, Store, read_grid
from slimnet.training import Accuracy, Recipe, save_checkpoint
from slimnet.training.finetune import Point, retraining

CHECKPOINT_ARGS = {"widths": [4, 6], "pool_after": [1], "hidden": 8, "in_channels": 1}
OF_NETWORK = ("--arch", "basicnet", "--arch-args", json.dumps(CHECKPOINT_ARGS))
OF_DIGITS = ("--data", "digits", "--device", "cpu")
SHORT = ("--iterations", 4, "--batch-size", 8)
PRINTED = ("table6", "fig2")
"""The table and the figure of the paper that results are made for."""

WHERE = Environment("CPU", "AVX2", 2, None, "Linux", "3.12", "2.9", "1.20", "0.1", "2026-01-01 00:00 UTC", "2 GHz")
NAMES = ("dense", "slim")
SAMPLES = tuple(tuple(base + 0.01 * step for step in range(12)) for base in (2.0, 1.0))
GRID = """[base]
arch = "basicnet"
data = "digits"
iterations = 4
batch_size = 16
arch_args = {widths = [4, 6], pool_after = [1], hidden = 8, in_channels = 1}
[grid]
l2 = [1e-4, 1e-3, 1e-2]
[[cells]]
batch_size = 8
"""


def make_bundle(folder: Path) -> None:
    """A bundle that says how its network is built, and what a training that shrank it set to zero."""
    example = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    make(basic_net(), example, folder / "slim", "net.pt", shrunk=True)


def make_nameless(folder: Path) -> None:
    """A bundle that does not."""
    make(tied_net(), images(), folder / "slim")


def make_checkpoints(folder: Path) -> None:
    """The weights of one small network in every format."""
    torch.manual_seed(0)
    state = build("basicnet", CHECKPOINT_ARGS).state_dict()
    content = {"state_dict": state, "epoch": 3, "args": {"lr": 0.1, "names": ["a", None]}}
    torch.save(content, folder / "zip.pt")
    torch.save(content, folder / "legacy.th", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(dict(state), folder / "net.safetensors", {"made by": "somebody"})


def make_npz(folder: Path) -> None:
    """Labelled images in one file."""
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 12), ("test", 6)):
        arrays[f"x_{split}"] = random.integers(0, 256, (count, 16, 16, 1), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 10
    np.savez(folder / "data.npz", classes=np.asarray([f"class {n}" for n in range(10)]), **arrays)


def make_image_folder(folder: Path) -> None:
    """Images in a folder for each class, in the formats that people have."""
    random = np.random.default_rng(0)
    for part, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            place = folder / "images" / part / name
            place.mkdir(parents=True)
            for number, suffix in zip(range(count), (".png", ".jpg", ".png"), strict=False):
                pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}{suffix}")


def make_run(folder: Path) -> None:
    """A finished run with checkpoints."""
    trained(folder / "run", "digits", "--iterations", 8, "--batch-size", 16, *OF_NETWORK)
    torch.save(build("basicnet", CHECKPOINT_ARGS).state_dict(), folder / "run" / "model.pt")


def make_recipe(folder: Path) -> None:
    """A recipe, and a checkpoint that says how it was made, to begin with."""
    recipe = Recipe(arch="basicnet", data="digits", arch_args=CHECKPOINT_ARGS, iterations=2, batch_size=8)
    (folder / "recipe.json").write_text(recipe.to_json())
    torch.manual_seed(0)
    save_checkpoint(build("basicnet", CHECKPOINT_ARGS), folder / "warm.pt", recipe, 2)


def make_sweep(folder: Path) -> None:
    """A grid, and the folder of its sweep with a cell in every state; the one that was running has saved."""
    (folder / "grid.toml").write_text(GRID)
    (folder / "sweep" / "runs").mkdir(parents=True)
    store, cells = Store(folder / "sweep" / "sweep.sqlite"), read_grid(folder / "grid.toml")
    store.add(cells)
    ending = {"accuracy": {"top1": 0.5, "top5": 1.0, "n": 10}, "dead_filters": 0.25, "seconds": 1.0}
    store.finish(cells[0].key, ending)
    store.fail(cells[1].key, "the loss is no longer finite")
    store.begin(cells[2].key)
    with sqlite3.connect(folder / "sweep" / "sweep.sqlite") as table:
        table.execute("UPDATE cells SET started = 1e9, finished = 1e9 + 1 WHERE started IS NOT NULL")
    (folder / "cell.json").write_text(cells[2].recipe.to_json())
    trained(folder / "sweep" / "runs" / cells[2].key, "--recipe", folder / "cell.json")
    (folder / "cell.json").unlink()


def make_ladder(folder: Path) -> None:
    """A network, and a ladder of two rungs that was made from it."""
    make_network(folder / "net.pt")
    with mock.patch("slimnet.methods.iterative_pruning.save", save_empty):
        typed(*ladder(folder))


def make_comparison(folder: Path) -> None:
    """The folder of a comparison that was interrupted before its second row, and results that hold everything."""
    make_network(folder / "given.pt")
    with mock.patch("slimnet.comparison.folder.shutil.rmtree"):
        typed(*compare(folder))
    place = folder / "comparison"
    shutil.rmtree(place / "under_way" / "li2017-macs-0.5", ignore_errors=True)
    (place / "cells" / "random-macs-0.5.json").unlink()
    latency = Latency("onnxruntime", 1, 1, NAMES, SAMPLES)
    course = (Point(5, 0.9), Point(10, 0.1))
    outcomes = (
        Outcome("implicit", None, Size(95, 960, 900), 0.06, 1e-7, (), latency),
        Outcome("li2017", Budget("macs", 0.5), Size(60, 600, 450), 0.3, 1e-7, course, latency),
    )
    dense = Dense(Size(100, 1000, 1000), 0.06)
    found = Results("net.pt", "digits", 500, dense, outcomes, retraining("basicnet", "digits", 10), WHERE)
    _write(folder / "methods.json", found.to_dict())


def make_paper(folder: Path) -> None:
    """Results of the networks of a table and a figure, with one of their runs and a simulated figure."""
    place = folder / "paper" / "results"
    place.mkdir(parents=True)
    entries = [entry for name in PRINTED for entry in (catalogue.tables() | catalogue.figures())[name].entries]
    drawn = catalogue.figures()["fig2"].entries[0]
    for entry in entries:
        recipe = recipe_of(entry, "small")
        if recipe is not None:
            readings = dict.fromkeys(catalogue.READINGS, 0.0) | {"layers": (0.0,)} | dict(entry.paper)
            where = {"Processor": "P", "Device": "CPU", "Threads": "1"}
            run = results.Run(0, readings, (), (2, 1), 0, 0.0, 1.0, 1.0, where)
            results.add(place, [entry.name], "small", recipe, run)
            if entry.name == drawn.name:
                key, deep = Cell(recipe, "").key, CHECKPOINT_ARGS | {"widths": [2] * 7}
    trained(folder / "paper" / "runs" / key, "digits", "--arch", "basicnet", "--arch-args", json.dumps(deep), *SHORT)
    curve = scalars.Curve("adam", "l2", 1e-3, (0, 1), (1.0, 0.5), (1.0, 0.6), (1.0, 0.7), 1, None, None)
    figure = scalars.ScalarFigure("fig4", scalars.LowGradients(), (curve,))
    _write(folder / "paper" / "fig4.json", asdict(figure))


def make_benchmark(folder: Path) -> None:
    """What a benchmark writes."""
    layers = (LayerTimes("conv", "conv", (80, 20), SAMPLES), LayerTimes("MaxPool", "other", (0, 0), SAMPLES))
    comparison = Comparison(
        counts=(Counts("dense", 90, 100, {"onnx": 7}), Counts("slim", 30, 40, {})),
        latencies=(Latency("onnxruntime", 8, 1, NAMES, SAMPLES), Latency("torch", 1, 2, NAMES, SAMPLES, "cuda")),
        environment=WHERE,
        memories=(Memory("cpu", 8, NAMES, (300, 200)),),
        accuracies=(Accuracies("torch", "digits", NAMES, tuple(Accuracy(0.9, 1.0, 10) for _ in NAMES)),),
        profiles=(Profile("onnxruntime", 8, 1, NAMES, layers),),
    )
    (folder / "speed.json").write_text(comparison.to_json())


def typed(*arguments: object) -> None:
    """Type a command that has to succeed."""
    code = slimnet_cli.run(list(map(str, arguments)))
    assert code == 0, arguments


def trained(place: Path, *arguments: object) -> None:
    """Train in a folder, of which what differs from one time to the next is then made the same."""
    options = ("--threads", 1, "--checkpoint-every", 2, "--no-report", "--device", "cpu", "-o", place)
    typed("train", *arguments, *options)
    for name, values in (("metrics.jsonl", {"seconds": 1.5}), ("sessions.jsonl", {"began": "2026-01-01T00:00:00"})):
        lines = [json.dumps(json.loads(line) | values) for line in (place / name).read_text().splitlines()]
        (place / name).write_text("\n".join(lines) + "\n")
    for path in (place / "checkpoints").iterdir():
        torch.save(torch.load(path, weights_only=True) | {"seconds": 1.5}, path)


def make_network(path: Path) -> None:
    """The weights of a network for the digits that has dead channels."""
    torch.manual_seed(0)
    torch.save(lived_in(build("basicnet", CHECKPOINT_ARGS)).state_dict(), path)


def save_empty(slimmed: Slimmed, folder: Path, source: str | None = None, **_: object) -> None:
    """A bundle of which a ladder asks no more than whether it is as it was written; a real one takes seconds."""
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text(f"{name} of {source}\n")
    write_manifest(folder, source, slimmed.plan.digest)


def ladder(folder: Path) -> tuple[object, ...]:
    """The command that climbs the ladder of a specimen, or finds it climbed."""
    return ("ladder", folder / "net.pt", *OF_NETWORK, *OF_DIGITS, "--steps", 0.5, "-o", folder / "ladder")


def compare(folder: Path) -> tuple[object, ...]:
    """The command that makes the comparison of a specimen, or goes on with it."""
    which = ("--methods", "li2017,random", "--budget", 0.5, "--measure-on", 0, "--seconds", 0)
    tuning = ("--finetune", 2, "--batch-size", 8, "--tests", 1, "--threads", 1)
    place = ("-o", folder / "comparison")
    return ("compare", folder / "given.pt", *OF_NETWORK, *OF_DIGITS, *which, *tuning, *place)


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=1))


SPECIMENS: dict[str, Callable[[Path], None]] = {
    "bundle": make_bundle,
    "nameless": make_nameless,
    "checkpoint": make_checkpoints,
    "npz": make_npz,
    "images": make_image_folder,
    "run": make_run,
    "recipe": make_recipe,
    "sweep": make_sweep,
    "ladder": make_ladder,
    "comparison": make_comparison,
    "paper": make_paper,
    "benchmark": make_benchmark,
}
"""What makes the specimen of each kind, by the folder's name."""


def make_specimens(folder: Path, kinds: tuple[str, ...] = tuple(SPECIMENS)) -> None:
    """Make those of some kinds, unless they are there already."""
    for kind in kinds:
        if (folder / kind).is_dir():
            continue
        staging = folder / f"{kind}.part"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        SPECIMENS[kind](staging)
        staging.rename(folder / kind)
