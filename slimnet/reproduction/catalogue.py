"""The paper's tables and figures as printed: rows, numbers, and the recipe fields of each row."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from slimnet.errors import UsageError, near_names

Value = float | tuple[float, ...]
Printed = Mapping[str, Value]
"""The printed numbers of one network, by the name of the reading (see `READINGS`)."""

READINGS = {
    "gamma": "dead by γ, %",
    "activation": "dead by activation, %",
    "layers": "dead by γ in each layer, %",
    "train_loss": "training loss",
    "test_loss": "test loss",
    "error": "error, %",
    "top5_error": "top-5 error, %",
    "features_pruned": "features pruned",
    "pruned_params": "parameters pruned, %",
    "pruned_error": "error after pruning, %",
    "pruned_top5_error": "top-5 error after pruning, %",
}
"""All readings of a table, in the order of its columns."""


SIMULATED = ("fig4", "supp-fig3")
"""The figures that are simulated without a network: see `slimnet.reproduction.scalars`."""

NEAREST = 3
"""The most names that are suggested for an unknown one."""

TRENDS = "trends"
"""The name that selects the networks of the stated trends: see `slimnet.reproduction.trends`."""


@dataclass(frozen=True)
class Entry:
    """One network of a table: a row on one data set.

    Attributes:
        table: the name of the table.
        row: the label of the row.
        data: the name of the data set.
        fields: recipe fields that differ from the default ones.
        paper: the printed numbers, by reading.
        of: the authors of another method that the paper quotes; None for the paper's own.
    """

    table: str
    row: str
    data: str
    fields: Mapping[str, Any]
    paper: Printed
    of: str | None = None

    @property
    def name(self) -> str:
        """A name for files and command lines, such as "table1-adam-l2-1e-3-cifar10"."""
        kept = self.row.lower().replace("γ", "gamma").replace("β", "beta").replace("−", "-")
        words = "".join(letter if letter.isalnum() or letter in ".-" else " " for letter in kept).split()
        return "-".join((self.table, *words, self.data))

    @property
    def dead(self) -> float:
        """The share of filters, 0..1, that the paper prints as dead; 0 if it prints none."""
        printed = self.paper.get("gamma", self.paper.get("activation", 0.0))
        return printed / 100 if isinstance(printed, float | int) else 0.0


@dataclass(frozen=True)
class Table:
    """A table of the paper; its numbers are means over `runs` runs, None if that is not printed."""

    name: str
    title: str
    source: str
    runs: int | None
    entries: tuple[Entry, ...]
    notes: tuple[str, ...]

    @property
    def readings(self) -> tuple[str, ...]:
        """Its readings, in the order of columns."""
        return tuple(name for name in READINGS if any(name in entry.paper for entry in self.entries))


@dataclass(frozen=True)
class Figure:
    """A figure of the paper that is drawn from runs: histories of γ and β, or the universality of features.

    `layer` is the convolution of a history, counted from 1.
    """

    name: str
    title: str
    source: str
    kind: str
    entries: tuple[Entry, ...]
    notes: tuple[str, ...]
    layer: int | None = None


@dataclass(frozen=True)
class Dataset:
    """A data set of the paper: its classes, training images and their size, and the length of a full run.

    `places` are the file or folder names under which it is searched, `needs` describes what to provide. Either the
    `iterations` of a full run are given, or the `epochs`.
    """

    name: str
    title: str
    classes: int
    images: int
    size: int
    places: tuple[str, ...]
    needs: str
    iterations: int | None = None
    epochs: int | None = None

    def length(self, batch_size: int) -> int:
        """The iterations of a full run."""
        return self.iterations or (self.epochs or 1) * self.images // batch_size


@functools.cache
def document(name: str) -> Any:
    """One of the package's data files."""
    return json.loads(resources.files("slimnet.reproduction").joinpath(name).read_text(encoding="utf-8"))


@functools.cache
def tables() -> dict[str, Table]:
    """Every table of the paper and its supplement by name, in order."""
    return {name: _table(name, content) for name, content in document("tables.json")["tables"].items()}


def _table(name: str, content: Mapping[str, Any]) -> Table:
    entries = [
        Entry(name, row["label"], data, _joined(content["base"], row["fields"]), _frozen(paper), row.get("of"))
        for row in content["rows"]
        for data, paper in row["paper"].items()
    ]
    return Table(
        name, content["title"], content["source"], content.get("runs"), tuple(entries), tuple(content["notes"])
    )


def _joined(base: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a row added to those of its table; arguments of the network are merged too."""
    arguments = {**base.get("arch_args", {}), **fields.get("arch_args", {})}
    return {**base, **fields} | ({"arch_args": arguments} if arguments else {})


def _frozen(paper: Mapping[str, Any]) -> Printed:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in paper.items()}


@functools.cache
def figures() -> dict[str, Figure]:
    """Every figure that is drawn from runs, by name."""
    return {
        name: Figure(
            name,
            content["title"],
            content["source"],
            content["kind"],
            tuple(entry(*place) for place in content["cells"]),
            tuple(content["notes"]),
            content.get("layer"),
        )
        for name, content in document("experiments.json")["figures"].items()
    }


@functools.cache
def datasets() -> Mapping[str, Dataset]:
    """The data sets of the paper, by name."""
    found = document("experiments.json")["data"]
    return {name: Dataset(name, **content | {"places": tuple(content["places"])}) for name, content in found.items()}


def printed(names: Sequence[str]) -> list[Table | Figure]:
    """The tables and figures of these names, without those that are simulated.

    Names of single networks give their tables, with these rows only.
    """
    drawn = tables() | figures()
    chosen = [drawn[name] for name in names if name in drawn]
    for table in tables().values():
        rows = tuple(each for each in table.entries if each.name in names)
        if rows and table.name not in names:
            chosen.append(replace(table, entries=rows))
    return chosen


def entry(table: str, row: str, data: str) -> Entry:
    """The network of a table in a row on a data set.

    Raises:
        KeyError: there is none.
    """
    for each in tables()[table].entries:
        if (each.row, each.data) == (row, data):
            return each
    raise KeyError(f"{table} has no row {row!r} on {data}")


def by_worth() -> tuple[Entry, ...]:
    """All networks of all tables, the most informative first."""
    ranked: dict[str, Entry] = {}
    for place in document("experiments.json")["order"]:
        table, *rest = place
        for each in [entry(table, *rest)] if rest else tables()[table].entries:
            ranked.setdefault(each.name, each)
    return tuple(ranked.values())


def nearest_cells(given: str, names: Sequence[str]) -> str:
    """The names nearest to an unknown one, and the command that lists all: there are over a hundred."""
    near = near_names(given, names, NEAREST)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}'slimnet reproduce all --dry-run' lists all names"


def wanted(names: Sequence[str]) -> tuple[str, ...]:
    """The selected tables and figures in the paper's order, each once, then networks, then the trends.

    "all" selects all tables and figures. A network has the name that a dry run shows, such as
    "table1-adam-l2-1e-3-cifar10".

    Raises:
        UsageError: a name is unknown; the nearest is suggested.
    """
    known = [*tables(), *sorted([*figures(), *SIMULATED], key=lambda name: (name.startswith("supp"), name))]
    networks = [each.name for table in tables().values() for each in table.entries]
    possible = [*known, TRENDS, "all", *networks]
    for name in names:
        if name not in possible:
            raise UsageError(f"the paper has no {name!r}; {nearest_cells(name, possible)}")
    chosen = [name for name in known if name in names or "all" in names]
    single = [name for name in networks if name in names]
    return (*chosen, *single, *([TRENDS] if TRENDS in names else []))
