"""The verdict of a report, from values to words: what went, what was gained, and what it cost."""

from collections import defaultdict
from dataclasses import dataclass

from slimnet.benchmark import Latency
from slimnet.models import Architecture
from slimnet.report import wording
from slimnet.report.content import Report
from slimnet.training import Accuracy, Recipe

FILE_KINDS = {"onnx": "ONNX file", "weights": "Weights file"}


@dataclass(frozen=True)
class Tile:
    """One number before and after; `left` is after ÷ before, None where that says nothing."""

    label: str
    before: str
    after: str
    change: str
    left: float | None


@dataclass(frozen=True)
class Reason:
    """Why dead channels were kept: how many, and in which layers."""

    reason: str
    channels: int
    layers: tuple[str, ...]


def headline(report: Report) -> str:
    """The verdict in a few words."""
    plan = report.plan
    if not report.certificate.holds:
        return "The certificate does not hold"
    if not plan.removed_channels:
        return "Nothing to remove"
    return f"The same network, {wording.times(plan.params_before / plan.params_after)} smaller"


def sentences(report: Report) -> list[str]:
    """The verdict in full sentences."""
    told = [_removed(report), _difference(report)]
    if report.comparison is not None:
        told.append(_speed(report.comparison.latencies))
    return told


def tiles(report: Report) -> list[Tile]:
    """The numbers under the verdict: size first, then speed, then accuracy."""
    plan = report.plan
    found = [
        _tile("Parameters", wording.amount, plan.params_before, plan.params_after),
        _tile("Multiply-accumulates", wording.amount, plan.macs_before, plan.macs_after),
    ]
    if report.comparison is not None:
        dense, slim = report.comparison.counts[0].file_bytes, report.comparison.counts[-1].file_bytes
        kinds = [kind for kind in FILE_KINDS if kind in dense and kind in slim]
        found += [_tile(FILE_KINDS[kind], wording.size, dense[kind], slim[kind]) for kind in kinds[:1]]
        runtime = report.comparison.latencies[-1].runtime if report.comparison.latencies else ""
        found += [_latency_tile(each) for each in report.comparison.latencies if each.runtime == runtime]
    if report.accuracies is not None:
        found.append(_accuracy_tile(*report.accuracies))
    return found


def reasons(report: Report) -> list[Reason]:
    """Why dead channels were kept, the commonest reason first."""
    layers: defaultdict[str, list[str]] = defaultdict(list)
    channels: defaultdict[str, int] = defaultdict(int)
    for kept in report.plan.kept:
        layers[kept.reason].append(kept.layer)
        channels[kept.reason] += len(kept.channels)
    found = [Reason(reason, channels[reason], tuple(names)) for reason, names in layers.items()]
    return sorted(found, key=lambda reason: -reason.channels)


def is_slower_anywhere(report: Report) -> bool:
    """Whether the slim network is measurably slower on some runtime at some batch size."""
    return report.comparison is not None and any(each.speedup().high < 1 for each in report.comparison.latencies)


def recipe_rows(recipe: Recipe, seconds: float) -> list[tuple[str, str]]:
    """What a training run was asked for, as (name, value) pairs for people."""
    regularisers = {"L2 regularisation": recipe.l2, "weight decay": recipe.weight_decay}
    return [
        ("Network", str(Architecture(recipe.arch, recipe.arch_args))),
        ("Data", recipe.data),
        ("Optimiser", f"{recipe.optimiser}, learning rate {recipe.lr:g}"),
        *((name.capitalize(), f"{strength:g}") for name, strength in regularisers.items() if strength),
        ("Iterations", f"{recipe.iterations:,} of {recipe.batch_size} images"),
        ("Time", wording.duration(1e3 * seconds)),
    ]


def _tile(label: str, shown: wording.Shown, before: int, after: int) -> Tile:
    left = after / before if before else 1.0
    change = "unchanged" if before == after else f"{wording.percent(1 - left)} less"
    return Tile(label, shown(before), shown(after), change, left)


def _accuracy_tile(before: Accuracy, after: Accuracy) -> Tile:
    moved = 100 * (after.top1 - before.top1)
    change = f"{moved:+.2f} points" if moved else "unchanged"
    shown = (wording.percent(before.top1, 2), wording.percent(after.top1, 2))
    return Tile("Accuracy", *shown, f"{change}, {before.n} test images", None)


def _latency_tile(latency: Latency) -> Tile:
    before, after, interval = latency.median_ms(0), latency.median_ms(-1), latency.speedup()
    return Tile(
        f"{latency.runtime}, batch {latency.batch}",
        wording.duration(before),
        wording.duration(after),
        str(interval),
        after / before,
    )


def _removed(report: Report) -> str:
    plan = report.plan
    if not plan.dead_channels and not plan.removed_channels:
        return "No channel is dead, so the slim network is the dense one."
    if not plan.removed_channels:
        return f"{plan.dead_channels} channels are dead, and none of them can be removed."
    total = sum(layer.channels_before for layer in plan.layers)
    return (
        f"{plan.removed_channels} of {total} channels did nothing and are gone, and with them "
        f"{wording.percent(1 - plan.params_after / plan.params_before)} of the parameters and "
        f"{wording.percent(1 - plan.macs_after / max(1, plan.macs_before))} of the multiply-accumulates."
    )


def _difference(report: Report) -> str:
    certificate = report.certificate
    told = f"No output moved by more than {wording.tiny(certificate.max_rel_difference)} of the largest one"
    if certificate.top1_agreement is None:
        return f"{told} on {certificate.samples} examples."
    kept = "all" if certificate.top1_agreement == 1 else wording.percent(certificate.top1_agreement, 2)
    return f"{told}, and {kept} {'of ' if kept != 'all' else ''}{certificate.samples} examples keep their class."


def _speed(latencies: tuple[Latency, ...]) -> str:
    measured = sorted(latencies, key=lambda latency: latency.speedup().value)
    gain, loss = measured[-1:], measured[:1]
    told = [each for each in gain if each.speedup().low > 1] + [each for each in loss if each.speedup().high < 1]
    if not told:
        return "No difference in speed was measured on this machine."
    words = [f"{latency.speedup()} on {latency.runtime} at batch {latency.batch}" for latency in told]
    return f"It is {', but '.join(words)}."
