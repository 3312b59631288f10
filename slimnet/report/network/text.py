"""The text of a network report: removed channels, gains, and costs."""

from collections import defaultdict
from dataclasses import dataclass

from slimnet.benchmark import Comparison, Latency
from slimnet.benchmark.intervals import BUSY
from slimnet.benchmark.latency import REMEDY, labels, place
from slimnet.models import Architecture
from slimnet.report import formatting
from slimnet.report.network import contenders
from slimnet.report.network.content import Report
from slimnet.surgery.certificate_data import Certificate
from slimnet.surgery.plan import SurgeryPlan
from slimnet.training import Accuracy, Recipe


@dataclass(frozen=True)
class Tile:
    """One number before and after; `left` is after ÷ before, None if that is not meaningful."""

    label: str
    before: str
    after: str
    change: str
    left: float | None


@dataclass(frozen=True)
class Reason:
    """A reason for kept dead channels, with their number and their layers."""

    reason: str
    channels: int
    layers: tuple[str, ...]


def headline(report: Report) -> str:
    """The verdict in a few words."""
    plan = report.plan
    if report.certificate is not None and not report.certificate.holds:
        return certificate_title(report.certificate)
    if plan is None:
        return contenders.headline(report.comparison) if report.comparison else "Nothing was measured"
    if not plan.removed_channels:
        return "Nothing to remove"
    return f"The same network, {formatting.times(plan.params_before / plan.params_after)} smaller"


def certificate_title(certificate: Certificate) -> str:
    """One line on whether the certificate holds for the network of the page."""
    if certificate.trained_since:
        return f"Trained since: not certified against {certificate.reference}"
    return "The certificate holds" if certificate.holds else "The certificate does not hold"


def sentences(report: Report) -> list[str]:
    """The verdict in full sentences."""
    found = []
    if report.plan is not None:
        found.append(_removed(report.plan))
    if report.certificate is not None:
        found.append(_difference(report.certificate))
    if report.comparison is not None:
        found += contenders.sentences(report.comparison) if report.several else [_speed(report.comparison.latencies)]
    return found


def tiles(report: Report) -> list[Tile]:
    """The numbers below the verdict: size, speed, accuracy; none if several networks are compared."""
    if report.several:
        return []
    found = _sizes(report.plan, report.comparison)
    if report.comparison is not None:
        dense, slim = report.comparison.counts[0].file_bytes, report.comparison.counts[-1].file_bytes
        kinds = [kind for kind in formatting.FILE_KINDS if kind in dense and kind in slim]
        found += [_tile(formatting.FILE_KINDS[kind], formatting.size, dense[kind], slim[kind]) for kind in kinds[:1]]
        found += [
            _tile(f"Activations, batch {each.batch}", formatting.size, each.peak_bytes[0], each.peak_bytes[-1])
            for each in report.comparison.memories[:1]
        ]
        chosen = _deployed_latencies(report.comparison.latencies)
        found += [_latency_tile(latency, label) for latency, label in chosen]
    if report.before_after is not None:
        found.append(_accuracy_tile(*report.before_after))
    return found


def _sizes(plan: SurgeryPlan | None, comparison: Comparison | None) -> list[Tile]:
    """Parameters and MACs: those counted in the networks that were compared, or else those of the plan."""
    pairs = []
    if comparison is not None:
        dense, slim = comparison.counts[0], comparison.counts[-1]
        pairs.append(((dense.params, slim.params), (dense.macs or 0, slim.macs or 0)))
    if plan is not None:
        pairs.append(((plan.params_before, plan.params_after), (plan.macs_before, plan.macs_after)))
    if not pairs:
        return []
    params, macs = next((pair for pair in pairs if all(pair[1])), pairs[0])
    found = [_tile("Parameters", formatting.amount, *params)]
    return [*found, _tile("Multiply-accumulates", formatting.amount, *macs)] if all(macs) else found


def _deployed_latencies(latencies: tuple[Latency, ...]) -> list[tuple[Latency, str]]:
    """The latencies on the last runtime with the most threads, which is the one for deployment."""
    if not latencies:
        return []
    last = latencies[-1]
    return [
        (each, label)
        for each, label in zip(latencies, labels(latencies), strict=True)
        if (each.runtime, each.device, each.threads) == (last.runtime, last.device, last.threads)
    ]


