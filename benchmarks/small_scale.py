"""Is CIFAR-10 left with more dead filters than CIFAR-100, as in the paper, under other settings of the small scale?

    python benchmarks/small_scale.py --data-root data [--seeds 3]
    python benchmarks/small_scale.py --table

The small scale multiplies λ and Adam's learning rate by ten, and with L2 1e-3 the paper's order of the two data sets is
turned round there. Here table 1's cells are trained with less λ, with smaller steps, longer, or with larger batches.
What is in results/small_scale.json, or is a cell of the paper's tables as it is, is not run again.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import paper

from slimnet.benchmark.environment import environment
from slimnet.data import ImageData, load_data
from slimnet.errors import SlimnetError
from slimnet.reproduction.catalogue import datasets, entry
from slimnet.reproduction.images import source_of, write_small
from slimnet.reproduction.measure import scores
from slimnet.reproduction.results import Result
from slimnet.reproduction.scales import DROP_AT, images_of, recipe_of
from slimnet.storage.files import whole_file
from slimnet.training import Recipe, train
from slimnet.training.analysis.metrics import sparsity_by_gamma

RESULTS = Path(__file__).parent / "results" / "small_scale.json"
DATA = ("cifar10", "cifar100")

Reading = tuple[float, float]
"""Filters dead by γ, in per cent, and training loss."""


@dataclass(frozen=True)
class Setting:
    """The paper's λ, what it and the paper's learning rate are multiplied by, and how long and with what batches."""

    l2: float
    strength: float = 10
    rate: float = 10
    iterations: int = 2000
    batch_size: int = 40

    @property
    def columns(self) -> tuple[str, ...]:
        """In words."""
        l2 = f"{self.l2:.0e}".replace("e-0", "e-")
        factors = f"{self.strength:g}", f"{self.rate:g}"
        return (l2, *factors, f"{self.iterations:,}", str(self.batch_size))

    def recipe(self, data: str, seed: int) -> Recipe:
        """Of a cell under this setting."""
        small = recipe_of(entry("table1", "Adam, L2 1e-3", data), "small", seed)
        assert small is not None
        return replace(
            small,
            # 3 × 1e-4 is to be 3e-4.
            l2=float(f"{self.l2 * self.strength:.6g}"),
            lr=float(f"{0.001 * self.rate:.6g}"),
            iterations=self.iterations,
            drops=(self.iterations * DROP_AT[0] // DROP_AT[1],),
            batch_size=self.batch_size,
        )


SETTINGS = (
    *(Setting(l2) for l2 in (1e-3, 1e-4)),
    *(Setting(1e-3, factor) for factor in (5, 3, 2)),
    Setting(1e-4, 3),
    *(Setting(1e-3, factor, iterations=4000) for factor in (10, 3)),
    *(Setting(l2, factor, batch_size=160) for factor in (10, 3) for l2 in (1e-3, 1e-4)),
    *(Setting(l2, factor, rate=3) for factor in (10, 3) for l2 in (1e-3, 1e-4)),
    *(Setting(l2, 5, rate=5) for l2 in (1e-3, 1e-4)),
    *(Setting(l2, factor, iterations=500, batch_size=160) for factor in (10, 3) for l2 in (1e-3, 1e-4)),
)


def run(setting: Setting, data: ImageData, name: str, seed: int) -> dict[str, Any]:
    """Train one network and read off how much of it died and what it has learnt."""
    start = time.perf_counter()
    training = train(setting.recipe(name, seed), data, threads=1, every=500)
    for _ in training:
        pass
    model = training.model.eval()
    return {
        "setting": asdict(setting),
        "data": name,
        "seed": seed,
        "gamma": round(100 * sparsity_by_gamma(model), 1),
        "train_loss": round(scores(model, data, "train", 256).loss, 3),
        "seconds": round(time.perf_counter() - start, 1),
    }


@cache
def small(name: str, root: Path) -> ImageData:
    """The small data set."""
    images = load_data(source_of(datasets()[name], root))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.npz"
        part = images_of("small")
        assert part is not None
        write_small(images, path, size=part.size["basicnet"], train=part.train, test=part.test)
        return load_data(str(path))


def known() -> dict[str, Any]:
    """What has been run."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": []}


def readings(
    setting: Setting, name: str, results: Mapping[str, Any], cells: Mapping[str, Result]
) -> dict[int, Reading]:
    """What is known of a setting on a data set, by seed: from here, and from a cell of the paper's that is the same."""
    recipe = setting.recipe(name, 0)
    same = [run for cell in cells.values() if cell.is_of(recipe) for run in cell.runs]
    found = {run.seed: (run.readings["gamma"], run.readings["train_loss"]) for run in same}
    own = [run for run in results["runs"] if (run["setting"], run["data"]) == (asdict(setting), name)]
    return found | {run["seed"]: (run["gamma"], run["train_loss"]) for run in own}


def table(results: Mapping[str, Any]) -> str:
    """Dead filters, with half the range of the seeds, and training loss of both data sets, setting by setting."""
    lines = [
        "| λ | × | learning rate × | iterations | batch | CIFAR-10: dead, % (loss) | CIFAR-100: dead, % (loss) | "
        "difference | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    cells = paper.found("small").results
    for setting in SETTINGS:
        both = [list(readings(setting, name, results, cells).values()) for name in DATA]
        if all(both):
            first, second = (statistics.fmean(dead for dead, _ in own) for own in both)
            columns = [*setting.columns, *map(shown, both), f"{first - second:+.1f}", str(min(map(len, both)))]
            lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


def shown(found: list[Reading]) -> str:
    """The seeds of one setting on one data set."""
    dead, losses = zip(*found, strict=True)
    spread = f" ± {(max(dead) - min(dead)) / 2:.1f}" if len(dead) > 1 else ""
    return f"{statistics.fmean(dead):.1f}{spread} ({statistics.fmean(losses):.2f})"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="where cifar10.npz and cifar100.npz are")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print what has been found and run nothing")
    options = parser.parse_args()
    results, cells = known(), paper.found("small").results
    wanted = [(seed, setting, name) for seed in range(options.seeds) for setting in SETTINGS for name in DATA]
    for seed, setting, name in () if options.table else wanted:
        if seed not in readings(setting, name, results, cells):
            results["runs"].append(run(setting, small(name, options.data_root), name, seed))
            results["environment"] = dict(environment().rows())
            with whole_file(RESULTS, SlimnetError) as file:
                file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
