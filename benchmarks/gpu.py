"""One command for minutes on a GPU: what has to be right there, what is fast, then the cells of the paper.

    python benchmarks/gpu.py --budget 9m --out gpu --data-root data
    python benchmarks/gpu.py --budget 60s --out /tmp/gpu --device cpu     # the same steps, tiny, to try the program

Steps run one after the other (see `gpu_steps.py`), each in a process of its own, since an error on a GPU can spoil
all that follows in its process, and within a time of its own. What they find goes into `gpu.json` in the output
folder as it is found. A run on a folder that has one goes on where it stopped: finished steps are not run again, and
neither are the finished parts of the others. This program needs nothing but Python; the steps need slimnet's
dependencies but not slimnet itself, and what a machine lacks is written down as the error of its step.
"""

import argparse
import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
STATE = "gpu.json"
PARTS = Path(__file__).parent / "gpu_steps.py"
POLL_SECONDS = 0.5
SHORTEST = 3.0
"""Seconds under which a step is not begun."""

STEPS = {
    "correctness": 130.0,
    "training": 75.0,
    "tests": 75.0,
    "throughput": 150.0,
    "latency": 80.0,
    "cells": float("inf"),
}
"""Every step in order, and the seconds it may take."""

WHOLE = 540.0
"""The whole that these are parts of."""

UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds_in(text: str) -> float:
    """The seconds in "90s", "9m" or "1h"."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; say it as 90s, 9m or 1h")
    return float(found[1]) * UNITS[found[2]]


class State:
    """What is known so far, kept in a file that is whole at any moment."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / STATE
        self.known: dict[str, Any] = {"runs": [], "steps": {}, "environment": None}
        if self.path.exists():
            self.known = json.loads(self.path.read_text(encoding="utf-8"))

    def step(self, name: str) -> dict[str, Any]:
        """What is known of a step."""
        return self.known["steps"].setdefault(name, {"status": "not run", "seconds": 0.0, "results": {}})

    def write(self) -> None:
        """Replace the file in one step."""
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.known, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, self.path)


class Child:
    """A step in a process of its own, with all that it starts in one group, so that all of it can be ended."""

    def __init__(self, name: str, options: argparse.Namespace, scratch: Path, earlier: dict[str, Any], limit: float):
        self.found, self.log = scratch / f"{name}.json", scratch / f"{name}.log"
        self.found.write_text(json.dumps(earlier))
        command = [sys.executable, str(PARTS), name, "--device", options.device]
        command += ["--found", str(self.found), "--seconds", f"{limit:.1f}", "--out", str(options.out)]
        for option in ("data_root", "work"):
            given = getattr(options, option)
            command += [] if given is None else [f"--{option.replace('_', '-')}", str(given)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=environment(scratch), cwd=ROOT, start_new_session=True,
            )  # fmt: skip

    def results(self) -> dict[str, Any] | None:
        """What it has written by now; None while it writes."""
        try:
            return json.loads(self.found.read_text(encoding="utf-8"))
        except ValueError:
            return None

    def end(self) -> None:
        """Ask it to end, and make it."""
        for sent, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, sent)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
                return

    def last_words(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:]


def environment(scratch: Path) -> dict[str, str]:
    """Variables with which slimnet and its command are found where they are not installed."""
    commands = scratch / "slimnet_cli"
    if not commands.exists():
        commands.symlink_to(ROOT / "cli")
    places = [str(ROOT), str(scratch), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places), "PYTHONUNBUFFERED": "1"}


def run_step(name: str, state: State, options: argparse.Namespace, scratch: Path, limit: float) -> None:
    """Run one step and write down what it finds, as it finds it, and how it ended."""
    step, before, start = state.step(name), state.step(name)["seconds"], time.monotonic()
    step["status"] = "running"
    child = Child(name, options, scratch, step["results"], limit)
    try:
        while child.process.poll() is None and time.monotonic() - start < limit:
            time.sleep(POLL_SECONDS)
            step["results"] = child.results() or step["results"]
            step["seconds"] = round(before + time.monotonic() - start, 1)
            state.write()
        code = child.process.poll()
    finally:
        child.end()
        step["results"] = child.results() or step["results"]
        step["seconds"] = round(before + time.monotonic() - start, 1)
        step["status"] = "stopped"
        state.write()
    step["status"] = "out of time" if code is None else "done" if code == 0 else "failed"
    step.pop("error", None)
    state.known["environment"] = step["results"].get("environment") or state.known["environment"]
    if code and (code > 1 or code < 0 or child.last_words()):
        step["error"] = f"exit code {code}: {child.last_words()}"
    state.write()


