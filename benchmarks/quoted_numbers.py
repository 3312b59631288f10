"""Numbers in README.md and docs/, read from results/*.json and from the paper's tables, so that they cannot go stale.

    python benchmarks/quoted_numbers.py

In a text a number stands between `<!-- number: NAME -->` and `<!-- / -->`, the README's table of evidence between
`<!-- evidence -->` and `<!-- / -->`. This program writes what belongs there; tests/house/test_quoted_numbers.py checks
that it would change nothing.
"""

import re
from collections.abc import Callable
from pathlib import Path

import claims

from slimnet.reproduction.catalogue import entry

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
MARKED = re.compile(r"(<!-- (?:number: ([\w .-]+)|evidence) -->)(.*?)(<!-- / -->)", re.DOTALL)
UNTRAINED_RIVALS = ("li2017, plain at 0.5", "MagnitudePruner at 0.5", "BNScalePruner at 0.5")
"""Other ways to half of the MACs, before any fine-tuning."""

SHOWN = (
    claims.exactness,
    claims.never_slower_by_default,
    claims.half_the_macs,
    claims.phenomenon,
)
"""The claims in the README's table."""


def error(point: str) -> float:
    """The error of ResNet-56 in per cent at a point of its curves."""
    return 100 * claims.read("resnet56_curves")["points"][point]["error"]


def error_of_others() -> str:
    """The least and the largest error of other ways to half of the MACs."""
    errors = [error(point) for point in UNTRAINED_RIVALS]
    return f"{min(errors):.0f} to {max(errors):.0f} %"


def published_speed(rounding: str) -> float:
    """How many times as fast as dense the published ResNet-56 is under onnxruntime on one thread."""
    published = claims.read("never_slower")["published"]
    position = [name for name, _ in published["macs"] if name != "dense"].index(rounding)
    row = next(each for each in published["rows"] if each["place"] == claims.USUAL)
    return row["speedups"][position]["value"]


def printed(row: str, reading: str) -> str:
    """A number that the paper prints for BasicNet on CIFAR-10, in per cent."""
    return f"{entry('table1', row, 'cifar10').paper[reading]:g} %"


NUMBERS: dict[str, Callable[[], str]] = {
    "resnet56 dense": lambda: f"{error('dense'):.1f} %",
    "resnet56 half with images": lambda: f"{error('implicit, fitted at 0.5'):.1f} %",
    "resnet56 half without data": lambda: f"{error('implicit, fitted without data at 0.5'):.1f} %",
    "resnet56 half by others": error_of_others,
    "resnet56 speed of none": lambda: f"{published_speed('none'):.2f}",
    "resnet56 speed by default": lambda: f"{published_speed('fast'):.2f}",
    **{
        f"paper {name} {reading}": lambda row=row, reading=reading: printed(row, reading)
        for name, row in {
            "adam 1e-5": "Adam, L2 1e-5",
            "adam 1e-4": "Adam, L2 1e-4",
            "adam 1e-3": "Adam, L2 1e-3",
            "sgd 2e-3": "SGD, L2 2e-3",
        }.items()
        for reading in ("gamma", "error")
    },
}
"""Each number by its name."""


def evidence() -> str:
    """The README's table: what is claimed, what others do, what slimnet does, and on what that was measured."""
    lines = ["", "| claim | others | slimnet | measured on |", "|---|---|---|---|"]
    for claim in (state() for state in SHOWN):
        where = f"[{claim.count}, {claim.length}](benchmarks/tables/{claim.page}.md); {claim.hardware}"
        lines.append(f"| {claim.claim} | {claim.other} | {claim.ours} | {where} |")
    return "\n".join([*lines, ""])


def renewed(text: str) -> str:
    """A text with the numbers that belong in it.

    Raises:
        KeyError: it names a number that there is not.
    """

    def put(match: re.Match[str]) -> str:
        opening, name, _, closing = match.groups()
        return opening + (evidence() if name is None else NUMBERS[name]()) + closing

    return MARKED.sub(put, text)


def main() -> None:
    """Write all pages in which a number has changed."""
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = renewed(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
