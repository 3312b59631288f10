"""What was found, one JSON file for each network of the paper and scale, with where and how it was found."""

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from slimnet.errors import SlimnetError, UsageError
from slimnet.reproduction.catalogue import READINGS, Value, by_worth
from slimnet.reproduction.measure import Measured
from slimnet.reproduction.scales import Scale, recipe_of
from slimnet.storage.field_types import Amount, Count, NotEmpty, Share, Size
from slimnet.storage.files import whole_file
from slimnet.storage.records import build, read_json
from slimnet.training import Recipe

DIGITS = 5
"""Significant digits that are kept; the fifth is noise already."""


Reading = int | float | tuple[float, ...]
"""A number, or one for each layer."""


PER_LAYER = "layers"
"""The reading that is one number for each layer."""

HARDWARE = ("Device", "Processor", "Threads")
"""What a run's environment says at least."""


@dataclass(frozen=True)
class ShownLayer:
    """What figures show of a layer's features; see `slimnet.reproduction.measure.Measured`."""

    layer: str
    features: Size
    dead_by_activation: Count | None
    universality: Share | None
    bins: Annotated[tuple[Count, ...], NotEmpty()]


@dataclass(frozen=True)
class Run:
    """One trained network: its seed, what was measured, and where it was trained and how fast.

    `images_per_second` counts training alone; `environment` is as `slimnet.benchmark.Environment.rows` has it, with
    the device and its threads.
    """

    seed: int
    readings: Mapping[str, Reading]
    layers: Sequence[Mapping[str, Any]]
    macs: tuple[Size, Size]
    removed: Count
    difference: Amount
    seconds: Amount
    images_per_second: Amount
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Result:
    """All runs of one recipe. `names` are the networks of the paper that it stands for; seeds are in `runs`."""

    names: Annotated[tuple[str, ...], NotEmpty()]
    scale: Scale
    recipe: Mapping[str, Any]
    runs: Annotated[tuple[Run, ...], NotEmpty()]

    def __post_init__(self) -> None:
        build(Recipe, {**self.recipe, "seed": 0}, "its recipe", UsageError)
        first = {name: length_of(value) for name, value in self.runs[0].readings.items()}
        if any({name: length_of(value) for name, value in run.readings.items()} != first for run in self.runs):
            raise UsageError("its runs have different readings")

    @property
    def iterations(self) -> int:
        """Of each run."""
        return int(self.recipe["iterations"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the runs."""
        return tuple(run.seed for run in self.runs)

    @property
    def shrink_every(self) -> int:
        """The iterations between two removals of dead channels during training; 0 where none were removed."""
        return int(self.recipe.get("shrink_every", 0))

    def is_of(self, recipe: Recipe) -> bool:
        """Whether it is of this recipe but for the seed; fields that recipes have got since then have their default."""
        return Recipe(**{**self.recipe, "seed": recipe.seed}) == recipe

    def is_like(self, recipe: Recipe) -> bool:
        """Whether it is of this recipe but for the seed, and for removing dead channels during training."""
        return self.is_of(replace(recipe, shrink_every=self.shrink_every))

    def mean(self, reading: str) -> Value:
        """A reading, as the mean over the runs; of each layer where it has one for each."""
        values: list[Any] = [run.readings[reading] for run in self.runs]
        if isinstance(values[0], list | tuple):
            return tuple(statistics.fmean(each) for each in zip(*values, strict=True))
        return statistics.fmean(values)

    def spread(self, reading: str) -> float | None:
        """Half the distance between the smallest and the largest of a reading; None with fewer than two runs."""
        values: list[Any] = [run.readings[reading] for run in self.runs]
        if len(values) < 2 or isinstance(values[0], list | tuple):
            return None
        return (max(values) - min(values)) / 2


def length_of(reading: Any) -> int | None:
    """How many layers a reading is about; None where it is one number."""
    return len(reading) if isinstance(reading, list | tuple) else None


def run_of(measured: Measured, recipe: Recipe, seconds: float, environment: Mapping[str, str]) -> Run:
    """A run, from what was measured and how long the training took."""
    images = recipe.iterations * recipe.batch_size
    return Run(
        recipe.seed,
        measured.readings,
        measured.layers,
        measured.macs,
        measured.removed,
        measured.difference,
        seconds,
        images / seconds,
        environment,
    )


def without_seed(recipe: Recipe) -> dict[str, Any]:
    """What all runs of a result share."""
    return {name: value for name, value in json.loads(recipe.to_json()).items() if name != "seed"}


def file_name(names: Sequence[str], scale: Scale) -> str:
    """Where a result is kept: under the first of its names."""
    return f"{names[0]}-{scale}.json"


def add(folder: Path, names: Sequence[str], scale: Scale, recipe: Recipe, run: Run) -> Result:
    """Write a run down beside the others of its recipe; one of the same seed is replaced.

    Raises:
        SlimnetError: the disk refuses it.
        UsageError: the others were trained with dead channels removed, and this one was not, or the reverse.
    """
    path, shared = folder / file_name(names, scale), without_seed(recipe)
    check_shrinking(folder, names, scale, recipe)
    earlier = read(path) if path.exists() else None
    others = earlier.runs if earlier is not None and earlier.is_of(recipe) else ()
    runs = sorted([*(each for each in others if each.seed != run.seed), run], key=lambda each: each.seed)
    result = Result(tuple(names), scale, shared, tuple(runs))
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(path, SlimnetError) as file:
        # The recipe keeps its digits: it is compared with others.
        written = _short(dataclasses.asdict(result)) | {"recipe": shared}
        file.write_text(json.dumps(written, ensure_ascii=False) + "\n", encoding="utf-8")
    return result


def read(path: Path) -> Result:
    """Read a result.

    Raises:
        UsageError: it is none.
    """
    wrong = f"{path} holds no result"
    again = "delete it, and run its cell again"
    result = build(Result, read_json(path, UsageError, again), wrong, UsageError, advice=again)
    for number, run in enumerate(result.runs):
        if problem := _lacking(run):
            raise UsageError(f"{wrong}: runs[{number}] {problem}; {again}")
        build(tuple[ShownLayer, ...], run.layers, f"{wrong}: runs[{number}].layers", UsageError, advice=again)
    return result


def _lacking(run: Run) -> str | None:
    """What a run must say and does not."""
    for name in READINGS:
        if name not in run.readings:
            return f"lacks the reading {name!r}"
        if (length_of(run.readings[name]) is None) == (name == PER_LAYER):
            return f"has the reading {name!r} {'once' if name == PER_LAYER else 'for each layer'}"
    return next((f"lacks {name!r} in its environment" for name in HARDWARE if name not in run.environment), None)


def read_all(folder: Path, scale: Scale) -> dict[str, Result]:
    """The results of a scale by the name of every network that they stand for.

    Raises:
        UsageError: a file is no result.
    """
    found = [read(path) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []
    return {name: result for result in found if result.scale == scale for name in result.names}


def current(results: Mapping[str, Result]) -> dict[str, Result]:
    """Those that were trained as their network is trained today; a scale may have changed since the others were."""
    found = {}
    for entry in by_worth():
        result = results.get(entry.name)
        recipe = recipe_of(entry, result.scale) if result else None
        if result and recipe and result.is_like(recipe):
            found[entry.name] = result
    return found


def check_shrinking(folder: Path, names: Sequence[str], scale: Scale, recipe: Recipe) -> None:
    """Refuse to mix runs that removed dead channels during training with runs that did not.

    Raises:
        UsageError: the folder holds the other kind of this network.
    """
    path = folder / file_name(names, scale)
    if not path.exists():
        return
    earlier = read(path)
    if earlier.is_like(recipe) and not earlier.is_of(recipe):
        kinds = {True: "removed dead filters during training (--shrink)", False: "kept dead filters during training"}
        raise UsageError(
            f"{path} holds runs that {kinds[earlier.shrink_every > 0]}; reproduce the others in another folder"
        )


def holds(folder: Path, names: Sequence[str], scale: Scale, recipe: Recipe) -> bool:
    """Whether a run is written down already."""
    path = folder / file_name(names, scale)
    if not path.exists():
        return False
    known = read(path)
    return known.is_of(recipe) and recipe.seed in known.seeds


def environments(results: Iterable[Result]) -> list[Mapping[str, str]]:
    """What all the runs were made on, each once, apart from when."""
    found: dict[str, Mapping[str, str]] = {}
    for result in results:
        for run in result.runs:
            found.setdefault(hardware(run.environment), run.environment)
    return list(found.values())


def hardware(environment: Mapping[str, str]) -> str:
    """A machine in a few words, such as "CPU, Intel(R) Xeon(R) Processor, 1 thread"."""
    threads = environment["Threads"]
    return f"{environment['Device']}, {environment['Processor']}, {threads} thread{'' if threads == '1' else 's'}"


def _short(value: Any) -> Any:
    """Numbers with as many digits as mean something."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {name: _short(each) for name, each in value.items()}
    return [_short(each) for each in value] if isinstance(value, list | tuple) else value
