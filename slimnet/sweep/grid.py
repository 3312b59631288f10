"""A grid of recipes, read from a TOML file: the shared fields, the varied ones, and a description of each cell."""

import dataclasses
import hashlib
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimnet.errors import UsageError
from slimnet.storage.records import read_toml
from slimnet.training.recipe.recipe import Recipe

TABLES = ("base", "grid", "cells")
ID_LENGTH = 12
MOST_CELLS = 100_000
Fields = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: its recipe, and a description of what is varied.

    `key` is short and depends on the recipe only, not on the grid.
    """

    recipe: Recipe
    varied: str

    @property
    def key(self) -> str:
        """The first digits of the SHA-256 of the recipe's JSON."""
        return hashlib.sha256(self.recipe.to_json().encode()).hexdigest()[:ID_LENGTH]


def read_grid(path: str | Path) -> tuple[Cell, ...]:
    """Read the cells of a grid file, in the order in which they run; equal cells once.

    `[base]` holds recipe fields that all cells share, `[[cells]]` variants of it, and `[grid]` lists of values:
    every combination of these is run for each variant. `arch_args.width` refers to one argument of the network.

    Raises:
        UsageError: the file is missing or not TOML, or a cell is no recipe.
    """
    path = Path(path)
    tables = read_toml(path, UsageError)
    try:
        return cells_of(tables)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def cells_of(tables: Fields) -> tuple[Cell, ...]:
    """The cells of a parsed grid.

    Raises:
        UsageError: there is an unknown table, a value has the wrong type, or a cell is no recipe.
    """
    unknown = sorted(set(tables) - set(TABLES))
    if unknown:
        raise UsageError(f"there is no table {unknown[0]!r} in a grid; its tables are {', '.join(TABLES)}")
    base, grid, variants = (tables.get(name, kind()) for name, kind in zip(TABLES, (dict, dict, list), strict=True))
    named = isinstance(base, dict) and isinstance(grid, dict) and isinstance(variants, list)
    if not named or not all(isinstance(variant, dict) for variant in variants):
        raise UsageError("a grid has [base] and [grid], and [[cells]] as often as wanted")
    axes = [[(name, value) for value in values_of(name, values)] for name, values in flattened(grid).items()]
    count = math.prod(map(len, axes)) * max(1, len(variants))
    if count > MOST_CELLS:
        raise UsageError(f"a grid of {count:,} cells is too large; it may have {MOST_CELLS:,}")
    found: dict[str, Cell] = {}
    for variant, combination in itertools.product(variants or [{}], itertools.product(*axes)):
        varied = flattened(variant) | dict(combination)
        cell = Cell(recipe_of(flattened(base) | varied), described(varied))
        found.setdefault(cell.key, cell)
    return tuple(found.values())


def values_of(name: str, values: Any) -> list[Any]:
    """The values of one field of the grid."""
    if not isinstance(values, list) or not values:
        raise UsageError(f"the grid's {name} is {values!r}; it must be a list of values")
    return values


def flattened(fields: Fields) -> Fields:
    """The fields, with the network's arguments as dotted names."""
    found: Fields = {}
    for name, value in fields.items():
        if name == "arch_args" and isinstance(value, dict):
            found |= {f"arch_args.{inner}": each for inner, each in value.items()}
        else:
            found[name] = value
    return found


def recipe_of(fields: Fields) -> Recipe:
    """A recipe from flat fields.

    Raises:
        UsageError: a field is unknown or missing, or a value is out of range.
    """
    arguments = {name.partition(".")[2]: value for name, value in fields.items() if name.startswith("arch_args.")}
    plain = {name: value for name, value in fields.items() if not name.startswith("arch_args.")}
    known = [field.name for field in dataclasses.fields(Recipe)]
    unknown = sorted(set(plain) - set(known))
    missing = [name for name in ("arch", "data", "iterations") if name not in plain]
    if unknown:
        raise UsageError(f"recipes have no field {unknown[0]!r}; their fields are {', '.join(known)}")
    if missing:
        raise UsageError(f"a cell lacks {missing[0]!r}; say it under [base]")
    return Recipe(**plain | ({"arch_args": arguments} if arguments else {}))


def described(varied: Fields) -> str:
    """The varied fields of a cell as text, such as "l2=0.001, seed=1"."""
    return ", ".join(f"{name}={value}" for name, value in varied.items()) or "the only one"
