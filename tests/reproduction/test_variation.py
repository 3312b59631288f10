"""Changes to the paper's recipes: applied, read back from a recipe, in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimnet.errors import UsageError
from slimnet.models.basicnet import POOL_AFTER
from slimnet.reproduction import catalogue
from slimnet.reproduction.scales import recipe_of
from slimnet.reproduction.variation import Variation, describe_difference, variation_of
from slimnet.training import Recipe

BASICNET = catalogue.entry("table4", "32-0.25x", "cifar10")
VGG = catalogue.entry("table7", "Adam, L2 1e-4, batch 40", "cifar10")

variations = st.builds(
    Variation,
    shrink_every=st.integers(0, 1000),
    precision=st.sampled_from(("fp32", "bf16")),
    crop=st.integers(0, 8),
    pool_after=st.none() | st.sets(st.integers(1, 7)).map(sorted).map(tuple),
)


def has_usual_pools(variation):
    """Whether a network pools as in the reconstruction, whether that was asked for or not."""
    return variation.pool_after in (None, POOL_AFTER)


@given(variations, variations)
def test_a_recipe_says_how_it_was_varied_last(earlier, variation):
    recipe = variation.applied(earlier.applied(recipe_of(BASICNET, "full")))
    assert recipe == recipe_of(BASICNET, "full", variation=variation)
    assert Recipe.from_json(recipe.to_json()) == recipe
    found = variation_of(recipe)
    assert (found.shrink_every, found.precision, found.crop) == (
        variation.shrink_every,
        variation.precision,
        variation.crop,
    )
    assert found.pool_after == (None if has_usual_pools(variation) else variation.pool_after)


def test_only_basicnet_pools_elsewhere():
    recipe = recipe_of(VGG, "full", variation=Variation(crop=4, pool_after=(1, 2)))
    assert recipe.arch_args == recipe_of(VGG, "full").arch_args
    assert recipe.crop == 4


@given(variations)
def test_what_is_not_the_scales_own_is_marked_once(variation):
    """Oracle: how many settings differ from those of the full scale, which trains in float32 without removals."""
    varied = [variation.shrink_every > 0, variation.precision == "bf16", variation.crop > 0]
    marks = variation_of(recipe_of(BASICNET, "full", variation=variation)).marks("fp32")
    assert len(set(marks)) == len(marks) == sum(varied) + (not has_usual_pools(variation))


@pytest.mark.parametrize(
    ("earlier", "wanted", "text"),
    [
        (Variation(), Variation(crop=4), "did not shift images"),
        (Variation(crop=2), Variation(crop=4), "shifted images by up to 2 pixels (--crop 2)"),
        (Variation(), Variation(pool_after=(2, 4)), "pooled after C1, C3, C5"),
        (Variation(pool_after=()), Variation(), "pooled nowhere"),
        (Variation(shrink_every=500), Variation(), "removed dead filters during training (--shrink)"),
        (Variation(), Variation(shrink_every=500), "kept dead filters during training"),
    ],
)
def test_the_first_difference_is_described(earlier, wanted, text):
    assert describe_difference(earlier, wanted) == text


def test_values_out_of_range_are_refused():
    with pytest.raises(UsageError, match="crop"):
        recipe_of(BASICNET, "full", variation=Variation(crop=-1))
