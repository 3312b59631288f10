"""Latency of slim networks: as the widths fall, rounded up, chosen by measurement, and torch-pruning's.

Six torchvision networks on 224×224 images, with 30, 50 and 70 % of the BatchNorm channels dead. Which layers lose how
many follows the paper's table 2 (BasicNet, Adam, L2 1e-4: 41, 20, 9, 33, 34, 67 and 55 % from the first to the last
convolution, a shape that its VGG-16 of table 7 has too): the profile is stretched over the BatchNorms in their order
and its log-odds are shifted by one number, so that the share of all channels is met. Channels are drawn independently
with seed 0, β is negative on dead ones, as Adam with L2 leaves it, and their γ is 0, so that every difference between
outputs is an error.

All contenders take turns in one process: dense, as the widths fall, multiples of 4, 8, 16 and 32, and what
torch-pruning leaves where it removes the channels that are dead in every BatchNorm of a group. What `round_to="auto"`
takes is decided on a measurement of its own before that, among ours and dense. Errors are the largest differences of
outputs over the largest output of the masked network.

    python benchmarks/latency.py --folder DIR --prepare [NAME ...]        # whatever else runs
    python benchmarks/latency.py --folder DIR [--threads 1] [NAME ...]    # while nothing else runs
    python benchmarks/latency.py --table

The first writes all contenders into DIR, the second measures them. What is already in DIR or in the output file is not
made again, so that an interrupted run goes on where it was.
"""

import argparse
import copy
import json
import os
import sys
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from surgery_speed import theirs
from torch import nn
from zoo import batch_norms, calibrate, images, network, outputs, relative

import slimnet
from slimnet.benchmark import Contender, Settings, environment, macs, measure, ratio_interval
from slimnet.compat import torchvision
from slimnet.widths import fewest_macs_of_the_fastest

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


def cell(folder: Path, places: Mapping[str, Any], threads: int, seconds: float) -> dict[str, Any]:
    """Measure the contenders of one cell on every runtime, beside the places where they have been measured before."""
    facts = json.loads((folder / FACTS).read_text())
    torchvision()  # before its classes are loaded, which needs it whole
    contenders = [
        Contender(each, torch.load(folder / f"{each}.pt", weights_only=False), folder / f"{each}.onnx")
        for each in facts["macs"]
    ]
    measured = {
        place(runtime, threads): timed(contenders, facts["macs"], Settings((1,), threads, seconds, runtimes=(runtime,)))
        for runtime in RUNTIMES
    }
    return {**facts, "places": {**places, **measured}}


def place(runtime: str, threads: int) -> str:
    """What a runtime with a number of threads is called."""
    return f"{runtime}, {threads} thread{'s' * (threads > 1)}"


def timed(contenders: list[Contender], work: Mapping[str, int], settings: Settings) -> dict[str, Any]:
    """What auto takes on one runtime, and then how long every contender runs there, in milliseconds."""
    inputs = images("", 1, SIDE)
    ours = [each for each in contenders if each.name != THEIRS]
    (trial,) = measure(ours, inputs, settings)
    chosen = ours[fewest_macs_of_the_fastest([work[each.name] for each in ours], trial.samples_ms)].name
    (latency,) = measure(contenders, inputs, settings)
    rows = zip(latency.names, latency.samples_ms, strict=True)
    return {"auto": chosen, "samples_ms": {name: [round(each, 4) for each in row] for name, row in rows}}


def write(path: Path, results: dict[str, Any]) -> None:
    """Replace the results file in one step."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, sort_keys=True).replace('"macs":', '\n"macs":') + "\n")
    os.replace(temporary, path)


def speedup(samples: Mapping[str, list[float]], name: str, over: str = "dense") -> str:
    """How many times faster than another, with the interval."""
    found = ratio_interval(samples[over], samples[name])
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def line(name: str, row: dict[str, Any], measured: dict[str, Any]) -> str:
    """One network on one runtime."""
    samples, work = measured["samples_ms"], row["macs"]
    medians = {each: float(np.median(values)) for each, values in samples.items()}
    auto = measured["auto"]
    fixed = min((each for each in medians if each.startswith("multiples")), key=medians.__getitem__)
    gain = medians["dense"] / medians[auto]
    rival = speedup(samples, auto, THEIRS) if THEIRS in samples else "it crashes"
    cells = (
        name,
        f"{medians['dense']:.1f}",
        f"{work['dense'] / work['none']:.2f}",
        speedup(samples, "none"),
        f"{medians['dense'] / medians[fixed]:.2f} ({fixed.rpartition(' ')[2]})",
        f"{speedup(samples, auto)}, {auto.rpartition(' ')[2]}",
        f"{work['dense'] / work[auto]:.2f}",
        f"{gain * work[auto] / work['dense']:.2f}",
        rival,
    )
    return "| " + " | ".join(cells) + " |"


def table(results: dict[str, Any]) -> str:
    """One table for each runtime and number of threads, then the errors."""
    parts = []
    cells = results["cells"]
    for where in sorted({each for row in cells.values() for each in row["places"]}):
        parts += [
            f"{where}, batch 1:",
            "",
            "| network, % dead | dense ms | MACs ÷ as it falls | speed-up as it falls | best fixed (multiple) | auto "
            "| MACs ÷ auto | efficiency | times faster than torch-pruning's |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
            *(line(name, row, row["places"][where]) for name, row in cells.items() if where in row["places"]),
            "",
        ]
    parts += ["| network, % dead | error of ours, largest | error of torch-pruning's |", "|---|--:|--:|"]
    for name, row in cells.items():
        ours = max(value for each, value in row["error"].items() if each != THEIRS)
        rival = row["torch_pruning_failed"] or f"{row['error'][THEIRS]:.0e}"
        parts.append(f"| {name} | {ours:.0e} | {rival} |")
    return "\n".join(parts)


def main() -> None:
    """Measure what is missing, saying how far it is, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NETWORKS)
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each of two measurements in each place")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dead", type=int, nargs="*", default=DEAD, help="percentages of dead channels")
    parser.add_argument("--folder", type=Path, help="where the contenders are kept between the two steps")
    parser.add_argument("--prepare", action="store_true", help="make the contenders and measure nothing")
    parser.add_argument("--table", action="store_true", help="print what is in the output file and run nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "latency.json")
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else {"cells": {}}
    if not options.table and options.folder is None:
        parser.error("say with --folder where the contenders are kept")
    torch.set_num_threads(1)
    for name, dead in () if options.table else product(options.names, options.dead):
        key = f"{name} {dead}"
        places = results["cells"].get(key, {}).get("places", {})
        if place(RUNTIMES[-1], options.threads) in places:
            continue
        print(key, file=sys.stderr, flush=True)
        folder = options.folder / key.replace(" ", "_")
        if not (folder / FACTS).exists():
            prepare(name, dead, folder)
        if options.prepare:
            continue
        results["cells"][key] = cell(folder, places, options.threads, options.seconds)
        results["environment"] = dict(environment().rows())
        results["settings"] = {"seed": 0, "image": SIDE, "batch": 1, "seconds": options.seconds}
        write(options.out, results)
    print(table(results))


if __name__ == "__main__":
    main()
