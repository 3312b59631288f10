"""The schedule of a recipe's learning rate, in words."""

from slimnet.training.recipe.recipe import Recipe


def schedule_in_words(recipe: Recipe) -> str:
    """The learning rate and how it falls, such as "0.1, × 0.1 at 1,500"."""
    if recipe.cosine:
        return f"{recipe.lr:g}, falling to 0 along a cosine"
    if not recipe.drops:
        return f"{recipe.lr:g}"
    return f"{recipe.lr:g}, × {recipe.drop_factor:g} at {' and '.join(f'{drop:,}' for drop in recipe.drops)}"
