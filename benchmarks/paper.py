"""The paper's tables with ours beside them, from results that `slimnet reproduce` left.

mkdir -p runs/paper/results && cp benchmarks/results/paper/*.json runs/paper/results    # go on from what is kept
slimnet reproduce table1 --scale small --data-root data -o runs/paper
python benchmarks/paper.py --keep runs/paper        # take the results over, one file a cell
slimnet reproduce all --dry-run --json > plan.json
python benchmarks/paper.py --plan plan.json         # and how long each cell would take
python benchmarks/paper.py                          # the tables in Markdown
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from slimnet.durations import in_words
from slimnet.reproduction.catalogue import Entry, datasets, tables
from slimnet.reproduction.markdown import Found, letter, line, table
from slimnet.reproduction.results import Result, add, current, environments, file_name, hardware, read, read_all
from slimnet.reproduction.scales import Scale, describe_scale
from slimnet.reproduction.trends import verdicts
from slimnet.reproduction.variation import Variation
from slimnet.training import Recipe

RESULTS = Path(__file__).parent / "results" / "paper"
PLAN = Path(__file__).parent / "results" / "paper_plan.json"
SCALES: tuple[Scale, ...] = ("full", "middle", "small")


def keep(run: Path) -> list[Path]:
    """Take the results of a reproduction over: seeds join those that are there, unless these are of another recipe.

    Returns the files that have changed.
    """
    changed: dict[Path, None] = {}
    for result in map(read, sorted((run / "results").glob("*.json"))):
        folder = folder_of(result.variation.unprinted)
        path = folder / file_name(result.names, result.scale)
        for each in result.runs:
            recipe = Recipe(**{**result.recipe, "seed": each.seed})
            known = read(path) if path.exists() else None
            if known is None or not known.is_of(recipe) or each not in known.runs:
                add(folder, result.names, result.scale, recipe, each)
                changed[path] = None
    return list(changed)


def folder_of(variation: Variation) -> Path:
    """Where results of a recipe are kept: changes where the paper is silent have their own folder."""
    crop = [f"crop{variation.crop}"] if variation.crop else []
    pools = [f"pool{''.join(map(str, variation.pool_after))}"] if variation.pool_after is not None else []
    return RESULTS.joinpath("-".join(crop + pools))


def other_recipes() -> list[Path]:
    """The folders of results that change what the paper does not print."""
    return sorted(path for path in RESULTS.glob("*") if path.is_dir())


def keep_plan(path: Path) -> Path:
    """Take over how long each cell takes in full, as a dry run estimated it."""
    plan = json.loads(path.read_text(encoding="utf-8"))
    seconds = {cell["cell"]: round(cell["seconds"]) for cell in plan["cells"] if cell["seconds"] is not None}
    kept = {"machine": plan["machine"], "runs": plan["runs"], "seconds": round(plan["seconds"]), "cells": seconds}
    PLAN.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return PLAN


def found(scale: Scale, folder: Path | None = None) -> Found:
    """All that has been run at a scale as it is today, with the recipe of a folder; None for the usual one."""
    return Found(tuple(tables()), scale, current(read_all(folder or RESULTS, scale)), {})


def page() -> str:
    """What has been run and what has not, the trends, and every table, in Markdown."""
    parts = [coverage(), times()]
    for scale in SCALES:
        for folder in (RESULTS, *other_recipes()):
            known = found(scale, folder)
            if known.results:
                parts += [f"### At {scale} scale{how(known)}", describe_scale(scale)]
                parts += [trends(known), *chapters(known), machines(known)]
    return "\n\n".join(part for part in parts if part)


def how(known: Found) -> str:
    """What a recipe changes where the paper prints nothing, to follow the name of the scale."""
    marks = next(iter(known.results.values())).variation.unprinted.marks("fp32")
    return "".join(f", {mark}" for mark in marks)


def trends(known: Found) -> str:
    """Which of the paper's trends hold, and which do not; empty if none can be tested."""
    looked = [each for each in verdicts(known.results) if each.holds is not None]
    if not looked:
        return ""
    held = sum(bool(each.holds) for each in looked)
    lines = [f"- {line(each, known.scale)}" for each in looked]
    return "\n".join([f"**{held} of {len(looked)} trends hold.**", "", *lines])


