"""A run whose length is changed on its way: the recipe of the whole run, and what becomes of its schedule, in words."""

import dataclasses

from slimnet.errors import UsageError
from slimnet.training.recipe.recipe import Recipe

AHEAD = ("iterations", "drops", "lengths_before")
"""The fields in which the recipe of a run may change on its way, so far as they concern later steps."""


def continued(recipe: Recipe, done: int, iterations: int, drops: tuple[int, ...] | None = None) -> Recipe:
    """The recipe of a run that has taken `done` steps and is to have another number of iterations.

    Drops stay at their iterations, or are `drops`; a cosine falls to 0 at the new end from here on. A run of the
    recipe that is returned takes the steps of the whole run from the start, bit for bit.

    Raises:
        UsageError: the run would end before the steps that it has taken, or its drops before them would be others.
    """
    if iterations < done:
        raise UsageError(f"the run is at iteration {done:,} and cannot end at {iterations:,}; give at least {done:,}")
    if drops is not None and _past(drops, done) != _past(recipe.drops, done):
        raise UsageError(
            f"the run is at iteration {done:,}, and its drops before that were at {list(_past(recipe.drops, done))}; "
            "repeat these, and add later ones"
        )
    changed = dataclasses.replace(recipe, iterations=iterations, drops=recipe.drops if drops is None else drops)
    if iterations == recipe.iterations or not _depends_on_length(recipe):
        return changed
    before = [(until, length) for until, length in recipe.lengths_before if until < done]
    if done:
        before.append((done, recipe.length_at(done - 1)))
    return dataclasses.replace(changed, lengths_before=tuple(before))


def same_beginning(first: Recipe, second: Recipe, steps: int) -> bool:
    """Whether the schedules of two recipes, that are the same otherwise, are so for the first steps."""
    if first.cosine != second.cosine or _past(first.drops, steps) != _past(second.drops, steps):
        return False
    if not (_depends_on_length(first) or _depends_on_length(second)):
        return True
    places = {0, *(until for recipe in (first, second) for until, _ in recipe.lengths_before)}
    return all(first.length_at(place) == second.length_at(place) for place in places if place < steps)


def change_in_words(begun: Recipe, now: Recipe, done: int) -> str:
    """What becomes of the schedule of a run that has taken `done` steps, in one line."""
    length = f"{now.iterations:,} iterations instead of {begun.iterations:,}"
    if now.cosine:
        was, will = (recipe.lr * recipe.schedule_scale(done) for recipe in (begun, now))
        return (
            f"{length}: the cosine falls to 0 at {now.iterations:,}; at iteration {done:,} the learning rate goes "
            f"from {was:.3g} to {will:.3g}"
        )
    if not now.drops:
        return f"{length}: the learning rate stays {now.lr:g}"
    places = " and ".join(f"{drop:,}" for drop in now.drops)
    unreached = sum(drop >= now.iterations for drop in now.drops)
    left = f", {unreached} of them after its end" if unreached else ""
    which = "stay where they were" if now.drops == begun.drops else "are others from here on"
    return f"{length}: the drops of the learning rate {which}, at {places}{left}"


def _past(drops: tuple[int, ...], done: int) -> tuple[int, ...]:
    return tuple(drop for drop in drops if drop < done)


def _depends_on_length(recipe: Recipe) -> bool:
    """Whether steps depend on the length of the run: by a cosine, or by widths that are made exact at its end."""
    return recipe.cosine or recipe.shrink_round > 1
