"""Latency of slim networks: without rounding, rounded up, chosen by measurement, and torch-pruning's.

Six torchvision networks on 224×224 images, with 30, 50 and 70 % of the BatchNorm channels dead. Which layers lose how
many follows the paper's table 2 (BasicNet, Adam, L2 1e-4: 41, 20, 9, 33, 34, 67 and 55 % from the first to the last
convolution, a shape that its VGG-16 of table 7 has too): the profile is stretched over the BatchNorms in their order
and its log-odds are shifted by one number, so that the share of all channels is met. Channels are drawn independently
with seed 0, β is negative on dead ones, as Adam with L2 leaves it, and their γ is 0, so that every difference between
outputs is an error.

All contenders take turns in one process: dense, without rounding, multiples of 4, 8, 16 and 32, and what
torch-pruning leaves where it removes the channels that are dead in every BatchNorm of a group. What `round_to="auto"`
takes is decided on a measurement of its own before that, among ours and dense. Errors are the largest differences of
outputs over the largest output of the masked network.

    python benchmarks/latency.py --folder DIR --prepare [NAME ...]        # whatever else runs
    python benchmarks/latency.py --folder DIR [--threads 1] [--batch 1 8] [NAME ...]    # while nothing else runs
    python benchmarks/latency.py --folder DIR --profile [NAME ...]        # while nothing else runs
    python benchmarks/latency.py --table

The first writes all contenders into DIR, the second measures them, the third asks onnxruntime how long each node takes.
What is already in DIR or in the output file is not made again, so that an interrupted run goes on where it was.
"""

import argparse
import copy
import json
import sys
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from surgery_speed import theirs
from torch import nn
from zoo import batch_norms, calibrate, images, network, outputs, relative

import slimnet
from slimnet.benchmark import Cell, Contender, LayerTimes, Settings, environment, macs, measure, ratio_interval
from slimnet.benchmark.layers import profile
from slimnet.compat import torchvision
from slimnet.errors import SlimnetError
from slimnet.storage.files import whole_file
from slimnet.width_search import fewest_macs_of_the_fastest, quickest

NETWORKS = ("resnet50", "vgg16_bn", "mobilenet_v2", "densenet121", "efficientnet_b0", "regnet_y_400mf")
DEAD = (30, 50, 70)
PROFILE = (0.41, 0.20, 0.09, 0.33, 0.34, 0.67, 0.55)
"""The dead share of each layer of BasicNet on CIFAR-100, trained with Adam and L2 1e-4 (the paper's table 2)."""
MULTIPLES = (1, 4, 8, 16, 32)
THEIRS = "torch-pruning"
RUNTIMES = ("onnxruntime", "torch")
SIDE = 224
FACTS = "facts.json"


def shares(sizes: list[int], target: float) -> np.ndarray:
    """The dead share of each layer: the profile stretched over the layers, shifted until `target` of all are dead."""
    at = np.linspace(0, 1, len(sizes))
    profile = np.interp(at, np.linspace(0, 1, len(PROFILE)), PROFILE)
    odds, low, high = np.log(profile / (1 - profile)), -20.0, 20.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        found = 1 / (1 + np.exp(-odds - middle))
        low, high = (middle, high) if np.average(found, weights=sizes) < target else (low, middle)
    return found


