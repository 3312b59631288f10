"""One good specimen of every kind of file that slimnet reads, each in a folder of its own."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import safetensors.torch
import slimnet_cli
import torch
from bundles import SHAPE, basic_net, images, make, tied_net
from PIL import Image

from slimnet.benchmark import Accuracies, Comparison, Counts, Environment, Latency, LayerTimes, Memory, Profile
from slimnet.comparison import Dense, Outcome, Results, Size
from slimnet.methods import Budget
from slimnet.methods.iterative_pruning import MAKER, RECORD, Rung
from slimnet.models import build
from slimnet.reproduction import catalogue, results
from slimnet.reproduction.scales import recipe_of
from slimnet.sweep import Store, read_grid
from slimnet.training import Accuracy
from slimnet.training.finetune import Point, retraining

CHECKPOINT_ARGS = {"widths": [4, 6], "pool_after": [1], "hidden": 8, "in_channels": 1}
WHERE = Environment("CPU", "AVX2", 2, None, "Linux", "3.12", "2.9", "1.20", "0.1", "2026-01-01 00:00 UTC", "2 GHz")
NAMES = ("dense", "slim")
SAMPLES = tuple(tuple(base + 0.01 * step for step in range(12)) for base in (2.0, 1.0))
GRID = """[base]
arch = "basicnet"
data = "digits"
iterations = 2500
arch_args = {width = 0.25, in_channels = 1}
[grid]
l2 = [1e-3, 1e-2]
seed = [0, 1]
[[cells]]
batch_size = 64
"""


def make_bundle(folder: Path) -> None:
    """A bundle that says how its network is built."""
    make(basic_net(), torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0)), folder / "slim", "net.pt")
    torch.save(basic_net().state_dict(), folder / "dense.pt")


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
    arguments = ["train", "digits", "--arch", "basicnet", "--arch-args", json.dumps(CHECKPOINT_ARGS), "--threads", "1"]
    schedule = ["--iterations", "8", "--batch-size", "16", "--checkpoint-every", "4", "--no-report"]
    code = slimnet_cli.run([*arguments, *schedule, "--device", "cpu", "-o", str(folder / "run")])
    assert code == 0


def make_sweep(folder: Path) -> None:
    """A grid, and the table of its sweep with a cell in every state."""
    (folder / "grid.toml").write_text(GRID)
    (folder / "sweep").mkdir()
    store, cells = Store(folder / "sweep" / "sweep.sqlite"), read_grid(folder / "grid.toml")
    store.add(cells)
    store.finish(cells[0].key, {"accuracy": {"top1": 0.5, "top5": 1.0, "images": 10}, "dead_filters": 0.25})
    store.fail(cells[1].key, "the loss is no longer finite")
    store.begin(cells[2].key)
    with sqlite3.connect(folder / "sweep" / "sweep.sqlite") as table:
        table.execute("UPDATE cells SET started = 1e9, finished = 1e9 + 1 WHERE started IS NOT NULL")


def make_ladder(folder: Path) -> None:
    """What a ladder keeps of its rungs."""
    rungs = (
        Rung("dense", 100, 1000, accuracy=0.9, images=10),
        Rung("exact", 80, 700, 3, difference=1e-7, accuracy=0.9, images=10),
        Rung("macs-0.5", note="cannot be met"),
    )
    (folder / "ladder").mkdir()
    document = {"made_by": MAKER, "conditions": {"arch": "basicnet"}, "rungs": [asdict(rung) for rung in rungs]}
    (folder / "ladder" / RECORD).write_text(json.dumps(document, indent=1))


def make_comparison(folder: Path) -> None:
    """The folder of a finished comparison of methods."""
    latency = Latency("onnxruntime", 1, 1, NAMES, SAMPLES)
    course = (Point(5, 0.9), Point(10, 0.1))
    outcomes = (
        Outcome("implicit", None, Size(95, 960, 900), 0.06, 1e-7, (), latency),
        Outcome("li2017", Budget("macs", 0.5), Size(60, 600, 450), 0.3, 1e-7, course, latency),
    )
    dense = Dense(Size(100, 1000, 1000), 0.06)
    found = Results("net.pt", "digits", 500, dense, outcomes, retraining("basicnet", "digits", 10), WHERE)
    place = folder / "comparison"
    (place / "cells").mkdir(parents=True)
    (place / "under_way" / "cell").mkdir(parents=True)
    _write(place / "results.json", found.to_dict())
    _write(place / "comparison.json", {"conditions": {"network": "net.pt"}, "environment": asdict(WHERE)})
    _write(place / "dense.json", asdict(dense))
    _write(place / "cells" / "cell.json", outcomes[1].to_dict())
    selection = {"method": "li2017", "channels": {"bn1": [0, 2]}, "threshold": 0.001}
    _write(place / "under_way" / "cell" / "selection.json", selection)


def make_paper(folder: Path) -> None:
    """Results of the networks of one table."""
    for entry in catalogue.tables()["table4"].entries:
        if entry.of is not None:
            continue
        recipe = recipe_of(entry, "small")
        readings = dict.fromkeys(catalogue.READINGS, 0.0) | {"layers": (0.0,)} | dict(entry.paper)
        where = {"Processor": "P", "Device": "CPU", "Threads": "1"}
        run = results.Run(0, readings, (), (2, 1), 0, 0.0, 1.0, 1.0, where)
        (folder / "paper" / "results").mkdir(parents=True, exist_ok=True)
        results.add(folder / "paper" / "results", [entry.name], "small", recipe, run)


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


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=1))


SPECIMENS: dict[str, Callable[[Path], None]] = {
    "bundle": make_bundle,
    "nameless": make_nameless,
    "checkpoint": make_checkpoints,
    "npz": make_npz,
    "images": make_image_folder,
    "run": make_run,
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
