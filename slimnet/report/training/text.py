"""The text of a training run's report: its recipe, its results, and the gain of slimming it."""

from slimnet.data.sources import short_source
from slimnet.models import Architecture
from slimnet.report import formatting
from slimnet.report.network.text import Tile
from slimnet.report.training.record import TrainingRecord
from slimnet.training import Recipe
from slimnet.training.recipe.schedule import schedule_in_words
from slimnet.training.run.savings import Savings

OPTIMISERS = {
    "sgd": "SGD",
    "adam": "Adam",
    "amsgrad": "AMSGrad",
    "adamax": "Adamax",
    "adadelta": "Adadelta",
    "adagrad": "Adagrad",
    "rmsprop": "RMSprop",
}

PAPER_ITERATIONS = 406_250
"""The number of iterations on CIFAR in the paper."""


def title(record: TrainingRecord) -> str:
    """Network and data in a few words."""
    return f"{record.recipe.arch} on {short_source(record.recipe.data)}"


def headline(record: TrainingRecord) -> str:
    """The share of dead filters."""
    if not record.gammas:
        return "A network without BatchNorm"
    if not record.last.sparsity:
        return "No filter has died" if record.finished else "No filter has died yet"
    return f"{formatting.percent(record.last.sparsity)} of the filters died during training"


def sentences(record: TrainingRecord) -> list[str]:
    """A summary of the run in full sentences."""
    return [_training(record), *_dead_by_activation(record), *_shrunk(record), *_slimmed(record)]


def validation_tiles(record: TrainingRecord) -> list[Tile]:
    """The lowest error on the validation images, and when that was; nothing in a run without validation."""
    iterations, errors = record.validation
    if not errors:
        return []
    best = errors.index(min(errors))
    return [
        Tile(
            "Validation error",
            "",
            formatting.percent(errors[best], 1),
            f"lowest, after {iterations[best]:,} iterations",
            None,
        )
    ]


def tiles(record: TrainingRecord) -> list[Tile]:
    """The numbers below the headline."""
    last = record.last
    found = []
    if record.gammas:
        found.append(
            Tile("Dead filters", "", formatting.percent(last.sparsity), "|γ| below the threshold", 1 - last.sparsity)
        )
    if record.forecasts:
        found.append(_cost(record))
    found += [
        _loss(record),
        Tile("Training error", "", formatting.percent(1 - last.accuracy, 1), "over the last report", None),
        *validation_tiles(record),
    ]
    if record.accuracy is not None:
        wrong, images = 1 - record.accuracy.top1, record.accuracy.n
        found.append(Tile("Test error", "", formatting.percent(wrong, 2), f"{images:,} test images", None))
    found.append(Tile("Time", "", formatting.long_duration(last.seconds), f"{_rate(record)} iterations a second", None))
    return found


def recipe_rows(record: TrainingRecord) -> list[tuple[str, str]]:
    """The complete recipe, as (name, value) pairs for display."""
    recipe = record.recipe
    return [
        ("Network", str(Architecture(recipe.arch, recipe.arch_args))),
        ("Data", _data(recipe)),
        ("Optimiser", _optimiser(recipe)),
        *((name, value) for name, value in _regularisers(recipe) if value),
        ("Learning rate", schedule_in_words(recipe)),
        ("Iterations", _length(record)),
        ("Batch", f"{recipe.batch_size} images{_variation(recipe)}"),
        ("Precision", recipe.precision),
        *_shrinking(recipe),
        *((name, f"{value:g}") for name, value in _scales(recipe) if value is not None),
        ("Seed", str(recipe.seed)),
        *([("Began with", recipe.warm_start)] if recipe.warm_start else []),
    ]


def _training(record: TrainingRecord) -> str:
    recipe, last = record.recipe, record.last
    strengths = {"L2": recipe.l2, "weight decay": recipe.weight_decay, "decoupled weight decay": recipe.decoupled}
    regularisers = [f"{name} {strength:g}" for name, strength in strengths.items() if strength]
    how = " and ".join([OPTIMISERS[recipe.optimiser], *regularisers])
    opening = f"Trained with {how} for {_reached(record)} iterations"
    if record.accuracy is None:
        return f"{opening}, to a training error of {formatting.percent(1 - last.accuracy, 1)}."
    correct = formatting.percent(record.accuracy.top1, 2)
    return f"{opening}, it classifies {correct} of {record.accuracy.n:,} test images correctly."


def _dead_by_activation(record: TrainingRecord) -> list[str]:
    share = record.analysis.sparsity_by_activation if record.analysis else None
    if record.analysis is None or share is None:
        return []
    return [
        f"{formatting.percent(share)} of the features activate for none of the {record.analysis.images:,} training "
        "images."
    ]


def _shrunk(record: TrainingRecord) -> list[str]:
    """The savings by the removal of dead filters during training."""
    saved = Savings.of(record.progress)
    if saved is None:
        return []
    removed = (
        f"{saved.channels_removed:,} dead channels were removed during training, which left "
        f"{formatting.amount(saved.macs_left)} of {formatting.amount(saved.macs)} multiply-accumulates"
    )
    times = ""
    if saved.first_ms is not None and saved.last_ms is not None:
        times = f"; a step took {saved.first_ms:.3g} ms at the beginning and {saved.last_ms:.3g} ms at the end"
    return [f"{removed}{times}.", *_projected(record), *_revived(saved)]


