"""The steps of `gpu.py`, each a list of parts; a part that raises is written down and the others go on.

    python benchmarks/gpu_steps.py correctness --device cuda --found correctness.json

On a CPU the same parts run on tiny sizes; what only a GPU has is skipped, and says so.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gpu_checks
import torch
import train_throughput

from slimnet.benchmark import Settings, compare, environment
from slimnet.errors import SlimnetError
from slimnet.storage.files import whole_file
from slimnet.torch_state.precision import float32_products

ROOT = Path(__file__).parent.parent
Part = tuple[str, Callable[[], dict[str, Any]]]

THROUGHPUT: tuple[dict[str, Any], ...] = (
    {},
    {"tf32": True},
    {"bf16": True},
    {"concurrent": 4, "repeats": 2},
    {"concurrent": 8, "repeats": 2, "tf32": True},
    {"arch": "vgg16", "batch": 160, "tf32": True},
)
"""What is not said is BasicNet with a batch of 40 in float32."""

TABLES = [f"table{number}" for number in range(1, 11)] + [f"supp-table{number}" for number in range(1, 5)]
"""All that is trained; the figures of the paper are drawn from the same runs, or simulated."""

LATENCY = ("basicnet", "vgg16", "torchvision:resnet50", "torchvision:mobilenet_v2")


def environment_part(options: argparse.Namespace) -> dict[str, Any]:
    """What a step ran on."""
    return dict(environment((options.device,)).rows())


def correctness(options: argparse.Namespace) -> Iterator[Part]:
    """Surgery, certificate, CUDA graph and benchmark, network by network; then the files, of the first networks."""
    tiny = options.device == "cpu"
    names = gpu_checks.NETWORKS[:1] if tiny else gpu_checks.NETWORKS
    subjects = [gpu_checks.Subject(name, options.device, tiny=tiny) for name in names]
    quick = [check for check in gpu_checks.CHECKS if check not in gpu_checks.SLOW]
    for checks, those in ((quick, subjects), (gpu_checks.SLOW, subjects[:3])):
        for subject in those:
            for check in checks:
                yield f"{subject.name}: {check.__name__}", lambda check=check, subject=subject: check(subject)


def training(options: argparse.Namespace) -> Iterator[Part]:
    """Captured steps against plain ones, the GPU against the CPU, and runs that go on."""
    steps = 16
    for optimiser in gpu_checks.CAPTURED if options.device != "cpu" else gpu_checks.CAPTURED[:1]:
        yield f"captured {optimiser}", lambda optimiser=optimiser: gpu_checks.captured(options.device, optimiser, steps)
    for precision in ("fp32", "bf16"):
        yield f"resumed {precision}", lambda precision=precision: gpu_checks.resumed(options.device, precision, steps)
    yield "as on the CPU", lambda: gpu_checks.as_on_the_cpu(options.device, 12)


def tests(options: argparse.Namespace) -> Iterator[Part]:
    """The files of tests that ask for a GPU."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    known = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files}
    asking = [name for name, text in known.items() if "cuda.is_available()" in text]
    for name in asking if options.device != "cpu" else ["tests/torch_state/test_devices.py"]:
        yield name, lambda name=name: pytest(name, options)


