"""slimnet train as one types it, on a network that takes no time."""

from pathlib import Path

import slimnet_cli
from slimnet_cli.options.recipe import read_recipe

from slimnet.training import Recipe

TINY = ("--arch", "basicnet", "--arch-args", '{"widths": [4, 8], "pool_after": [1], "hidden": 8}')
SHORT = (*TINY, "--threads", "1", "--no-report")


def run(*arguments: object) -> int:
    return slimnet_cli.run(["train", *map(str, arguments)])


def recipe_of(folder: Path) -> Recipe:
    return read_recipe(str(folder / "recipe.json"))
