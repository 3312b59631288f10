"""Variation: how the runs of a reproduction differ from the paper's recipes, for speed or to find out what it did."""

from dataclasses import dataclass, replace

from slimnet.models.basicnet import POOL_AFTER
from slimnet.training import Recipe
from slimnet.training.recipe.recipe import Precision


@dataclass(frozen=True)
class Variation:
    """Changes to every recipe of a reproduction. The default changes nothing.

    Attributes:
        shrink_every: the number of iterations between removals of dead channels, as in `Recipe`; 0 for none.
        precision: the precision of training, as in `Recipe`; None for the scale's own.
        crop: the number of pixels by which images are shifted at random, as in `Recipe`. The paper mentions flips
            only.
        pool_after: the convolutions of BasicNet that are followed by pooling, which the paper does not print; None for
            slimnet's reconstruction. Other networks keep theirs.
    """

    shrink_every: int = 0
    precision: Precision | None = None
    crop: int = 0
    pool_after: tuple[int, ...] | None = None

    def applied(self, recipe: Recipe) -> Recipe:
        """A recipe of the paper with these changes in place of any others of their kind.

        Raises:
            UsageError: a value is out of its range.
        """
        arguments = {name: value for name, value in recipe.arch_args.items() if name != "pool_after"}
        if recipe.arch == "basicnet" and self.pool_after not in (None, POOL_AFTER):
            arguments["pool_after"] = list(self.pool_after or ())
        precision = self.precision or recipe.precision
        return replace(recipe, shrink_every=self.shrink_every, precision=precision, crop=self.crop, arch_args=arguments)

    @property
    def unprinted(self) -> "Variation":
        """Only the changes to what the paper does not print; the others are not meant to change what is learned."""
        return Variation(crop=self.crop, pool_after=self.pool_after)

    def marks(self, precision: Precision) -> list[str]:
        """The changes in a few words each, for tables; `precision` is the scale's own, which is not mentioned."""
        found = ["shrinking"] if self.shrink_every else []
        if self.precision not in (None, precision):
            found.append(str(self.precision))
        if self.crop:
            found.append(f"images shifted by up to {self.crop} pixels")
        if self.pool_after is not None:
            found.append(f"pooling {describe_pools(self.pool_after)}")
        return found


def variation_of(recipe: Recipe) -> Variation:
    """The changes that the recipe of a run contains."""
    pools = recipe.arch_args.get("pool_after")
    return Variation(recipe.shrink_every, recipe.precision, recipe.crop, None if pools is None else tuple(pools))


def describe_difference(earlier: Variation, wanted: Variation) -> str:
    """What earlier runs did unlike those that are wanted, to follow "runs that"; the first difference."""
    if earlier.precision != wanted.precision:
        return f"were trained in {earlier.precision}"
    if earlier.crop != wanted.crop:
        shifted = f"shifted images by up to {earlier.crop} pixels (--crop {earlier.crop})"
        return shifted if earlier.crop else "did not shift images"
    if earlier.pool_after != wanted.pool_after:
        return f"pooled {describe_pools(POOL_AFTER if earlier.pool_after is None else earlier.pool_after)}"
    removed = "removed dead filters during training (--shrink)"
    return removed if earlier.shrink_every else "kept dead filters during training"


def describe_pools(pool_after: tuple[int, ...]) -> str:
    """Positions of pooling layers in words, such as "after C1, C2, C4"."""
    return f"after {', '.join(f'C{number}' for number in pool_after)}" if pool_after else "nowhere"
