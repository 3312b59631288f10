"""What the benchmarks show, a line each: the claim, the paper or a rival, ours, how many, how long, on what.

Every number is read from results/*.json, so that a line cannot say what its table does not.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import int8
import latency
import never_slower
import paper
from machines import describe_machine
from phenomenon import entries

from slimnet.reproduction.catalogue import by_worth, datasets
from slimnet.reproduction.results import Result
from slimnet.reproduction.scales import Scale
from slimnet.reproduction.trends import cells, verdicts
from slimnet.reproduction.variation import Variation

RESULTS = Path(__file__).parent / "results"
USUAL = latency.place("onnxruntime", 1, 1)
BETAS = ("zero", "negative", "random")
SHORTER: tuple[Scale, ...] = ("middle", "small")

Results = dict[str, Any]


class Claim(NamedTuple):
    """One line; `page` is the page with its table. A length is named where it is not that of the paper."""

    claim: str
    other: str
    ours: str
    count: str
    length: str
    hardware: str
    page: str


def read(name: str) -> Results:
    """A file of results."""
    results: Results = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return results


def hardware(environment: dict[str, str]) -> str:
    """The processor and the day of a measurement."""
    return f"{describe_machine(environment)}, {environment['Measured'][:10]}"


def exactness() -> Claim:
    """Double-precision errors of the surgery on the zoo."""
    results = read("surgery_speed")
    networks = results["networks"]
    errors = [row[beta]["error"] for row in networks.values() for beta in BETAS if beta in row]
    races = [row["race"] for row in networks.values() if "race" in row]
    crashed = sum("torch_pruning_failed" in race for race in races)
    wrong = sum((race.get("torch_pruning_error") or 0) > 1e-3 for race in races)
    return Claim(
        "Removing dead channels does not change the outputs",
        f"torch-pruning: crashes on {crashed}, wrong by more than 1e-3 on {wrong} of {len(races)}",
        f"largest relative error {max(errors):.0e} in float64",
        f"{len(networks)} networks, 40 % dead",
        "random weights",
        hardware(results["environment"]),
        "surgery_speed",
    )


def speed_of_surgery() -> Claim:
    """The time of the surgery against torch-pruning's."""
    results = read("surgery_speed")
    races = [row["race"] for row in results["networks"].values() if "race" in row]
    ratios = [race["ratio"] for race in races if "torch_pruning_failed" not in race]
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    return Claim(
        "The surgery is fast",
        "torch-pruning: 1",
        f"{mean:.2f} of its time (geometric mean; {min(ratios):.2f} to {max(ratios):.2f})",
        f"the {len(ratios)} networks on which it does not crash",
        f"{results['settings']['repeats']} repeats in turns",
        hardware(results["environment"]),
        "surgery_speed",
    )


def speed_of_networks() -> Claim:
    """Speed-ups and efficiencies under onnxruntime with widths chosen by measuring."""
    results = read("latency")
    cells = [row for row in results["cells"].values() if USUAL in row["places"]]
    medians = [(latency.medians_of(row["places"][USUAL]), row["places"][USUAL]["auto"]) for row in cells]
    speedups = [median["dense"] / median[auto] for median, auto in medians]
    shown = [latency.efficiency(row, row["places"][USUAL]) for row in cells]
    efficiencies = [float(each) for each in shown if each != "–"]
    return Claim(
        "Fewer MACs take less time (`--round auto`)",
        "dense: 1",
        f"{min(speedups):.2f} to {max(speedups):.2f} times faster, efficiency {statistics.median(efficiencies):.2f} "
        "in the median",
        f"{len(cells)} networks × shares of dead channels",
        USUAL,
        hardware(results["environment"]),
        "latency",
    )


def never_slower_by_default() -> Claim:
    """Cells that are slower than the dense network, with the default widths and as they fall."""
    results = read("never_slower")
    places = sorted({where for cell in results["cells"].values() for where in cell["places"]})
    rows = [row for where in places for *_, row in never_slower.cells_at(results, where)]
    default, fallen = (never_slower.count_slower(rows, name) for name in ("fast", never_slower.NONE))
    return Claim(
        "Never slower than the dense network, by default",
        f"without rounding: {fallen} of {len(rows)} are slower",
        f"{default} of {len(rows)} are slower",
        f"{len(results['cells'])} networks × shares of dead channels",
        ", ".join(dict.fromkeys(where.partition(",")[0] for where in places)) + ", 1 thread, batch 1",
        hardware(results["environment"]),
        "never_slower",
    )


