"""settle: restore removable channels until the slim network can be built and has the requested widths."""

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
"""How many times the parameters of the cheapest candidate a carrier may hold, if its constant is larger."""


def settle(removal: Removal, crossings: Sequence[Crossing] = ()) -> Removal:
    """Restore channels until every axis keeps one, parts are equal, padded readers have carriers, and widths are round.

    The divisions of each of the `crossings` are made equal jointly.
    """
    before = None
    while removal is not before:
        before = removal
        removal = keep_pairs(keep_one(removal))
        removal = equalise(fit_crossings(removal, crossings))
        removal = round_up(keep_largest(keep_carriers(removal)))
    return removal


def keep_one(removal: Removal) -> Removal:
    """Restore a channel of every axis that would lose all: the one that holds the fewest parameters."""
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
    """The module that owns a parameter; the parameter itself if the network does."""
    return Place(module=name.rpartition(".")[0] or name)


def keep_largest(removal: Removal) -> Removal:
    """Keep the largest constant of every maximum over channels: it has the same effect as all of them."""
    for total in removal.graph.sums:
        if total.kind != "max":
            continue
        for row in total.rows:
            values, removed = removal.constants[row], removal.is_removed(row)
            largest = values[removed].max(initial=-np.inf)
            if removed.any() and not (values[~removed] >= largest).any():
                candidates = removal.sets[row[removed & (values == largest)]]
                cheapest = candidates[np.argmin(removal.weight[candidates])]
                removal = removal.restored(cheapest, Reason(Kind.LARGEST, total.where.place))
    return removal


def keep_pairs(removal: Removal) -> Removal:
    """Keep two channels of every axis with `paired` sets: a single one would be broadcast."""
    paired = removal.problem.paired
    for name, labels in removal.graph.axes if paired else ():
        sets = unique(removal.sets[labels])
        removed = sets[removal.removed[sets]]
        if sets.size - removed.size == 1 and removed.size and not paired.isdisjoint(sets.tolist()):
            cheapest = removed[np.argmin(removal.weight[removed])]
            removal = removal.restored(cheapest, Reason(Kind.SECOND, owner(name)))
    return removal


def single_channel_sets(removal: Removal, concerned: np.ndarray) -> set[int]:
    """The sets of the axes that keep a single channel, among those with `concerned` sets.

    If no concerned set was removed, the axes of all sets are examined: any single channel may have been broadcast.
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
    """The crossings of which more channels can be removed if their divisions are made equal jointly.

    Returns them with the settled removal; crossings whose first set is in `uncrossed` are excluded.
    """
    crossings = [crossing for crossing in find_crossings(removal) if crossing.first not in uncrossed]
    together = settle(removal, crossings)
    if all(crossing.orders is not None for crossing in crossings):
        return crossings, together
    separate = settle(removal)
    better = [
        crossing
        for crossing in crossings
        if crossing.orders is not None or together.removed[crossing.sets].sum() > separate.removed[crossing.sets].sum()
    ]
    if len(better) == len(crossings):
        return better, together
    return better, settle(removal, better) if better else separate


def fit_crossings(removal: Removal, crossings: Sequence[Crossing]) -> Removal:
    """Restore channels until those that are kept fit every division of each crossing."""
    for crossing in crossings:
        for sets, count in crossing.targets(removal):
            removal = fill(removal, sets, count, crossing.reason)
    return removal


def equalise(removal: Removal) -> Removal:
    """Restore channels until every part of a split axis, and every group, keeps as many as the largest one.

    A part that is a single set is removed as a whole; `match` checks that the code makes fewer parts.
    """
    if removal.problem.all_equal(removal.removed):
        return removal
    for rows, reason in removal.problem.separable:
        kept = rows.shape[1] - removal.removed[rows].sum(1)
        target = max(1, int(kept.max()))
        for row in np.flatnonzero(kept < target):
            removal = fill(removal, rows[row], target, reason)
    return removal


def fill(removal: Removal, row: np.ndarray, target: int, reason: Reason) -> Removal:
    """Restore the cheapest removed sets of one part until it keeps `target` channels."""
    removed = removal.removed[row]
    missing = target - row.size + np.count_nonzero(removed)
    if missing <= 0:
        return removal
    order = np.argsort(removal.weight[row], kind="stable")
    candidates = row[order][removed[order]]
    if unique(candidates).size == candidates.size:
        return removal.restored(candidates[:missing], reason)
    # A set that occurs several times in the part is restored at all its positions.
    back: list[int] = []
    for number in candidates.tolist():
        if np.isin(row[removed], back).sum() >= missing:
            break
        back.append(number)
    return removal.restored(back, reason)


def round_up(removal: Removal) -> Removal:
    """Restore channels until every width is a multiple of its number, or complete.

    Sets that other widths need as well come first, sets that would make a round width odd last; of equal ones the set
    with the fewest parameters comes first.
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
    """For each set the number of round widths that restoring it makes odd, minus the odd widths that need it."""
    balance = np.zeros(removal.removed.size, dtype=np.int64)
    for width in removal.problem.widths:
        balance[width.sets] += -1 if width.is_odd(removal.removed) else 1
    return balance


def keep_carriers(removal: Removal) -> Removal:
    """Keep a carrier in every group of a padded reader that loses nonzero constants."""
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
    """The sets whose constants one group of a padded reader loses without a carrier.

    `shares` are their constants as fractions of the largest.
    """

    reader: Reader
    group: np.ndarray
    reads: np.ndarray
    sets: np.ndarray
    shares: np.ndarray


def without_carrier(removal: Removal) -> Iterator[Orphans]:
    """The groups of padded readers that lose constants which no kept channel can carry."""
    for reader, reads in zip(removal.graph.readers, removal.needs.reads, strict=True):
        if reader.uniform:
            continue
        for group in carrier_groups(reader):
            inputs = reader.inputs[group]
            values = np.abs(removal.constants[inputs])
            lost = removal.is_removed(inputs) & reads[group] & (values > 0)
            if lost.any() and carrier(removal, reader, group, reads) is None:
                yield Orphans(reader, group, reads, removal.sets[inputs[lost]], values[lost] / values[lost].max())


def best_carrier(removal: Removal, orphans: Orphans, served: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """The set to keep as a carrier: among the cheapest, the one that serves most groups, then the largest constant.

    `served[set]` counts the groups without a carrier that a set could serve; `strength[set]` is the smallest share of
    its constant in these groups: the larger it is, the less their weights grow.
    """
    candidates = orphans.sets[orphans.shares > LEAST_CARRIED]
    costs = removal.weight[candidates]
    cheap = candidates[costs <= LIKE_COST * costs.min()]
    return cheap[np.lexsort((-strength[cheap], -served[cheap]))[:1]]
