"""Recipes of the paper's networks, at full scale and at a small one for two CPU cores."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from slimnet.models.arguments import scaled
from slimnet.models.basicnet import WIDTHS
from slimnet.reproduction.catalogue import Dataset, Entry, datasets, document
from slimnet.training import Recipe
from slimnet.training.recipe.recipe import BASE_SETTINGS

Scale = Literal["full", "small"]

DROP_AT = (250, 325)
"""The learning rate drops after so many epochs of so many."""

STRENGTHS = ("l2", "weight_decay")


def recipe_of(entry: Entry, scale: Scale, seed: int = 0, *, shrink_every: int = 0) -> Recipe | None:
    """How a network of the paper is trained; None for another method, which the paper only quotes.

    `data` in it is the name of the paper's data set, or at small scale the path of the small one, from the folder
    that all of it is done in. `shrink_every` removes dead channels during training, every so many iterations.
    """
    if entry.of is not None:
        return None
    full = _full(entry, datasets()[entry.data])
    return Recipe(**(full if scale == "full" else _small(full)), seed=seed, shrink_every=shrink_every)


def _full(entry: Entry, data: Dataset) -> dict[str, Any]:
    """The fields of a recipe at the paper's schedule."""
    fields = dict(entry.fields)
    iterations = data.length(fields["batch_size"])
    arguments = {"num_classes": data.classes, **fields.pop("arch_args", {})}
    schedule = {"iterations": iterations, "drops": (iterations * DROP_AT[0] // DROP_AT[1],)}
    return fields | schedule | {"arch_args": arguments, "data": data.name, "flips": True}


def _small(full: Mapping[str, Any]) -> dict[str, Any]:
    """The same, narrower and shorter, on fewer and smaller images, with more λ and a higher learning rate."""
    small, optimiser = document("experiments.json")["small"], full["optimiser"]
    iterations = small["iterations"]
    rate = full.get("lr", BASE_SETTINGS[optimiser]["lr"]) * small["lr"].get(optimiser, 1)
    # 1e-6 × 10 is to be 1e-5 and not 9.999999999999999e-06.
    strengths = {name: float(f"{full[name] * small['strength']:.6g}") for name in STRENGTHS if name in full}
    arguments = narrowed(full["arch"], full["arch_args"])
    if arguments.get("hidden") == "imagenet":
        # That head is for images of 224 pixels.
        arguments["hidden"] = "tinyimagenet"
    return {
        **{name: value for name, value in full.items() if name != "image_size"},
        **strengths,
        "lr": rate,
        "arch_args": arguments,
        "iterations": iterations,
        "drops": (iterations * DROP_AT[0] // DROP_AT[1],),
        "data": small_name(full["data"], full["arch"]),
        "precision": small["precision"],
    }


def narrowed(arch: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a network at small scale: a fraction of the width, a larger one in a BasicNet's first layer.

    The paper's own 64-0.5x keeps all filters of that layer. An eighth of them would be eight, of which none is
    superfluous.
    """
    small = document("experiments.json")["small"]
    if arch != "basicnet":
        return {**arguments, "width": small["width"]}
    first, *others = WIDTHS[arguments.get("widths", "64-1x")]
    return {**arguments, "widths": [*scaled([first], small["first_width"]), *scaled(others, small["width"])]}


def with_share_of_filters(recipe: Recipe, share: float) -> Recipe:
    """The recipe of a network with this share, 0..1, of the filters in each layer; for timing, not for training."""
    arguments = recipe.arch_args
    if recipe.arch != "basicnet":
        return replace(recipe, arch_args={**arguments, "width": arguments.get("width", 1.0) * share})
    widths = arguments.get("widths", "64-1x")
    own = WIDTHS[widths] if isinstance(widths, str) else widths
    return replace(recipe, arch_args={**arguments, "widths": scaled(own, share)})


def small_name(data: str, arch: str) -> str:
    """The path of the small data set for a network."""
    small = document("experiments.json")["small"]
    return f"data/{data}-{small_size(arch)}px-{small['train_images']}.npz"


def shortened(scale: Scale) -> str:
    """What the numbers of a scale are, in a sentence."""
    if scale == "full":
        return "Full scale: the paper's network, data and schedule."
    small = document("experiments.json")["small"]
    factors = sorted(set(small["lr"].values()))
    raised = {factor: [name for name, own in small["lr"].items() if own == factor] for factor in factors}
    rates = ", ".join(f"× {factor:g} under {', '.join(names)}" for factor, names in raised.items())
    sizes = " or ".join(str(size) for size in sorted(set(small["size"].values())))
    return (
        f"Small scale, which is not the paper's: {small['width']:g} of the width ({small['first_width']:g} in "
        f"BasicNet's first convolution), {small['iterations']:,} iterations in place of 406,250, "
        f"{small['train_images']:,} training images of {sizes} pixels and {small['test_images']:,} test images, every "
        f"λ × {small['strength']:g}, learning rates {rates}, {small['precision']}. SGD's learning rate cannot be "
        "higher, and Adagrad's steps, which shrink with the root of the iterations, shrink less here as it is. What is "
        "compared is the order of the numbers."
    )


def small_size(arch: str) -> int:
    """The height and width, in pixels, of the small images for a network."""
    return int(document("experiments.json")["small"]["size"][arch])


def small_counts() -> dict[str, int]:
    """How many images a small data set has for training and for testing."""
    small = document("experiments.json")["small"]
    return {"train": small["train_images"], "test": small["test_images"]}
