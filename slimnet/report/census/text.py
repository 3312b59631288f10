"""The text of a census: cells of its table, and the totals in sentences."""

from collections.abc import Sequence
from pathlib import Path

from slimnet.census import CensusRow, count_totals
from slimnet.report.formatting import amount, percent

UNKNOWN = "–"


def cells(row: CensusRow) -> tuple[str, ...]:
    """The name, the network, γ of BatchNorms and the dead ones, and what is removed; a dash for what is not known."""
    removable = UNKNOWN if row.removable is None else f"{row.removable:,}"
    return (
        short_name(row.name),
        row.arch or UNKNOWN,
        f"{row.channels:,}",
        f"{row.dead:,}",
        percent(row.dead_share, 1),
        removable,
        *size_and_share(row.macs),
        *size_and_share(row.params),
    )


def short_name(name: str) -> str:
    """The last two parts of a path: files of hubs are called alike and differ by their folder."""
    return "/".join(Path(name).parts[-2:])


def size_and_share(pair: tuple[int, int] | None) -> tuple[str, str]:
    """A size before slimming, and the share that is removed."""
    return (UNKNOWN, UNKNOWN) if pair is None else (amount(pair[0]), percent(share_removed(pair), 1))


def share_removed(pair: tuple[int, int]) -> float:
    """The share of a size that is removed; 0 for a size of 0."""
    before, after = pair
    return 1 - after / before if before else 0.0


def traced_in_words(count: int) -> str:
    """The networks that the sizes are of."""
    return "the one that was traced" if count == 1 else f"the {count:,} that were traced"


def assumed_in_words(rows: Sequence[CensusRow]) -> list[str]:
    """How many networks were traced with inputs that nobody has named, and their shapes."""
    assumed = [row.assumed_shape for row in rows if row.assumed_shape and row.macs]
    if not assumed:
        return []
    shapes = ", ".join(" × ".join(map(str, shape)) for shape in sorted(set(assumed)))
    which, them = ("one network", "it") if len(assumed) == 1 else (f"{len(assumed):,} networks", "them")
    return [f"The MACs of {which} are for inputs as is usual for {them} ({shapes}), since no file says their shape."]


def sentences(rows: Sequence[CensusRow], threshold: float) -> list[str]:
    """The totals in full sentences."""
    totals = count_totals(rows)
    share = totals.dead / totals.channels if totals.channels else 0.0
    have = "checkpoint has" if totals.checkpoints == 1 else "checkpoints have"
    found = [
        f"{totals.checkpoints:,} {have} {totals.channels:,} channels with a BatchNorm; "
        f"{totals.dead:,} ({percent(share, 1)}) are dead, with |γ| below {threshold:g}."
    ]
    if totals.traced:
        found.append(
            f"Exact slimming removes {percent(share_removed(totals.macs), 1)} of the MACs and "
            f"{percent(share_removed(totals.params), 1)} of the parameters of {traced_in_words(totals.traced)}."
        )
    return found + assumed_in_words(rows)


def in_words(rows: Sequence[CensusRow], threshold: float) -> str:
    """The totals as one text."""
    return " ".join(sentences(rows, threshold))
