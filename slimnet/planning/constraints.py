"""settle: restore removable channels until what is left can be built, and is as wide as is wished."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from slimnet.graph.channel_graph import Reader
from slimnet.graph.labels import unique
from slimnet.graph.reasons import Kind, Place, Reason
from slimnet.planning.carriers import LEAST_CARRIED, carrier, carrier_groups
from slimnet.planning.crossing_divisions import Crossing, find_crossings
from slimnet.planning.removal import Removal

LIKE_COST = 1.25
"""How much more parameters than the cheapest a carrier may hold, where its constant is larger."""


def settle(removal: Removal, crossings: Sequence[Crossing] = ()) -> Removal:
    """Restore channels until axes keep one, parts are equal, padded constants have carriers, and widths are round.

    `crossings` are channels that are divided in several ways, which are made equal together.
    """
    before = None
    while removal is not before:
        before = removal
        removal = keep_pairs(keep_one(removal))
        removal = equalise(suit_all(removal, crossings))
        removal = round_up(keep_largest(keep_carriers(removal)))
    return removal


def keep_one(removal: Removal) -> Removal:
    """An axis never loses its last channel; of several the one that holds the fewest parameters stays."""
    axes = removal.graph.axes
    if not axes:
        return removal
    all_sets, starts = removal.graph.axis_sets
    for index in np.flatnonzero(np.logical_and.reduceat(removal.removed[all_sets], starts)):
        name, labels = axes[index]
        sets = removal.sets[labels]
        if removal.removed[sets].all():
            cheapest = sets[np.argmin(removal.weight[sets])]
            removal = removal.restored(cheapest, Reason(Kind.LAST, owner(name)))
    return removal


def owner(name: str) -> Place:
    """The module that owns a parameter; the parameter itself where the network does."""
    return Place(module=name.rpartition(".")[0] or name)


def keep_largest(removal: Removal) -> Removal:
    """Where a maximum is taken over channels, the largest of the constants stays; it stands for all of them."""
    for total in removal.graph.sums:
        if total.kind != "max":
            continue
        for row in total.rows:
            values, gone = removal.constants[row], removal.gone(row)
            largest = values[gone].max(initial=-np.inf)
            if gone.any() and not (values[~gone] >= largest).any():
                candidates = removal.sets[row[gone & (values == largest)]]
                cheapest = candidates[np.argmin(removal.weight[candidates])]
                removal = removal.restored(cheapest, Reason(Kind.LARGEST, total.where.place))
    return removal


def keep_pairs(removal: Removal) -> Removal:
    """Two channels stay where one would be taken for what meets all channels."""
    paired = removal.problem.paired
    for name, labels in removal.graph.axes if paired else ():
        sets = unique(removal.sets[labels])
        gone = sets[removal.removed[sets]]
        if sets.size - gone.size == 1 and gone.size and not paired.isdisjoint(sets.tolist()):
            cheapest = gone[np.argmin(removal.weight[gone])]
            removal = removal.restored(cheapest, Reason(Kind.SECOND, owner(name)))
    return removal


def single_channel_sets(removal: Removal, concerned: np.ndarray) -> set[int]:
    """The sets of the axes that keep one channel only, where some sets are concerned.

    Where nothing of them was to go, what they met may be any other channel that is left alone.
    """
    touched = set(concerned.tolist())
    near: set[int] = set()
    anywhere: set[int] = set()
    for _, labels in removal.graph.axes:
        sets = unique(removal.sets[labels])
        if sets.size > 1 and np.count_nonzero(~removal.removed[sets]) == 1:
            (anywhere if touched.isdisjoint(own := sets.tolist()) else near).update(own)
    paired = removal.problem.paired
    found = near - paired
    return found if found or removal.removed[concerned].any() else anywhere - paired


def better_crossings(removal: Removal, uncrossed: frozenset[int]) -> tuple[list[Crossing], Removal]:
    """The channels of which more can go if all the ways in which they are divided are looked at together.

    They come with what is left when that is done; `uncrossed` are the first sets of those that are left out.
    """
    crossings = [crossing for crossing in find_crossings(removal) if crossing.first not in uncrossed]
    together = settle(removal, crossings)
    if all(crossing.orders is not None for crossing in crossings):
        return crossings, together
    apart = settle(removal)
    better = [
        crossing
        for crossing in crossings
        if crossing.orders is not None or together.removed[crossing.sets].sum() > apart.removed[crossing.sets].sum()
    ]
    if len(better) == len(crossings):
        return better, together
    return better, settle(removal, better) if better else apart


def suit_all(removal: Removal, crossings: Sequence[Crossing]) -> Removal:
    """Restore channels until those that stay suit all the ways in which they are divided."""
    for crossing in crossings:
        for sets, count in crossing.targets(removal):
            removal = fill(removal, sets, count, crossing.reason)
    return removal


def equalise(removal: Removal) -> Removal:
    """Restore channels until every part of a split axis, and every group, keeps as many as the fullest.

    A part that is one set goes as a whole; `match` looks whether the code follows.
    """
    if removal.problem.all_equal(removal.removed):
        return removal
    for rows, reason in removal.problem.apart:
        kept = rows.shape[1] - removal.removed[rows].sum(1)
        target = max(1, int(kept.max()))
        for row in np.flatnonzero(kept < target):
            removal = fill(removal, rows[row], target, reason)
    return removal


def fill(removal: Removal, row: np.ndarray, target: int, reason: Reason) -> Removal:
    """Restore the cheapest removed sets of one part until it keeps `target` channels."""
    gone = removal.removed[row]
    missing = target - row.size + np.count_nonzero(gone)
    if missing <= 0:
        return removal
    order = np.argsort(removal.weight[row], kind="stable")
    candidates = row[order][gone[order]]
    if unique(candidates).size == candidates.size:
        return removal.restored(candidates[:missing], reason)
    # A set that stands there several times comes back everywhere.
    back: list[int] = []
    for number in candidates.tolist():
        if np.isin(row[gone], back).sum() >= missing:
            break
        back.append(number)
    return removal.restored(back, reason)


def round_up(removal: Removal) -> Removal:
    """Restore channels until every width is a multiple of its number, or whole.

    First those of which other widths are short as well, last those that would make a round one odd; the cheapest of
    equals.
    """
    for width in removal.problem.widths:
        if not width.is_odd(removal.removed):
            continue
        candidates = width.sets[removal.removed[width.sets]]
        order = np.lexsort((removal.weight[candidates], rounding_loss(removal)[candidates]))
        removed, back = removal.removed.copy(), []
        for number in candidates[order].tolist():
            removed[number] = False
            back.append(number)
            if not width.is_odd(removed):
                break
        removal = removal.restored(back, width.reason)
    return removal


def rounding_loss(removal: Removal) -> np.ndarray:
    """For each set how many round widths its return would make odd, less the odd ones that it would help."""
    balance = np.zeros(removal.removed.size, dtype=np.int64)
    for width in removal.problem.widths:
        balance[width.sets] += -1 if width.is_odd(removal.removed) else 1
    return balance


def keep_carriers(removal: Removal) -> Removal:
    """Every padded reader that loses nonzero constants keeps one channel that can carry them."""
    orphans = list(without_carrier(removal))
    if not orphans:
        return removal
    served = np.zeros(removal.removed.size, dtype=np.int64)
    strength = np.full(removal.removed.size, np.inf)
    for orphan in orphans:
        strong = orphan.shares > LEAST_CARRIED
        served[orphan.sets[strong]] += 1
        np.minimum.at(strength, orphan.sets[strong], orphan.shares[strong])
    for orphan in orphans:
        if carrier(removal, orphan.reader, orphan.group, orphan.reads) is None:
            best = best_carrier(removal, orphan, served, strength)
            removal = removal.restored(best, Reason(Kind.CARRIER, orphan.reader.at))
    return removal


@dataclass(frozen=True)
class Orphans:
    """The constants that one group of a padded reader loses, with nothing to carry them: their sets.

    `shares` is how large each is, as a part of the largest.
    """

    reader: Reader
    group: np.ndarray
    reads: np.ndarray
    sets: np.ndarray
    shares: np.ndarray


def without_carrier(removal: Removal) -> Iterator[Orphans]:
    """Every group of a padded reader that loses constants which no kept channel can carry."""
    for reader, reads in zip(removal.graph.readers, removal.needs.reads, strict=True):
        if reader.uniform:
            continue
        for group in carrier_groups(reader):
            inputs = reader.inputs[group]
            values = np.abs(removal.constants[inputs])
            lost = removal.gone(inputs) & reads[group] & (values > 0)
            if lost.any() and carrier(removal, reader, group, reads) is None:
                yield Orphans(reader, group, reads, removal.sets[inputs[lost]], values[lost] / values[lost].max())


def best_carrier(removal: Removal, orphans: Orphans, served: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Of the cheap ones among the constants that one group loses, the one that serves most groups, and the strongest.

    `served[set]` counts the groups that need a carrier and that it could be one for; `strength[set]` is the smallest
    share that it has in these: the larger it is, the less any of their weights grows.
    """
    candidates = orphans.sets[orphans.shares > LEAST_CARRIED]
    costs = removal.weight[candidates]
    cheap = candidates[costs <= LIKE_COST * costs.min()]
    return cheap[np.lexsort((-strength[cheap], -served[cheap]))[:1]]