def slim_and_int8() -> Claim:
    """Speed-ups of slim networks in int8, and the accuracy that int8 costs."""
    results = read("int8")
    cells = results["cells"]
    faster = {key: int8.speedup(cells[key]["samples_ms"]["onnxruntime"], "slim int8") for key in int8.DEAD}
    accuracies = {
        key: {each["name"]: each["accuracy"]["top1"] for each in cells[key]["certificate"]["networks"]}
        for key in int8.PUBLISHED
    }
    lost = [
        f"{100 * (found['slim int8'] - found['slim']):+.2f} ({key.partition(', ')[2]})"
        for key, found in accuracies.items()
    ]
    return Claim(
        "Slim and int8 together: latency, and points of accuracy that int8 costs a slim ResNet-56",
        "dense float32: 1",
        f"{' and '.join(f'{ratio:.2f} times faster ({key})' for key, ratio in faster.items())}; {', '.join(lost)}",
        f"{len(faster)} networks for time, {cells[int8.EXACT]['certificate']['n']:,} test images for accuracy",
        USUAL,
        hardware(results["environment"]),
        "int8",
    )


def half_the_macs() -> Claim:
    """The error of ResNet-56 at half of its MACs, without labels or training."""
    results = read("resnet56_curves")
    points = results["points"]
    ways = {
        "on 256 images": "implicit, fitted at 0.5",
        "without data": "implicit, fitted without data at 0.5",
        "only BatchNorm statistics": "implicit, measured at 0.5",
    }
    ours = [f"{100 * points[key]['error']:.2f} % {words}" for words, key in ways.items() if key in points]
    others = {"dense": "dense", "as Li et al.": "li2017, plain at 0.5", "torch-pruning": "MagnitudePruner at 0.5"}
    return Claim(
        "Half of the MACs of a published ResNet-56, no labels, no training: error on CIFAR-10",
        "; ".join(f"{words} {100 * points[key]['error']:.2f} %" for words, key in others.items()),
        "; ".join(ours),
        f"1 network, {results['images']:,} test images",
        "no fine-tuning",
        hardware(results["environment"]),
        "resnet56_curves",
    )


def shorter_steps() -> Claim:
    """Training steps at the width that the paper's networks end with."""
    results = read("shrinking")
    shares = results["steps"]["1"]["shares"]
    dense, narrow = shares["1.0"], shares["0.25"]
    left = narrow["macs"] / dense["macs"]
    # Turns are side by side, so that ratios are those of neighbours.
    faster = statistics.median(a / b for a, b in zip(dense["seconds"], narrow["seconds"], strict=True))
    return Claim(
        "Training gets cheaper as filters die: a step of BasicNet",
        "dense: 1",
        f"{faster:.1f} times shorter at {100 * left:.1f} % of the MACs",
        f"{len(narrow['seconds'])} repeats",
        "steps, not a whole run; 1 thread",
        hardware(results["environment"]),
        "shrinking",
    )


def shorter_run() -> Claim:
    """The run that has come furthest of those that were timed by their steps."""
    results = read("shrinking")
    name, row = max(results["courses"].items(), key=lambda item: item[1]["iterations"])
    dense, shrinking = row["dense_seconds"] / 3600, row["seconds"] / 3600
    left = f"{100 * row['macs_left']:.0f} % of the MACs left"
    return Claim(
        f"Training gets cheaper as filters die: {name}, L2 {row['l2']:g}",
        f"dense: {dense:.1f} hours",
        f"{shrinking:.1f} hours ({dense / shrinking:.1f} times faster), {left}",
        "1 seed",
        f"{row['iterations']:,} of {row['of']:,} iterations, by the time of their steps; {row['precision']}, 1 thread",
        hardware(row["environment"]),
        "shrinking",
    )


def dead_weight() -> Claim:
    """Dead channels in checkpoints that others trained."""
    results = read("census")
    totals = results["totals"][results["thresholds"].index(1e-3)]
    return Claim(
        "Dead channels in published checkpoints",
        "–",
        f"{100 * totals['dead'] / totals['channels']:.1f} % of {totals['channels']:,}",
        f"{totals['checkpoints']} checkpoints",
        "as published",
        hardware(results["environment"]),
        "census",
    )


def phenomenon() -> Claim:
    """Adam and L2 on CIFAR-10 at the longest scale that was run."""
    cell = entries()[0]
    scale = next(scale for scale in paper.SCALES if cell.name in paper.found(scale).results)
    found, asked = paper.found(scale).results[cell.name], cell.paper
    return Claim(
        "Adam with L2 kills filters: CIFAR-10, L2 1e-3, dead by γ and test error",
        f"paper: {asked['gamma']:g} %, {asked['error']:g} %",
        f"{found.mean('gamma'):.1f} %, {found.mean('error'):.1f} %",
        seeds(found),
        own_length(found) if scale == "full" else f"**{scale} scale**: shortened, and not the paper's error",
        found.runs[0].environment.get("Processor", ""),
        "paper" if scale == "full" else "phenomenon",
    )