def kill(model: nn.Module, target: float) -> None:
    """Give a network the dead channels that a profile says, and statistics that fit."""
    generator = torch.Generator().manual_seed(0)
    norms = list(batch_norms(model))
    with torch.no_grad():
        for norm, share in zip(norms, shares([len(norm.weight) for norm in norms], target), strict=True):
            order = torch.randperm(len(norm.weight), generator=generator)
            dead = order[: round(float(share) * len(order))]
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            norm.bias.copy_(0.3 * torch.randn(norm.bias.shape, generator=generator))
            norm.weight[dead] = 0.0
            norm.bias[dead] = -norm.bias[dead].abs()
    calibrate(model, images("", 4, SIDE // 2))


def networks(dense: nn.Module) -> tuple[dict[str, nn.Module], str | None]:
    """Every contender's network, and why torch-pruning has none."""
    inputs = images("", 1, SIDE)
    found = {"dense": dense}
    for multiple in MULTIPLES:
        slimmed = slimnet.slim(dense, inputs, round_to=multiple)
        found[slimmed.plan.rounding] = slimmed.model
    try:
        rival = theirs(copy.deepcopy(dense), inputs)
        outputs(rival, inputs)
    except Exception as error:  # the rival's crashes are a result
        return found, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:160]
    return {**found, THEIRS: rival}, None


def prepare(name: str, dead: int, folder: Path) -> None:
    """Make all contenders of one cell and write them into a folder, with what is known of them before they run."""
    dense = network(name)
    kill(dense, dead / 100)
    inputs, fresh = images("", 1, SIDE), images("", 2, SIDE // 2)
    found, failure = networks(dense)
    expected = outputs(dense, fresh)
    folder.mkdir(parents=True, exist_ok=True)
    for each, model in found.items():
        slimnet.export_onnx(model, inputs, folder / f"{each}.onnx")
        torch.save(model, folder / f"{each}.pt")
    facts = {
        "macs": {each: macs(model, inputs) for each, model in found.items()},
        "params": {each: sum(p.numel() for p in model.parameters()) for each, model in found.items()},
        "error": {each: relative(expected, outputs(model, fresh)) for each, model in found.items()},
        "torch_pruning_failed": failure,
    }
    write(folder / FACTS, facts)


def contenders_of(folder: Path, runtime: str) -> list[Contender]:
    """The contenders of one cell as a runtime takes them."""
    names = list(json.loads((folder / FACTS).read_text())["macs"])
    if runtime == "onnxruntime":
        return [Contender(name, onnx=folder / f"{name}.onnx") for name in names]
    torchvision()  # before its classes are loaded, which needs it whole
    return [Contender(name, torch.load(folder / f"{name}.pt", weights_only=False)) for name in names]


def place(runtime: str, threads: int, batch: int) -> str:
    """What a runtime with a number of threads and a batch size is called."""
    return f"{runtime}, {threads} thread{'s' * (threads > 1)}, batch {batch}"


def timed(contenders: list[Contender], work: Mapping[str, int], settings: Settings) -> dict[str, Any]:
    """What auto takes in one place, and then how long every contender takes there, in milliseconds."""
    inputs = images("", 1, SIDE)
    ours = [each for each in contenders if each.name != THEIRS]
    (trial,) = measure(ours, inputs, settings)
    chosen = ours[fewest_macs_of_the_fastest([work[each.name] for each in ours], quickest(trial.samples_ms))].name
    (latency,) = measure(contenders, inputs, settings)
    rows = zip(latency.names, latency.samples_ms, strict=True)
    return {
        "auto": chosen,
        "samples_ms": {name: [round(each, 4) for each in row] for name, row in rows},
        "measured": environment().when,
    }


def profiled(folder: Path, seconds: float) -> dict[str, Any]:
    """Where the time goes under onnxruntime on one thread at batch 1, in milliseconds: by kind, in our contenders.

    `mixed_at_most` is how many times faster than the best of the rounded ones a network could be in which every layer
    has the multiple that is best for it, if everything else took as little as in any of them.
    """
    contenders = [each for each in contenders_of(folder, "onnxruntime") if each.name != THEIRS]
    found = profile(contenders, images("", 1, SIDE), Cell("cpu", "onnxruntime", 1, 1), seconds)
    layers, rest = collected(found.layers), collected(found.others)
    rounded = [number for number, name in enumerate(found.names) if name.startswith("multiples")]
    floor = sum(min(row[number] for number in rounded) for row in layers.values())
    floor += min(sum(row[number] for row in rest.values()) for number in rounded)
    best = min(sum(row[number] for row in (*layers.values(), *rest.values())) for number in rounded)
    return {
        "names": found.names,
        "layers": [round(sum(row[number] for row in layers.values()), 4) for number in range(len(found.names))],
        "others": {name: [round(each, 4) for each in row] for name, row in rest.items()},
        "mixed_at_most": round(best / floor, 4),
    }


def collected(rows: Iterable[LayerTimes]) -> dict[str, list[float]]:
    """The median milliseconds of every row, by its name; 0 in contenders that have no such row."""
    return {row.name: [row.median_ms(number) or 0.0 for number in range(len(row.macs))] for row in rows}


def write(path: Path, results: dict[str, Any]) -> None:
    """Replace the results file in one step."""
    with whole_file(path, SlimnetError) as file:
        file.write_text(json.dumps(results, sort_keys=True).replace('"macs":', '\n"macs":') + "\n")


def speedup(samples: Mapping[str, list[float]], name: str, over: str = "dense") -> str:
    """How many times faster than another, with the interval."""
    found = ratio_interval(samples[over], samples[name])
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def line(name: str, row: dict[str, Any], measured: dict[str, Any]) -> str:
    """One network at batch 1 on one thread."""
    samples, work = measured["samples_ms"], row["macs"]
    medians = medians_of(measured)
    auto = measured["auto"]
    fixed = min((each for each in medians if each.startswith("multiples")), key=medians.__getitem__)
    cells = (
        name,
        f"{medians['dense']:.1f}",
        f"{work['dense'] / work['none']:.2f}",
        speedup(samples, "none"),
        f"{medians['dense'] / medians[fixed]:.2f} ({fixed.rpartition(' ')[2]})",
        f"{speedup(samples, auto)}, {auto.rpartition(' ')[2]}",
        f"{work['dense'] / work[auto]:.2f}",
        shown_efficiency(row, measured),
        speedup(samples, auto, THEIRS) if THEIRS in samples else "it crashes",
    )
    return "| " + " | ".join(cells) + " |"


def short_line(name: str, where: str, row: dict[str, Any]) -> str:
    """One network elsewhere than at batch 1 on one thread."""
    measured = row["places"][where]
    samples, auto = measured["samples_ms"], measured["auto"]
    cells = (
        name,
        *map(str, numbers(where)),
        f"{medians_of(measured)['dense']:.1f}",
        speedup(samples, "none"),
        f"{speedup(samples, auto)}, {auto.rpartition(' ')[2]}",
        shown_efficiency(row, measured),
        speedup(samples, auto, THEIRS) if THEIRS in samples else "it crashes",
    )
    return "| " + " | ".join(cells) + " |"


def medians_of(measured: dict[str, Any]) -> dict[str, float]:
    """The median time of every contender, in milliseconds."""
    return {each: float(np.median(values)) for each, values in measured["samples_ms"].items()}


def efficiency(row: dict[str, Any], measured: dict[str, Any]) -> float:
    """The speed-up of what auto takes over its MACs reduction."""
    medians, work, auto = medians_of(measured), row["macs"], measured["auto"]
    return medians["dense"] / medians[auto] * work[auto] / work["dense"]


def shown_efficiency(row: dict[str, Any], measured: dict[str, Any]) -> str:
    """The efficiency; a dash where auto takes a network of as many MACs as the dense one."""
    work = row["macs"]
    return "–" if work[measured["auto"]] == work["dense"] else f"{efficiency(row, measured):.2f}"


def table(results: dict[str, Any]) -> str:
    """For each runtime a table of one thread at batch 1, and one of all else; then the errors."""
    cells = {key: results["cells"][key] for key in sorted(results["cells"])}
    parts = []
    for runtime in RUNTIMES:
        usual = place(runtime, 1, 1)
        parts += [
            f"{usual}:",
            "",
            "| network, % dead | dense ms | MACs ÷ without rounding | speed-up without rounding "
            "| best fixed (multiple) | auto | MACs ÷ auto | efficiency | times faster than torch-pruning's |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
            *(line(name, row, row["places"][usual]) for name, row in cells.items() if usual in row["places"]),
            "",
        ]
        parts += elsewhere(runtime, cells)
    parts += where_time_goes(cells)
    parts += ["| network, % dead | error of ours, largest | error of torch-pruning's |", "|---|--:|--:|"]
    for name, row in cells.items():
        ours = max(value for each, value in row["error"].items() if each != THEIRS)
        rival = row["torch_pruning_failed"] or f"{row['error'][THEIRS]:.0e}"
        parts.append(f"| {name} | {ours:.0e} | {rival} |")
    return "\n".join(parts)


def elsewhere(runtime: str, cells: Mapping[str, Any]) -> list[str]:
    """The lines of a table of more threads and larger batches; none where nothing was measured."""
    found = [
        short_line(name, where, row)
        for name, row in cells.items()
        for where in sorted(row["places"], key=numbers)
        if where.startswith(f"{runtime},") and where != place(runtime, 1, 1)
    ]
    heading = (
        f"{runtime}, more threads and larger batches:",
        "",
        "| network, % dead | threads | batch | dense ms | speed-up without rounding | auto | efficiency "
        "| times faster than torch-pruning's |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    )
    return [*heading, *found, ""] if found else []


def where_time_goes(cells: Mapping[str, Any]) -> list[str]:
    """The profile of the whole graph, for the dense network, the slim one without rounding, and that of auto."""
    usual = place("onnxruntime", 1, 1)
    heading = (
        f"Where the time goes, {usual}: milliseconds of dense → the slim network without rounding → "
        "what auto takes. *Layers* are convolutions and linear layers with the activations fused into them, *layout* "
        "is the reordering of channels between them and the rest. *Mixed* is how many times faster than with the best "
        "multiple for all a network could be at most in which every layer had its own: each as fast as in the fastest.",
        "",
        "| network, % dead | layers | their efficiency without rounding, auto | layout | all else | mixed, at most |",
        "|---|--:|--:|--:|--:|--:|",
    )
    found = [profile_line(name, row) for name, row in cells.items() if "profile" in row and usual in row["places"]]
    return [*heading, *found, ""] if found else []


def profile_line(name: str, row: dict[str, Any]) -> str:
    """Where one network's time goes."""
    noted, work = row["profile"], row["macs"]
    shown = ["dense", "none", row["places"][place("onnxruntime", 1, 1)]["auto"]]
    columns = [noted["names"].index(each) for each in shown]
    layers = [noted["layers"][column] for column in columns]
    moves = {kind for kind in noted["others"] if kind.startswith("Reorder")}
    layout, rest = (
        [sum(noted["others"][kind][column] for kind in kinds) for column in columns]
        for kinds in (moves, noted["others"].keys() - moves)
    )
    gains = [layers[0] / ms * work[each] / work["dense"] for each, ms in zip(shown, layers, strict=True)]
    cells = (
        name,
        arrows(layers),
        ", ".join(f"{gain:.2f}" for gain in gains[1:]),
        arrows(layout),
        arrows(rest),
        f"{noted['mixed_at_most']:.3f}",
    )
    return "| " + " | ".join(cells) + " |"


def arrows(times: Iterable[float]) -> str:
    """Milliseconds before and after."""
    return " → ".join(f"{each:.1f}" for each in times)


def numbers(where: str) -> list[int]:
    """The threads and the batch size of a place."""
    return [int(word) for word in where.split() if word.isdigit()]


def main() -> None:
    """Measure what is missing, saying how far it is, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NETWORKS)
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each of two measurements in each place")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, nargs="*", default=(1,), help="batch sizes")
    parser.add_argument("--runtime", nargs="*", default=RUNTIMES, choices=RUNTIMES)
    parser.add_argument("--dead", type=int, nargs="*", default=DEAD, help="percentages of dead channels")
    parser.add_argument("--folder", type=Path, help="where the contenders are kept between the two steps")
    parser.add_argument("--prepare", action="store_true", help="make the contenders and measure nothing")
    parser.add_argument("--profile", action="store_true", help="where the time goes in prepared contenders")
    parser.add_argument("--table", action="store_true", help="print what is in the output file and run nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "latency.json")
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else {"cells": {}}
    if not options.table and options.folder is None:
        parser.error("say with --folder where the contenders are kept")
    torch.set_num_threads(1)
    for name, dead in () if options.table else product(options.names, options.dead):
        advance(options, results, f"{name} {dead}")
    print(table(results))


def advance(options: argparse.Namespace, results: dict[str, Any], key: str) -> None:
    """Prepare, measure or profile one cell as far as it has not been; what was found is written at once."""
    name, _, dead = key.partition(" ")
    folder = options.folder / f"{name}_{dead}"
    known = results["cells"].get(key, {"places": {}})
    wanted = [
        (runtime, batch)
        for runtime, batch in product(options.runtime, options.batch)
        if not options.profile and place(runtime, options.threads, batch) not in known["places"]
    ]
    if not wanted and not options.profile:
        return
    print(key, file=sys.stderr, flush=True)
    if not (folder / FACTS).exists():
        prepare(name, int(dead), folder)
    if options.prepare:
        return
    row = results["cells"].setdefault(key, json.loads((folder / FACTS).read_text()) | known)
    if options.profile:
        row["profile"] = profiled(folder, options.seconds)
        write(options.out, results)
    for runtime, batch in wanted:
        settings = Settings((batch,), options.threads, options.seconds, runtimes=(runtime,))
        measured = timed(contenders_of(folder, runtime), row["macs"], settings)
        row["places"][place(runtime, options.threads, batch)] = measured
        results["environment"] = dict(environment().rows())
        results["settings"] = {"seed": 0, "image": SIDE}
        write(options.out, results)


if __name__ == "__main__":
    main()
