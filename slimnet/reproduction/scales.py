"""Recipes of the paper's networks: at full scale, at a middle scale where networks learn, and at a small, quick one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from slimnet.models.arguments import scaled
from slimnet.models.basicnet import WIDTHS
from slimnet.reproduction.catalogue import Dataset, Entry, datasets, document
from slimnet.reproduction.variation import Variation
from slimnet.training import Recipe
from slimnet.training.recipe.recipe import BASE_SETTINGS, Precision

Scale = Literal["full", "middle", "small"]

DROP_AT = (250, 325)
"""The epoch of the learning rate's drop, and the number of all epochs."""

NARROWEST = 1e-6
"""The smallest factor of widths: the paper prints networks in which every filter is dead."""

STRENGTHS = ("l2", "weight_decay")

AS_PRINTED = Variation()
"""The paper's recipe without changes."""


@dataclass(frozen=True)
class Images:
    """The part of a data set on which a scale trains: the numbers of images, and their size in pixels by network."""

    train: int
    test: int
    size: Mapping[str, int]


@dataclass(frozen=True)
class Reduction:
    """The differences of a scale from the paper.

    Attributes:
        iterations: the iterations of each run.
        width: the share of the filters in each layer, 0..1; `first_width` is that in BasicNet's first convolution.
        strength: the factor on every λ.
        lr: the factors on the learning rates, by optimiser; 1 if an optimiser is missing.
        precision: the precision of training, as in `Recipe`.
        images: None for all images of the data set at their original size.
    """

    iterations: int
    width: float
    first_width: float
    strength: float
    lr: Mapping[str, float]
    precision: Precision
    images: Images | None = None


def reduction_of(scale: Scale) -> Reduction | None:
    """The differences of a scale from the paper; None for the full one."""
    if scale == "full":
        return None
    fields = dict(document("experiments.json")[scale])
    images = fields.pop("images", None)
    return Reduction(**fields, images=Images(**images) if images else None)


def images_of(scale: Scale) -> Images | None:
    """The part of a data set on which a scale trains; None for all of it."""
    reduction = reduction_of(scale)
    return None if reduction is None else reduction.images


def precision_of(scale: Scale) -> Precision:
    """The precision in which the runs of a scale are trained unless another is chosen."""
    reduction = reduction_of(scale)
    return "fp32" if reduction is None else reduction.precision


def recipe_of(entry: Entry, scale: Scale, seed: int = 0, variation: Variation = AS_PRINTED) -> Recipe | None:
    """The recipe of a network of the paper; None for another method, which the paper only quotes.

    Its `data` is the name of the paper's data set, or the path of the part on which the scale trains, relative to the
    folder of the reproduction.

    Raises:
        UsageError: a value of the variation is out of its range.
    """
    if entry.of is not None:
        return None
    reduction = reduction_of(scale)
    fields = _full(entry, datasets()[entry.data])
    if reduction is not None:
        fields = _reduced(fields, reduction)
    return variation.applied(Recipe(**fields, precision=precision_of(scale), seed=seed))


def _full(entry: Entry, data: Dataset) -> dict[str, Any]:
    """The fields of a recipe at the paper's schedule."""
    fields = dict(entry.fields)
    iterations = data.length(fields["batch_size"])
    arguments = {"num_classes": data.classes, **fields.pop("arch_args", {})}
    schedule = {"iterations": iterations, "drops": (iterations * DROP_AT[0] // DROP_AT[1],)}
    return fields | schedule | {"arch_args": arguments, "data": data.name, "flips": True}


def _reduced(full: Mapping[str, Any], reduction: Reduction) -> dict[str, Any]:
    """The fields of a recipe at another scale: narrower and shorter, on its images, with its λ and learning rate."""
    optimiser, images = full["optimiser"], reduction.images
    rate = full.get("lr", BASE_SETTINGS[optimiser]["lr"]) * reduction.lr.get(optimiser, 1)
    # Rounded, so that 1e-6 × 10 is 1e-5 and not 9.999999999999999e-06.
    strengths = {name: float(f"{full[name] * reduction.strength:.6g}") for name in STRENGTHS if name in full}
    changed = {
        **strengths,
        "lr": rate,
        "arch_args": narrowed(full["arch"], full["arch_args"], reduction),
        "iterations": reduction.iterations,
        "drops": (reduction.iterations * DROP_AT[0] // DROP_AT[1],),
    }
    if images is None:
        return {**full, **changed}
    kept = {name: value for name, value in full.items() if name != "image_size"}
    if changed["arch_args"].get("hidden") == "imagenet":
        # The imagenet head is for images of 224 pixels.
        changed["arch_args"]["hidden"] = "tinyimagenet"
    return {**kept, **changed, "data": data_name(full["data"], full["arch"], images)}


def narrowed(arch: str, arguments: Mapping[str, Any], reduction: Reduction) -> dict[str, Any]:
    """The arguments of a network with a fraction of the filters, a larger one in a BasicNet's first layer.

    The paper's 64-0.5x keeps all filters of that layer too. An eighth of them would be eight, all of which are needed.
    """
    if arch != "basicnet":
        return {**arguments, "width": reduction.width}
    first, *others = WIDTHS[arguments.get("widths", "64-1x")]
    return {**arguments, "widths": [*scaled([first], reduction.first_width), *scaled(others, reduction.width)]}


def with_share_of_filters(recipe: Recipe, share: float) -> Recipe:
    """The recipe of a network with this share, 0..1, of the filters in each layer; for timing, not for training.

    No layer gets fewer than one filter.
    """
    arguments, share = recipe.arch_args, max(share, NARROWEST)
    if recipe.arch != "basicnet":
        return replace(recipe, arch_args={**arguments, "width": arguments.get("width", 1.0) * share})
    widths = arguments.get("widths", "64-1x")
    own = WIDTHS[widths] if isinstance(widths, str) else widths
    return replace(recipe, arch_args={**arguments, "widths": scaled(own, share)})


def data_name(data: str, arch: str, images: Images) -> str:
    """The path of a part of a data set for a network."""
    return f"data/{data}-{images.size[arch]}px-{images.train}.npz"


def describe_scale(scale: Scale) -> str:
    """The settings of a scale in a few sentences."""
    reduction = reduction_of(scale)
    if reduction is None:
        return "Full scale: the paper's network, data and schedule."
    strength = f"every λ × {reduction.strength:g}" if reduction.strength != 1 else "the paper's λ"
    text = (
        f"{scale.capitalize()} scale, which is not the paper's: {reduction.width:g} of the width "
        f"({reduction.first_width:g} in BasicNet's first convolution), {reduction.iterations:,} iterations in place of "
        f"406,250, {_describe_images(reduction.images)}, {strength}, {_describe_rates(reduction.lr)}, "
        f"{reduction.precision}. "
    )
    if reduction.lr:
        text += (
            "SGD's learning rate cannot be higher, and Adagrad's steps, which shrink with the root of the iterations, "
            "shrink less here as it is. "
        )
    return text + "What is compared is the order of the numbers."


def _describe_images(images: Images | None) -> str:
    if images is None:
        return "all images at their own size"
    sizes = " or ".join(str(size) for size in sorted(set(images.size.values())))
    return f"{images.train:,} training images of {sizes} pixels and {images.test:,} test images"


def _describe_rates(factors: Mapping[str, float]) -> str:
    if not factors:
        return "the paper's learning rates"
    raised = {
        factor: [name for name, own in factors.items() if own == factor] for factor in sorted(set(factors.values()))
    }
    rates = [f"× {factor:g} under {', '.join(names)}" for factor, names in raised.items()]
    return f"learning rates {', '.join(rates)}"
