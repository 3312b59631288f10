"""int8 beside slimming: what dense, slim, dense int8 and slim int8 compute, and how long they take in turns.

A published ResNet-56, of which the exact surgery removes what is dead, and of which half of the MACs is removed and the
rest fitted on 256 training images without labels (benchmarks/resnet56_curves.py): their certificates are measured on
all 10,000 test images of CIFAR-10, of ONNX files quantised by onnxruntime, and of OpenVINO's quantised by NNCF. VGG-16
and ResNet-50 on 224×224 images with half of the BatchNorm channels dead, as benchmarks/latency.py makes them, with
widths that are multiples of 16: their weights are random, so that only their time means anything, and they are
calibrated on noise.

    python benchmarks/int8.py --folder DIR --checkpoint resnet56.th --data cifar10    # whatever else runs
    python benchmarks/int8.py --folder DIR --measure [--seconds 8]                     # while nothing else runs
    python benchmarks/int8.py --table

The first makes the files and the certificates, the second measures the latency of the files, batch 1 on one thread.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import latency
import numpy as np
import torch
from torch import nn
from zoo import images, network

import slimnet
from slimnet.benchmark import Contender, Settings, environment, macs, measure, ratio_interval
from slimnet.data import ImageData, load_data
from slimnet.data.normalisation import normalised
from slimnet.errors import SlimnetError
from slimnet.export.int8 import quantise_openvino
from slimnet.export.int8.export import drawn
from slimnet.export.int8.quantise import quantise
from slimnet.methods import Budget, remove_selected, score_channels, select_within_budget
from slimnet.storage.files import whole_file

FOUR = ("dense", "slim", "dense int8", "slim int8")
RUNTIMES = ("onnxruntime", "openvino")
BY_NNCF = {"dense int8, NNCF": "dense", "slim int8, NNCF": "slim"}
"""Further contenders under OpenVINO, and the networks that they are quantised from."""
EXACT, HALF = "resnet56, dead channels", "resnet56, half of the MACs"
DEAD = {"vgg16_bn, half dead": "vgg16_bn", "resnet50, half dead": "resnet50"}
PUBLISHED = (EXACT, HALF)
CERTIFICATES = {"certificate": ".onnx", "certificate by NNCF": ".xml"}
"""What the results call the certificates of a published network, and the ends of the names of its files."""
QUANTISED_BY = {
    "certificate": "Quantised and run by onnxruntime:",
    "certificate by NNCF": "Quantised by NNCF, run by OpenVINO, the float32 networks too:",
}
FITTED_ON = 256
OUT = Path(__file__).parent / "results" / "int8.json"


def published(checkpoint: str, data: ImageData, folder: Path, results: dict[str, Any]) -> None:
    """Files and certificates of the ResNet-56, as far as they are not there."""
    dense = slimnet.load_checkpoint(checkpoint, "resnet56").eval()
    inputs, _ = next(data.batches("test", 4))
    _, pixels = drawn(data, None, 0)
    batches = [data.normalise(some).contiguous().numpy() for some in pixels.split(32)]
    for key in PUBLISHED:
        row = results["cells"].get(key, {})
        if all(name in row for name in CERTIFICATES):
            continue
        slim = slimnet.slim(dense, inputs).model if key == EXACT else halved(dense, inputs, data)
        if "macs" not in row:
            row |= made(key, dense, slim, inputs, batches, folder)
        for name, ending in CERTIFICATES.items():
            if name not in row:
                found = slimnet.export_int8(slim, inputs, folder / f"certified{ending}", data, dense=dense)
                row[name] = dataclasses.asdict(found.certificate) | {"environment": dict(environment().rows())}
        results["cells"][key] = row
        write(results)


def halved(dense: nn.Module, inputs: torch.Tensor, data: ImageData) -> nn.Module:
    """The network with half of its MACs, widths multiples of 4, and the rest fitted to it without labels."""
    chosen = select_within_budget(
        dense, inputs, score_channels("implicit", dense, inputs), Budget("macs", 0.5), round_to=4
    )
    return remove_selected(dense, inputs, chosen, round_to=4, images=data.sample(FITTED_ON), refit=True).model


def made_up(key: str, folder: Path, results: dict[str, Any]) -> None:
    """Files of a network with dead channels, if they are not there."""
    if key in results["cells"]:
        return
    dense = network(DEAD[key])
    latency.kill(dense, 0.5)
    inputs = images("", 1, latency.SIDE)
    slim = slimnet.slim(dense, inputs, round_to=16).model
    noise = [images("", batch, latency.SIDE).numpy() for batch in (1, 2, 3, 4)]
    results["cells"][key] = made(key, dense, slim, inputs, noise, folder)
    write(results)


def made(
    key: str, dense: nn.Module, slim: nn.Module, inputs: torch.Tensor, batches: Iterable[np.ndarray], folder: Path
) -> dict[str, Any]:
    """The files of a cell, and what is known of the four in ONNX before they run."""
    place, batches = folder / key, list(batches)
    place.mkdir(parents=True, exist_ok=True)
    for name, model in zip(FOUR[:2], (dense, slim), strict=True):
        slimnet.export_onnx(model, inputs, place / f"{name}.onnx")
        quantise(place / f"{name}.onnx", place / f"{name} int8.onnx", batches, {})
        slimnet.export_openvino(model, inputs, place / f"{name}.xml")
    for name, source in BY_NNCF.items():
        quantise_openvino.quantise(place / f"{source}.xml", place / f"{name}.xml", batches, {})
    return {
        "macs": {name: macs(model, inputs) for name, model in zip(FOUR[:2], (dense, slim), strict=True)},
        "bytes": {name: (place / f"{name}.onnx").stat().st_size for name in FOUR},
    }


def timed(key: str, folder: Path, seconds: float, results: dict[str, Any]) -> None:
    """The latency of the four in turns under each runtime, in milliseconds; under OpenVINO of NNCF's files too."""
    row = results["cells"][key]
    four = [Contender(name, onnx=folder / key / f"{name}.onnx") for name in FOUR]
    others = [Contender(name, openvino=folder / key / f"{name}.xml") for name in BY_NNCF]
    side = 32 if key in PUBLISHED else latency.SIDE
    for runtime in RUNTIMES:
        settings = Settings((1,), 1, seconds, runtimes=(runtime,))
        contenders = [*four, *others] if runtime == "openvino" else four
        (found,) = measure(contenders, images("", 1, side), settings)
        samples = zip(found.names, found.samples_ms, strict=True)
        row.setdefault("samples_ms", {})[runtime] = {name: [round(each, 4) for each in row] for name, row in samples}
    results["environment"] = dict(environment().rows())
    results["settings"] = {"threads": 1, "batch": 1, "seconds": seconds}
    write(results)


