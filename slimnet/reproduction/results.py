"""Results, one JSON file for each network of the paper and scale, with their recipes and environments."""

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from slimnet.errors import SlimnetError, UsageError
from slimnet.reproduction.catalogue import READINGS, Value, by_worth
from slimnet.reproduction.measure import Measured
from slimnet.reproduction.scales import Scale, recipe_of
from slimnet.reproduction.variation import Variation, describe_difference, variation_of
from slimnet.storage.field_types import Amount, Count, NotEmpty, Share, Size
from slimnet.storage.files import whole_file
from slimnet.storage.records import build, read_json
from slimnet.training import Recipe

DIGITS = 5
"""The significant digits of stored numbers; the fifth is noise already."""


Reading = int | float | tuple[float, ...]
"""A number, or one for each layer."""


PER_LAYER = "layers"
"""The reading with one number for each layer."""

HARDWARE = ("Device", "Processor", "Threads")
"""The required entries of a run's environment."""


@dataclass(frozen=True)
class ShownLayer:
    """The data of a layer in figures; see `slimnet.reproduction.measure.Measured`."""

    layer: str
    features: Size
    dead_by_activation: Count | None
    universality: Share | None
    bins: Annotated[tuple[Count, ...], NotEmpty()]


@dataclass(frozen=True)
class Run:
    """One trained network: its seed, its measurements, the environment and the speed of its training.

    `images_per_second` is that of training only; `environment` is that of `slimnet.benchmark.Environment.rows`, with
    the device and the number of threads.
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
    """All runs of one recipe. `names` are the networks of the paper with this recipe; seeds are in `runs`."""

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
        """The iterations of each run."""
        return int(self.recipe["iterations"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the runs."""
        return tuple(run.seed for run in self.runs)

    @property
    def variation(self) -> Variation:
        """How its recipe differs from the paper's."""
        return variation_of(Recipe(**{**self.recipe, "seed": 0}))

    def is_of(self, recipe: Recipe) -> bool:
        """Whether it has this recipe except for the seed; fields added to recipes since have their default."""
        return Recipe(**{**self.recipe, "seed": recipe.seed}) == recipe

    def is_like(self, recipe: Recipe) -> bool:
        """Whether it has this recipe of the paper except for the seed and its own variation."""
        return self.is_of(self.variation.applied(recipe))

    def mean(self, reading: str) -> Value:
        """A reading as the mean over the runs, for each layer if it has one number for each."""
        values: list[Any] = [run.readings[reading] for run in self.runs]
        if isinstance(values[0], list | tuple):
            return tuple(statistics.fmean(each) for each in zip(*values, strict=True))
        return statistics.fmean(values)

    def spread(self, reading: str) -> float | None:
        """Half the range of a reading over the runs; None with fewer than two runs."""
        values: list[Any] = [run.readings[reading] for run in self.runs]
        if len(values) < 2 or isinstance(values[0], list | tuple):
            return None
        return (max(values) - min(values)) / 2


def length_of(reading: Any) -> int | None:
    """The number of layers of a reading; None if it is one number."""
    return len(reading) if isinstance(reading, list | tuple) else None


def run_of(measured: Measured, recipe: Recipe, seconds: float, environment: Mapping[str, str]) -> Run:
    """A run from its measurements and the duration of its training."""
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
    """The fields of a recipe that all runs of a result share."""
    return {name: value for name, value in json.loads(recipe.to_json()).items() if name != "seed"}


def file_name(names: Sequence[str], scale: Scale) -> str:
    """The file name of a result, by the first of its names."""
    return f"{names[0]}-{scale}.json"


def add(folder: Path, names: Sequence[str], scale: Scale, recipe: Recipe, run: Run) -> Result:
    """Store a run with the others of its recipe; one of the same seed is replaced.

    Raises:
        SlimnetError: it cannot be written.
        UsageError: the others are of another variation of the recipe.
    """
    path, shared = folder / file_name(names, scale), without_seed(recipe)
    check_alike(folder, names, scale, recipe)
    earlier = read(path) if path.exists() else None
    others = earlier.runs if earlier is not None and earlier.is_of(recipe) else ()
    runs = sorted([*(each for each in others if each.seed != run.seed), run], key=lambda each: each.seed)
    result = Result(tuple(names), scale, shared, tuple(runs))
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(path, SlimnetError) as file:
        # The numbers of the recipe are not rounded, since recipes are compared.
        written = _short(dataclasses.asdict(result)) | {"recipe": shared}
        file.write_text(json.dumps(written, ensure_ascii=False) + "\n", encoding="utf-8")
    return result


def read(path: Path) -> Result:
    """Read a result.

    Raises:
        UsageError: it is no result.
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
    """The problem of an incomplete run, or None."""
    for name in READINGS:
        if name not in run.readings:
            return f"lacks the reading {name!r}"
        if (length_of(run.readings[name]) is None) == (name == PER_LAYER):
            return f"has the reading {name!r} {'once' if name == PER_LAYER else 'for each layer'}"
    return next((f"lacks {name!r} in its environment" for name in HARDWARE if name not in run.environment), None)


def read_all(folder: Path, scale: Scale) -> dict[str, Result]:
    """The results of a scale, by the name of every network that they apply to.

    Raises:
        UsageError: a file is no result.
    """
    found = [read(path) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []
    return {name: result for result in found if result.scale == scale for name in result.names}


def current(results: Mapping[str, Result]) -> dict[str, Result]:
    """The results with the current recipe of their network; a scale may have changed since the others were made."""
    found = {}
    for entry in by_worth():
        result = results.get(entry.name)
        recipe = recipe_of(entry, result.scale) if result else None
        if result and recipe and result.is_like(recipe):
            found[entry.name] = result
    return found


def check_alike(folder: Path, names: Sequence[str], scale: Scale, recipe: Recipe) -> None:
    """Refuse to mix runs of two variations of a recipe, such as two precisions.

    Raises:
        UsageError: the folder holds runs of another variation for this network.
    """
    path = folder / file_name(names, scale)
    if not path.exists():
        return
    earlier = read(path)
    if not earlier.is_like(recipe) or earlier.is_of(recipe):
        return
    kind = describe_difference(earlier.variation, variation_of(recipe))
    raise UsageError(f"{path} holds runs that {kind}; reproduce the others in another folder")


def holds(folder: Path, names: Sequence[str], scale: Scale, recipe: Recipe) -> bool:
    """Whether a run is stored."""
    path = folder / file_name(names, scale)
    if not path.exists():
        return False
    known = read(path)
    return known.is_of(recipe) and recipe.seed in known.seeds


def environments(results: Iterable[Result]) -> list[Mapping[str, str]]:
    """The distinct environments of all runs, without the time."""
    found: dict[str, Mapping[str, str]] = {}
    for result in results:
        for run in result.runs:
            found.setdefault(hardware(run.environment), run.environment)
    return list(found.values())


def hardware(environment: Mapping[str, str]) -> str:
    """A short description of a machine, such as "CPU, Intel(R) Xeon(R) Processor, 1 thread"."""
    threads = environment["Threads"]
    return f"{environment['Device']}, {environment['Processor']}, {threads} thread{'' if threads == '1' else 's'}"


def _short(value: Any) -> Any:
    """Numbers rounded to the significant digits, in nested data."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {name: _short(each) for name, each in value.items()}
    return [_short(each) for each in value] if isinstance(value, list | tuple) else value