def reasons(report: Report) -> list[Reason]:
    """The reasons for kept dead channels, the most frequent first."""
    layers: defaultdict[str, list[str]] = defaultdict(list)
    channels: defaultdict[str, int] = defaultdict(int)
    for kept in report.plan.kept if report.plan else ():
        layers[kept.reason].append(kept.layer)
        channels[kept.reason] += len(kept.channels)
    found = [Reason(reason, channels[reason], tuple(names)) for reason, names in layers.items()]
    return sorted(found, key=lambda reason: -reason.channels)


def shares(report: Report) -> str:
    """What becomes of the dead channels, in a sentence; empty where none is dead."""
    found = str(report.plan.shares) if report.plan else ""
    return f"{found[:1].upper()}{found[1:]}." if found else ""


def is_slower_anywhere(report: Report) -> bool:
    """Whether the slim network is measurably slower on some runtime at some batch size."""
    return report.comparison is not None and any(each.speedup().is_slower for each in report.comparison.latencies)


def recipe_rows(recipe: Recipe, seconds: float) -> list[tuple[str, str]]:
    """The recipe of a training run, as (name, value) pairs for display."""
    regularisers = {"L2 regularisation": recipe.l2, "weight decay": recipe.weight_decay}
    return [
        ("Network", str(Architecture(recipe.arch, recipe.arch_args))),
        ("Data", recipe.data),
        ("Optimiser", f"{recipe.optimiser}, learning rate {recipe.lr:g}"),
        *((name.capitalize(), f"{strength:g}") for name, strength in regularisers.items() if strength),
        ("Iterations", f"{recipe.iterations:,} of {recipe.batch_size} images"),
        ("Time", formatting.duration(1e3 * seconds)),
    ]


def _tile(label: str, shown: formatting.Shown, before: int, after: int) -> Tile:
    left = after / before if before else 1.0
    change = "unchanged" if before == after else f"{formatting.percent(abs(1 - left))} {'less' if left < 1 else 'more'}"
    return Tile(label, shown(before), shown(after), change, left)


def _accuracy_tile(before: Accuracy, after: Accuracy) -> Tile:
    moved = 100 * (after.top1 - before.top1)
    change = f"{moved:+.2f} points" if moved else "unchanged"
    shown = (formatting.percent(before.top1, 2), formatting.percent(after.top1, 2))
    return Tile("Accuracy", *shown, f"{change}, {before.n} test images", None)


def _latency_tile(latency: Latency, label: str) -> Tile:
    before, after, interval = latency.median_ms(0), latency.median_ms(-1), latency.speedup()
    return Tile(
        label,
        formatting.duration(before),
        formatting.duration(after),
        str(interval),
        after / before,
    )


def _removed(plan: SurgeryPlan) -> str:
    if not plan.dead_channels and not plan.removed_channels:
        return "No channel is dead, so nothing was removed."
    if not plan.removed_channels:
        return f"{plan.dead_channels} channels are dead, and none of them can be removed."
    total = sum(layer.channels_before for layer in plan.layers)
    return (
        f"{plan.removed_channels} of {total} channels were dead and are removed, and with them "
        f"{formatting.percent(1 - plan.params_after / plan.params_before)} of the parameters and "
        f"{formatting.percent(1 - plan.macs_after / max(1, plan.macs_before))} of the multiply-accumulates."
    )


def _difference(certificate: Certificate) -> str:
    begin = "The network was trained after it was slimmed; before that, no" if certificate.trained_since else "No"
    change = f"{begin} output changed by more than {formatting.tiny(certificate.max_rel_difference)} of the largest one"
    if certificate.top1_agreement is None:
        return f"{change} on {certificate.samples} examples."
    kept = "all" if certificate.top1_agreement == 1 else formatting.percent(certificate.top1_agreement, 2)
    return f"{change}, and {kept} {'of ' if kept != 'all' else ''}{certificate.samples} examples keep their class."


def _speed(latencies: tuple[Latency, ...]) -> str:
    doubts = [each.speedup().doubt for each in latencies if each.speedup().doubt]
    measured = sorted(
        (each for each in latencies if not each.speedup().doubt), key=lambda latency: latency.speedup().value
    )
    gain, loss = measured[-1:], measured[:1]
    measurable = [each for each in gain if each.speedup().is_faster]
    measurable += [each for each in loss if each.speedup().is_slower]
    if doubts and not measurable:
        return f"Its speed is {BUSY}: {doubts[-1]}; {REMEDY}."
    if not measurable:
        return "No difference in speed was measured on this machine."
    words = [
        f"{latency.speedup()} on {place(latency.runtime, latency.device)} at batch {latency.batch}"
        for latency in measurable
    ]
    return f"It is {', but '.join(words)}."