def chapters(known: Found) -> list[str]:
    """The tables of which something has been run."""
    names = [hardware(each) for each in environments(known.results.values())]
    every = tables().values()
    return [
        f"#{table(each, known.results, names)}"
        for each in every
        if any(entry.name in known.results for entry in each.entries)
    ]


def machines(known: Found) -> str:
    """What the letters stand for, and how fast each trained."""
    results = known.results.values()
    lines = []
    for number, each in enumerate(environments(results)):
        more = ", ".join(f"{name} {each[name]}" for name in ("Cores", "torch", "Python", "slimnet") if name in each)
        lines.append(f"{letter(number)}: {hardware(each)} ({more}). {speed(results, hardware(each))}")
    return "\n\n".join(lines)


def speed(results: Iterable[Result], machine: str) -> str:
    """How fast networks were trained on a machine, by kind and batch size."""
    rates: dict[tuple[str, int], list[float]] = {}
    for result in {result.names: result for result in results}.values():
        own = [run.images_per_second for run in result.runs if hardware(run.environment) == machine]
        rates.setdefault((result.recipe["arch"], result.recipe["batch_size"]), []).extend(own)
    speeds = [
        f"{arch} at batch {batch} {median(each):,.0f} ({max(each):,.0f})"
        for (arch, batch), each in sorted(rates.items())
        if each
    ]
    return f"Images trained a second beside whatever else it did, median (and most) of the runs: {', '.join(speeds)}."


def median(values: list[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]


def coverage() -> str:
    """How many cells of each table were run in full, at a smaller scale, or not at all."""
    known = {scale: found(scale).results for scale in SCALES}
    lines = ["| table | cells | in full | middle | small | not at all | quoted |", "|---|---|---|---|---|---|---|"]
    for name, each in tables().items():
        counts = Counter(state(entry, known) for entry in each.entries)
        cells = [counts[state] for state in (*SCALES, "none", "quoted")]
        lines.append(f"| {name} | {len(each.entries)} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def state(entry: Entry, known: Mapping[Scale, Mapping[str, Result]]) -> str:
    """How far a cell has come."""
    if entry.of is not None:
        return "quoted"
    return next((scale for scale in SCALES if entry.name in known[scale]), "none")


def times() -> str:
    """How long the cells of each table take in full on the machine that the plan was made on."""
    if not PLAN.exists():
        return ""
    plan = json.loads(PLAN.read_text())
    lines = ["| table | data | one cell in full |", "|---|---|---|"]
    for name, each in tables().items():
        for data in dict.fromkeys(entry.data for entry in each.entries):
            own = [plan["cells"].get(entry.name) for entry in each.entries if entry.data == data]
            seconds = sorted(value for value in own if value is not None)
            if seconds:
                least, most = in_words(seconds[0]), in_words(seconds[-1])
                span = least if seconds[0] == seconds[-1] else f"{least} to {most}"
                lines.append(f"| {name} | {datasets()[data].title} | {span} |")
    machine = plan["machine"]
    about = (
        f"How long a cell takes in full, reckoned from a few timed steps: {hardware(machine)}, torch "
        f"{machine['torch']}, {machine['Measured']}. All {plan['runs']} runs: {in_words(plan['seconds'])}."
    )
    return "\n".join([about, "", *lines])


def main() -> None:
    """Take results over, or print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="the folder of a reproduction")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="what a dry run of all of it prints as JSON")
    options = parser.parse_args()
    kept = [*(keep(options.keep) if options.keep else ()), *([keep_plan(options.plan)] if options.plan else ())]
    print("\n".join(map(str, kept)) if kept else page())


if __name__ == "__main__":
    main()