def run(state: State, options: argparse.Namespace) -> None:
    """Run the steps that are not done until the time is up."""
    end = time.monotonic() + options.budget - options.reserve
    begun = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    state.known["runs"].append({"began": begun, "budget_s": options.budget, "device": options.device})
    with tempfile.TemporaryDirectory() as folder:
        # What was tried before comes after what was not, or one bad step would take the others' time every time.
        waiting = [name for name in options.steps if state.step(name)["status"] != "done"]
        for name in sorted(waiting, key=lambda name: state.step(name)["status"] != "not run"):
            limit = min(share(name, options), end - time.monotonic())
            if limit < SHORTEST:
                break
            run_step(name, state, options, Path(folder), limit)
            tell(name, state.step(name))


def share(name: str, options: argparse.Namespace) -> float:
    """The seconds that a step may take; on a CPU, in proportion to the whole."""
    return STEPS[name] * (options.budget / WHOLE if options.device == "cpu" else 1)


def tell(name: str, step: dict[str, Any]) -> None:
    """Print a line about a step, and one for each thing that is wrong in it."""
    print(f"{name}: {step['status']}, {len(step['results'])} results in {step['seconds']:.0f} s", flush=True)
    for part, result in step["results"].items():
        if isinstance(result, dict) and (result.get("error") or result.get("holds") is False):
            print(f"  {part}: {result.get('error') or 'does not hold'}", flush=True)
    if "error" in step:
        print(f"  {step['error'].strip().splitlines()[-1]}", flush=True)


def table(known: dict[str, Any]) -> str:
    """Errors, speeds and latencies of a run, in Markdown."""
    lines = ["| check | networks | largest relative error | allowed there | not within |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in checked(known["steps"].get("correctness", {}).get("results", {}))]
    speeds = known["steps"].get("throughput", {}).get("results", {})
    lines += ["", "| training | plain loop, images/s | slimnet, images/s | ratio |", "|---|---|---|---|"]
    for name, row in speeds.items():
        if "images_per_second" in row:
            plain, ours = (row["images_per_second"][each] for each in ("plain", "slimnet"))
            lines.append(f"| {name} | {plain:,.0f} | {ours:,.0f} | {row['ratio']['median']:.2f} |")
        if "concurrent" in row:
            lines.append(f"| … all together | | {row['concurrent']['images_per_second']:,.0f} | |")
    lines += ["", "| network | where | dense, ms | slim, ms | speed-up |", "|---|---|---|---|---|"]
    for name, found in known["steps"].get("latency", {}).get("results", {}).items():
        for row in found.get("latencies", ()):
            dense, slim = row["median_ms"]
            place = f"{row['device']}, {row['runtime']}, batch {row['batch']}"
            lines.append(f"| {name} | {place} | {dense:.3f} | {slim:.3f} | {row['speedup'][1]['value']:.2f} |")
    lines += ["", ", ".join(f"{name}: {step['status']}" for name, step in known["steps"].items()) + "."]
    return "\n".join(lines)


def checked(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each kind of check over all networks."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for name, result in results.items():
        if "tolerance" in result:
            kinds.setdefault(name.rpartition(": ")[2], []).append(result)
    return [
        (kind, str(len(found)), *worst(found), str(sum(not each["holds"] for each in found)))
        for kind, found in kinds.items()
    ]


def worst(found: list[dict[str, Any]]) -> tuple[str, str]:
    """The largest error of a kind, and what was allowed there; one that is not known is larger than any."""
    most = max(found, key=lambda each: math.inf if each["error_relative"] is None else each["error_relative"])
    error = most["error_relative"]
    return "none to compare" if error is None else f"{error:.1e}", f"{most['tolerance']:.2g}"


def stopped(*_: object) -> None:
    """A signal to end: unwinds, so that the state is written and the step is ended."""
    raise SystemExit(143)


def main() -> None:
    """Run what is missing within the time, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=seconds_in, default=WHOLE, help="all of it within, such as 9m")
    parser.add_argument("--reserve", type=float, default=8.0, help="seconds of it that are kept for ending")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder of gpu.json; goes on where that stopped")
    parser.add_argument("--device", default="cuda", help="cpu runs every step on tiny sizes, to try the program")
    parser.add_argument("--data-root", type=Path, help="where cifar10.npz and the like are, for the paper's cells")
    parser.add_argument("--work", type=Path, help="folder of the cells' runs, which are large; OUT/cells if not given")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.data_root, options.work = (each and each.resolve() for each in (options.data_root, options.work))
    options.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, stopped)
    state = State(options.out)
    try:
        run(state, options)
    finally:
        state.write()
        print(f"{state.path}:", ", ".join(f"{name} {state.step(name)['status']}" for name in STEPS), flush=True)


if __name__ == "__main__":
    main()
