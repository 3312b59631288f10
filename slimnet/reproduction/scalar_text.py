"""Figure 4 and supplementary figure 3 as text: how fast every curve falls, and which of the paper's claims hold."""

from slimnet.reproduction.scalars import Claim, Curve, ScalarFigure, claims, iterations


def markdown(figure: ScalarFigure) -> str:
    """A figure as text: the iterations at which its curves reach one half, and the paper's claims if there are any."""
    low = figure.gradients
    about = (
        f"{figure.title}: a number that begins at {low.start:g}, under gradients of standard deviation {low.noise:g} "
        f"({low.early_noise:g} in the first {low.early} steps), for {low.iterations:,} iterations; the medians of "
        f"{low.seeds} seeds. The paper prints no numbers for it, and the settings of the noise are reconstructed."
    )
    parts = [about, halves(figure)]
    if {"adam", "sgd"} <= set(figure.optimisers):
        parts.append(bullets(claims(figure)))
    return "\n\n".join(parts)


def halves(figure: ScalarFigure) -> str:
    """A row for every optimiser and regulariser: the iterations until one half of the value remains, by λ."""
    strengths = figure.strengths
    lines = [
        f"| half after | {' | '.join(f'λ = {each:g}' for each in strengths)} |",
        f"|---|{'---|' * len(strengths)}",
    ]
    rows: dict[str, list[str]] = {}
    for curve in sorted(figure.curves, key=lambda each: -each.strength):
        rows.setdefault(curve.name, []).append(cell(curve))
    return "\n".join(lines + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()])


def cell(curve: Curve) -> str:
    """The iterations, or the remaining share if it is more than one half."""
    left = 100 * curve.median[-1] / curve.median[0]
    return iterations(curve.half) if curve.half is not None else f"{left:.0f} % left"


def bullets(found: tuple[Claim, ...]) -> str:
    """Claims as a list."""
    return "\n".join(f"- {each.text}: {'holds' if each.holds else 'does not hold'} ({each.found})" for each in found)