def pytest(path: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one file of tests."""
    chosen = ["-k", "products"] if options.device == "cpu" else []
    command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-p", "no:cacheprovider", path, *chosen]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-300:]]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"outcome": lines[-1], "failed": failed, **({"error": lines[-1]} if done.returncode else {})}


def throughput(options: argparse.Namespace) -> Iterator[Part]:
    """Images trained a second; rows are those of `train_throughput.py`."""
    tiny = options.device == "cpu"
    usual = {
        "arch": "basicnet", "width": 0.125 if tiny else 1.0, "batch": 8 if tiny else 40, "device": options.device,
        "threads": 1 if tiny else min(8, os.cpu_count() or 1), "workers": 0 if tiny else min(8, os.cpu_count() or 1),
        "steps": 2 if tiny else 100, "repeats": 2 if tiny else 5, "concurrent": None,
        "dead": 0.0, "bf16": False, "tf32": False, "compile": False,
    }  # fmt: skip
    for changes in THROUGHPUT[:1] if tiny else THROUGHPUT:
        settings = argparse.Namespace(**{**usual, **changes})
        runs = f", {settings.concurrent} runs" if settings.concurrent else ""
        yield train_throughput.title(settings) + runs, lambda settings=settings: throughput_of(settings)


def throughput_of(settings: argparse.Namespace) -> dict[str, Any]:
    """One row; the plain loop rounds as ours does, which is not torch's default."""
    with float32_products(tf32=settings.tf32):
        row = train_throughput.measure(settings)
    return {**row, "settings": {name: getattr(settings, name) for name in ("workers", "steps", "repeats")}}


def latency(options: argparse.Namespace) -> Iterator[Part]:
    """Dense against slim networks: torch, and replayed from a CUDA graph."""
    tiny = options.device == "cpu"
    for name in LATENCY[:1] if tiny else LATENCY:
        yield name, lambda name=name: latency_of(name, options.device, tiny=tiny)


def latency_of(name: str, device: str, *, tiny: bool) -> dict[str, Any]:
    """One network at batch 1 and at a large batch, 40 % of its channels dead."""
    subject = gpu_checks.Subject(name, device, tiny=tiny)
    batches, seconds = ((1,), 0.05) if tiny else ((1, 64), 1.5)
    settings = Settings(batches=batches, threads=1, seconds=seconds, devices=(device,))
    found = compare({"dense": subject.dense, "slim": subject.slimmed.model}, subject.images[:1], settings)
    return found.to_dict()


def cells(options: argparse.Namespace) -> Iterator[Part]:
    """The paper's cells at full scale, those worth most first, until the time is up."""
    yield "reproduce", lambda: reproduce(options)


def reproduce(options: argparse.Namespace) -> dict[str, Any]:
    """Run `slimnet reproduce`, which goes on by itself where it stopped, and keep what it has found."""
    if options.data_root is None:
        return {"error": "the cells need images; pass --data-root, the folder of cifar10.npz and cifar100.npz"}
    work, kept = options.work or options.out / "cells", options.out / "cells.zip"
    if kept.exists() and not work.exists():
        with zipfile.ZipFile(kept) as archive:
            archive.extractall(work)
    scale, names = ("small", ["table1"]) if options.device == "cpu" else ("full", TABLES)
    budget = f"{max(5, options.seconds - (time.monotonic() - BEGAN) - 15):.0f}s"
    command = [sys.executable, "-m", "slimnet_cli", "reproduce", *names, "--scale", scale, "--budget", budget]
    command += ["-o", str(work), "--data-root", str(options.data_root), "--device", options.device]
    command += ["--concurrent", "1" if options.device == "cpu" else "4"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    finally:
        pack(work, kept)
    if done.returncode:
        return {"error": f"exit code {done.returncode}: {done.stderr.strip()[-600:]}"}
    return of_report(json.loads((work / "report.json").read_text(encoding="utf-8")))


def of_report(report: dict[str, Any]) -> dict[str, Any]:
    """The report of the cells; that some are left, for want of time or of images, makes the step go on next time."""
    left = sum(cell["ours"] is None for cell in report["cells"])
    return {"report": report, **({"error": f"{left} of {len(report['cells'])} cells are left"} if left else {})}


def pack(work: Path, kept: Path) -> None:
    """Keep the results, which are small, in one file; runs that are not done stay in the folder alone."""
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted([*work.glob("results/**/*.json"), *work.glob("report.*")]):
            archive.write(path, path.relative_to(work))


STEPS = {each.__name__: each for each in (correctness, training, tests, throughput, latency, cells)}
BEGAN = time.monotonic()


def main() -> int:
    """Run the parts of a step that are not known; returns 1 where one raised."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--found", type=Path, required=True, help="JSON of the parts that are known; added to")
    parser.add_argument("--seconds", type=float, default=540.0)
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    parser.add_argument("--work", type=Path, help="folder of the cells' runs; in the output folder where not given")
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    # Unwind on the signal to end, so that what is running is ended and its results are packed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found = json.loads(options.found.read_text()) if options.found.exists() else {}
    found.setdefault("environment", environment_part(options))
    failed = False
    for name, part in STEPS[options.step](options):
        if name in found and "error" not in found[name]:
            continue
        start = time.monotonic()
        found[name] = attempted(part)
        found[name]["took_s"] = round(time.monotonic() - start, 2)
        failed = failed or "error" in found[name]
        write(options.found, found)
        if "error" in found[name] and not usable(options.device):
            break
    write(options.found, found)
    return int(failed)


def attempted(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a part gives, or what it raised, in a line."""
    try:
        return part()
    except Exception as error:  # whatever it is, the other parts are to run
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        return {"error": re.sub(r"\s+", " ", f"{type(error).__name__}: {lines[0]}")[:600]}


def usable(device: str) -> bool:
    """Whether a GPU still works after an error; some leave it unusable to the process."""
    try:
        if device != "cpu":
            torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True


def write(path: Path, found: dict[str, Any]) -> None:
    """Replace the file in one step."""
    with whole_file(path, SlimnetError) as file:
        file.write_text(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