def write(results: dict[str, Any]) -> None:
    """Replace the results file in one step."""
    with whole_file(OUT, SlimnetError) as file:
        file.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def speedup(samples: dict[str, list[float]], name: str) -> float:
    """How many times faster than the dense network in float32."""
    return ratio_interval(samples["dense"], samples[name]).value


def faster(samples: dict[str, list[float]], name: str) -> str:
    """How many times faster than the dense network in float32, with the interval."""
    found = ratio_interval(samples["dense"], samples[name])
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def table(results: dict[str, Any]) -> str:
    """One table of accuracies and agreements, and one of latencies for each runtime."""
    cells = results["cells"]
    lines = []
    for name, words in QUANTISED_BY.items():
        rows = [line for key, row in cells.items() if name in row for line in certified(key, row[name])]
        if rows:
            lines += [
                words,
                "",
                "| network | | top-1 % | top-5 % | same class as dense % | logits apart, mean | largest |",
                "|---|---|--:|--:|--:|--:|--:|",
                *rows,
                "",
            ]
    for runtime in RUNTIMES:
        timed_here = {key: row for key, row in cells.items() if runtime in row.get("samples_ms", {})}
        names = [name for name in BY_NNCF if any(name in row["samples_ms"][runtime] for row in timed_here.values())]
        columns = [*FOUR[1:], *names]
        lines += [
            f"{runtime}, 1 thread, batch 1:",
            "",
            f"| network | MACs ÷ | dense ms | {' | '.join(columns)} |",
            f"|---{'|--:' * (2 + len(columns))}|",
            *(latencies(key, row, runtime, columns) for key, row in timed_here.items()),
            "",
        ]
    lines += ["| network | MB dense | slim | dense int8 | slim int8 |", "|---|--:|--:|--:|--:|"]
    for key, row in cells.items():
        sizes = [f"{row['bytes'][name] / 1e6:.2f}" for name in FOUR]
        lines.append(f"| {key} | {' | '.join(sizes)} |")
    return "\n".join(lines)


def certified(key: str, certificate: dict[str, Any]) -> list[str]:
    """The lines of one certificate."""
    to_dense = {each["name"]: each for each in certificate["agreements"] if each["other"] == "dense"}
    lines = []
    for each in certificate["networks"]:
        accuracy, apart = each["accuracy"], to_dense.get(each["name"])
        cells = [key, each["name"], f"{100 * accuracy['top1']:.2f}", f"{100 * accuracy['top5']:.2f}"]
        cells += (
            ["–"] * 3
            if apart is None
            else [
                f"{100 * apart['top1']:.2f}",
                f"{apart['mean']:.2g}",
                f"{apart['largest']:.2g}",
            ]
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def latencies(key: str, row: dict[str, Any], runtime: str, columns: Iterable[str]) -> str:
    """The line of one network under one runtime."""
    samples, work = row["samples_ms"][runtime], row["macs"]
    cells = [key, f"{work['dense'] / work['slim']:.2f}", f"{np.median(samples['dense']):.1f}"]
    cells += [faster(samples, name) if name in samples else "–" for name in columns]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Make what is missing, or measure it, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the files are kept between the two steps")
    parser.add_argument("--checkpoint", help="the ResNet-56")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--measure", action="store_true", help="measure the latency of what was made")
    parser.add_argument("--seconds", type=float, default=8.0, help="time for the measurement of a cell")
    parser.add_argument("--table", action="store_true", help="print what is in the results and run nothing")
    options = parser.parse_args()
    results = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {"cells": {}}
    if not options.table:
        if options.folder is None:
            parser.error("say with --folder where the files are kept")
        torch.set_num_threads(1)
        if options.measure:
            for key in results["cells"]:
                timed(key, options.folder, options.seconds, results)
        else:
            for key in DEAD:
                made_up(key, options.folder, results)
            if options.checkpoint is not None:
                data = normalised(load_data(options.data), "imagenet")
                published(options.checkpoint, data, options.folder, results)
    print(table(results))


if __name__ == "__main__":
    main()
