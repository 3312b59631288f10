"""A surgery plan as readable text."""

from collections import Counter

from slimnet.surgery.kept_shares import DeadShares
from slimnet.surgery.plan_data import EVERY_WIDTH, FAST, LayerPlan, Merge, PlanData, WidthTrial


def describe(plan: PlanData) -> str:
    """The plan in plain text: totals, changed layers, folded constants, kept channels and the reasons, shares."""
    lines = [
        f"surgery plan for {plan.network}; dead: {plan.criterion}",
        f"  {totals(plan)}",
    ]
    lines += width_lines(plan)
    if plan.stop is not None:
        lines.append(
            f"  followed up to {plan.stop.place}, which depends on data; behind it only modules in which nothing does, "
            "whose MACs are not counted"
        )
    changed = [layer for layer in plan.layers if layer.channels_after != layer.channels_before]
    lines += [layer_line(layer) for layer in changed]
    if not changed:
        lines.append("  nothing to remove: no dead channel can go" if plan.dead_channels else "  nothing to remove")
    lines += [f"  {cut.path}: {cut.before} → {cut.after}" for cut in plan.attributes]
    lines += [f"  {each.module}: removed constants stay in its mean and variance" for each in plan.compensations]
    lines += [f"  {many(fold.channels, 'constant')} of removed channels folded into {fold.bias}" for fold in plan.folds]
    lines += [line for merge in plan.merges for line in merge_lines(merge)]
    reasons: Counter[str] = Counter()
    for kept in plan.kept:
        reasons[kept.reason] += len(kept.channels)
    lines += [f"  {many(count, 'dead channel')} kept: {reason}" for reason, count in reasons.most_common()]
    shares = str(DeadShares.of(plan))
    return "\n".join([*lines, f"  {shares}"] if shares else lines)


def totals(plan: PlanData) -> str:
    """How many channels are removed, and the size before and after."""
    return (
        f"{plan.removed_channels:,} of {sum(layer.channels_before for layer in plan.layers):,} channels removed; "
        f"parameters {plan.params_before:,} → {plan.params_after:,} ({change(plan.params_before, plan.params_after)}), "
        f"MACs {plan.macs_before:,} → {plan.macs_after:,} ({change(plan.macs_before, plan.macs_after)})"
    )


def merge_lines(merge: Merge) -> list[str]:
    """What is carried by channels of one weight, and what it makes up for."""
    pairs = list(zip(merge.carriers, merge.sources, strict=True))
    carriers = {carrier for carrier, source in pairs if carrier != source}
    means = sum(carrier == source for carrier, source in pairs)
    carried = (
        f"{many(len(pairs) - means, 'constant')} of removed channels carried by {many(len(carriers), 'kept channel')}"
    )
    lines = [f"  {carried} of {merge.weight}"] if carriers else []
    return [*lines, f"  {many(means, 'mean')} over fewer channels scaled in {merge.weight}"] if means else lines


def many(count: int, thing: str) -> str:
    """So many of a thing."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def width_lines(plan: PlanData) -> list[str]:
    """To what the widths were rounded up, and what else was measured before that was chosen.

    Of fast widths, how many channels they keep.
    """
    if plan.rounding.startswith(FAST):
        kept, runtime = many(plan.kept_for_speed, "removable channel"), plan.rounding.removeprefix(FAST)
        them = "it" if plan.kept_for_speed == 1 else "them"
        speed = f"  kept {kept}: removing {them} saves no time under {runtime}; round_to=None removes {them}"
        return [speed] if plan.kept_for_speed else []
    if plan.rounding == EVERY_WIDTH:
        chosen = ["  every layer keeps its width"]
    else:
        chosen = [f"  widths rounded up: {plan.rounding}"] if plan.rounding != "none" or plan.trials else []
    return [*chosen, *(trial_line(trial) for trial in plan.trials)]


def trial_line(trial: WidthTrial) -> str:
    """One way to round the widths that was measured."""
    return (
        f"    {trial.rounding}: {trial.median_ms:.3g} ms at batch {trial.batch} on {trial.threads} threads, "
        f"{trial.low:.2f} to {trial.high:.2f} times as fast as dense, {trial.macs:,} MACs"
    )


def layer_line(layer: LayerPlan) -> str:
    """One changed layer."""
    return (
        f"  {layer.name} ({layer.kind}): {layer.channels_before} → {layer.channels_after} channels, "
        f"MACs {change(layer.macs_before, layer.macs_after)}"
    )


def change(before: int, after: int) -> str:
    """A relative change such as "-41.3 %"."""
    return "±0 %" if before == after else f"{(after - before) / before:+.1%}".replace("%", " %")