def has_own_line(result: Result) -> bool:
    """Whether it is the result that `phenomenon` shows."""
    return entries()[0].name in result.names and result.variation.unprinted == Variation()


def full_lengths() -> list[Result]:
    """The networks that were trained as long as the paper's, each once a recipe, though in several tables."""
    results = {
        (result.names, folder): result
        for folder in (paper.RESULTS, *paper.other_recipes())
        for result in paper.found("full", folder).results.values()
    }
    return [results[key] for key in sorted(results)]


def lengths() -> str:
    """How much of what is shown about the paper comes from runs of its own length."""
    count = len({result.names for result in full_lengths()})
    if not count:
        return (
            "No network has been trained at the paper's length here yet: what shorter runs of narrower networks show "
            "is the order of the numbers."
        )
    networks = "One network of the paper has" if count == 1 else f"{count} networks of the paper have"
    return (
        f"{networks} been trained at its full length here. All else about the paper comes from shorter runs of "
        "narrower networks, which show the order of the numbers. Those of the small scale are only a quick check: its "
        "networks are not good."
    )


def full_length(result: Result) -> Claim:
    """One network of the paper at its own length: dead by γ and test error."""
    cell = next(entry for entry in by_worth() if entry.name in result.names)
    asked = cell.paper
    known = "paper: " + ", ".join(f"{asked[name]:g} %" for name in ("gamma", "error") if name in asked)
    return Claim(
        f"The paper's network {cell.row} on {datasets()[cell.data].title}, trained at full length: dead by γ and test "
        "error",
        known,
        f"{result.mean('gamma'):.1f} %, {result.mean('error'):.1f} %",
        seeds(result),
        own_length(result),
        result.runs[0].environment.get("Processor", ""),
        "paper",
    )


def seeds(result: Result) -> str:
    """How many seeds a result is of."""
    return "1 seed" if len(result.runs) == 1 else f"{len(result.runs)} seeds"


def own_length(result: Result) -> str:
    """The paper's length of training, and how it was trained here."""
    variation = result.variation
    how = ["dead channels removed while it trains"] if variation.shrink_every else []
    changes = [str(variation.precision), *how, *variation.unprinted.marks("fp32")]
    return ", ".join([f"the paper's {result.iterations:,} iterations", *changes])


def trends(scale: Scale) -> Claim | None:
    """The paper's trends at a shorter scale; None if no network of them has been trained there."""
    results = paper.found(scale).results
    known = [each for each in verdicts(results) if each.holds is not None]
    if not known:
        return None
    named = [results[cell.name] for cell in cells() if cell.name in results]
    # A network may be in several tables.
    used = list({result.names: result for result in named}.values())
    errors = sorted(float(result.mean("error")) for result in used)
    counts = [len(result.runs) for result in used]
    return Claim(
        "The paper's trends hold",
        f"paper: {len(known)} of {len(known)}",
        f"{sum(bool(each.holds) for each in known)} of {len(known)}",
        f"{len(used)} networks, {between(counts)} seed{'s' if max(counts) > 1 else ''}",
        f"**{scale} scale**: {between([result.iterations for result in used])} iterations, not 406,250, and narrower "
        f"networks; errors of {errors[0]:.0f} to {errors[-1]:.0f} %, {statistics.median(errors):.0f} % in the median",
        "see the page",
        "paper",
    )


def between(numbers: Sequence[int]) -> str:
    """The range of some numbers in words."""
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


CLAIMS: Sequence[Callable[[], Claim]] = (
    exactness,
    speed_of_surgery,
    speed_of_networks,
    never_slower_by_default,
    slim_and_int8,
    half_the_macs,
    shorter_steps,
    shorter_run,
    dead_weight,
    phenomenon,
)


def claims() -> Iterator[Claim]:
    """Every claim, in order; the networks at the paper's length come before what shorter runs show."""
    yield from (state() for state in CLAIMS)
    yield from (full_length(each) for each in full_lengths() if not has_own_line(each))
    yield from filter(None, map(trends, SHORTER))


def table() -> str:
    """Every claim in Markdown."""
    lines = [
        "| what was shown | paper or rival | slimnet | how many | how long | on | table |",
        "|---|---|---|---|---|---|---|",
    ]
    for claim in claims():
        lines.append(f"| {' | '.join(claim[:-1])} | [{claim.page}](tables/{claim.page}.md) |")
    return "\n".join(lines)