def _projected(record: TrainingRecord) -> list[str]:
    """The change of layer inputs when channels were set to zero."""
    moved = record.last.projection_change
    if moved is None:
        return []
    if not moved:
        return ["Setting them to zero before that did not change any layer's input."]
    change = f"by at most {formatting.tiny(moved)} of its largest value"
    return [f"Setting them to zero before that changed what a layer receives {change}."]


def _revived(saved: Savings) -> list[str]:
    """The number of removed channels that came back in the shadow."""
    if saved.revived is None:
        return []
    known = saved.revived and saved.revived_alive is not None
    alive = f"; {saved.revived_alive:,} of these were alive at the last look" if known else ""
    return [f"{saved.revived:,} removed channels came back in the dense run beside it{alive}."]


def _slimmed(record: TrainingRecord) -> list[str]:
    if not record.forecasts:
        return []
    last = record.forecasts[-1]
    before, after = last.macs or 0, last.macs_if_slimmed or 0
    if before == after:
        return ["Slimming it now would remove no channel."]
    return [
        f"A slim network would need {formatting.amount(after)} of the {formatting.amount(before)} multiply-accumulates"
        + (f", {formatting.times(before / after)} fewer." if after else ".")
    ]


def _loss(record: TrainingRecord) -> Tile:
    first, last = record.progress[0], record.last
    if first is last:
        return Tile("Training loss", "", f"{last.loss:.3g}", "over the last report", None)
    return Tile("Training loss", f"{first.loss:.3g}", f"{last.loss:.3g}", f"since iteration {first.iteration:,}", None)


def _cost(record: TrainingRecord) -> Tile:
    last = record.forecasts[-1]
    before, after = last.macs or 1, last.macs_if_slimmed or 0
    change = f"{formatting.percent(1 - after / before)} less, if slimmed" if after != before else "no gain yet"
    return Tile("Multiply-accumulates", formatting.amount(before), formatting.amount(after), change, after / before)


def _rate(record: TrainingRecord) -> str:
    seconds = record.last.seconds
    return formatting.figures(record.last.iteration / seconds) if seconds > 0 else "–"


def _data(recipe: Recipe) -> str:
    size = "" if recipe.image_size is None else f", {recipe.image_size} pixels"
    held = f", {100 * recipe.held_out:g} % of the training images held out" if recipe.held_out else ""
    return f"{short_source(recipe.data)}{size}{held}"


def _optimiser(recipe: Recipe) -> str:
    optimiser = OPTIMISERS[recipe.optimiser]
    if recipe.optimiser == "sgd":
        optimiser += f", {'Nesterov ' if recipe.nesterov else ''}momentum {recipe.momentum:g}"
    elif recipe.optimiser in ("adam", "amsgrad", "adamax"):
        optimiser += f", β {recipe.betas[0]:g} and {recipe.betas[1]:g}, ε {recipe.eps:g}"
    elif recipe.optimiser in ("adadelta", "rmsprop"):
        optimiser += f", ρ {recipe.rho:g}, ε {recipe.eps:g}"
    return optimiser


def _regularisers(recipe: Recipe) -> list[tuple[str, str]]:
    scaled = f", each γ by its {recipe.cost_aware}" if recipe.cost_aware else ""
    return [
        ("L2", f"{recipe.l2:g}{scaled}" if recipe.l2 else ""),
        ("Weight decay", f"{recipe.weight_decay:g}" if recipe.weight_decay else ""),
        ("Decoupled weight decay", f"{recipe.decoupled:g}" if recipe.decoupled else ""),
        ("L1 on γ", f"{recipe.l1_gamma:g}" if recipe.l1_gamma else ""),
    ]


def _shrinking(recipe: Recipe) -> list[tuple[str, str]]:
    if not recipe.shrink_every:
        return []
    rounded = f", widths multiples of {recipe.shrink_round} until the end" if recipe.shrink_round > 1 else ""
    return [("Dead filters", f"removed every {recipe.shrink_every:,} iterations{rounded}")]


def _scales(recipe: Recipe) -> list[tuple[str, float | None]]:
    """The settings of γ and β; None if they have no separate ones."""
    return [
        ("γ begins at", recipe.gamma_init),
        ("β begins at", recipe.beta_init),
        ("Learning rate of γ ×", recipe.gamma_lr_scale if recipe.gamma_lr_scale != 1 else None),
        ("Learning rate of β ×", recipe.beta_lr_scale if recipe.beta_lr_scale != 1 else None),
    ]


def _length(record: TrainingRecord) -> str:
    shorter = record.last.iteration < PAPER_ITERATIONS
    return _reached(record) + (f" (the paper's on CIFAR: {PAPER_ITERATIONS:,})" if shorter else "")


def _reached(record: TrainingRecord) -> str:
    return f"{record.last.iteration:,}" + ("" if record.finished else f" of {record.last.total:,}")


def _variation(recipe: Recipe) -> str:
    changes = [
        *(["flipped"] if recipe.flips else []),
        *([f"moved by up to {recipe.crop} pixels"] if recipe.crop else []),
    ]
    return f", {' and '.join(changes)} at random" if changes else ""
