"""Fuzz every reader: `python -m fuzzing --count 10000 --seed 0`; leaves with 1 if anything was found."""

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fuzzing.readers import READERS
from fuzzing.specimens import make_specimens

LONGEST = 120.0
"""Seconds after which a process that does not answer is taken to hang."""

Answer = dict[str, Any]


def begun(specimens: Path, seed: int, kind: str | None) -> subprocess.Popen[str]:
    """A new worker, which finds what this process finds."""
    command = [sys.executable, "-m", "fuzzing.worker", str(specimens), str(seed), *([kind] if kind else [])]
    places = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **places}
    )


def answer_to(number: int, worker: subprocess.Popen[str]) -> Answer:
    """What a worker says about a number; one that does not answer is ended."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    guard = threading.Timer(LONGEST, worker.kill)
    guard.start()
    worker.stdin.write(f"{number}\n")
    worker.stdin.flush()
    line = worker.stdout.readline()
    guard.cancel()
    if line:
        found: Answer = json.loads(line)
        return found
    wrong = f"ended: the process ended with {worker.wait()}"
    return {"number": number, "kind": "?", "file": "?", "wrong": wrong, "seconds": 0.0, "peak_mib": 0}


def answers_of(numbers: Iterator[int], specimens: Path, seed: int, kind: str | None) -> Iterator[Answer]:
    """What workers say, one after the other, about numbers that others take from as well."""
    waiting = next(numbers, None)
    while waiting is not None:
        with begun(specimens, seed, kind) as worker:
            while waiting is not None and worker.poll() is None:
                yield answer_to(waiting, worker)
                waiting = next(numbers, None)


class Shared(Iterator[int]):
    """Numbers that several threads take from."""

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers, self._lock = numbers, threading.Lock()

    def __next__(self) -> int:
        with self._lock:
            return next(self._numbers)


def fuzz(
    numbers: Iterator[int], specimens: Path, seed: int, kind: str | None = None, workers: int = 1, show: bool = False
) -> list[Answer]:
    """Read the mutations of these numbers in so many processes; returns what was said about each."""
    make_specimens(specimens, tuple(READERS) if kind is None else (kind,))
    shared, found, since = Shared(numbers), list[Answer](), time.monotonic()

    def work(_: int) -> None:
        for answer in answers_of(shared, specimens, seed, kind):
            found.append(answer)
            if answer["wrong"] and show:
                print(f"{answer['number']}: {answer['file']}: {answer['wrong']}", flush=True)
            if show and len(found) % 500 == 0:
                print(f"{len(found):,} read in {time.monotonic() - since:.0f} s", flush=True)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))
    return found


def main() -> int:
    """Run it, and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzzing", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="how many mutations")
    parser.add_argument("--first", type=int, default=0, help="the number of the first; with --count 1, one again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=list(READERS), help="of this kind of file alone")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(options.first, options.first + options.count))
        found = fuzz(numbers, Path(folder), options.seed, options.kind, options.workers, show=True)
    kinds = collections.Counter(each["kind"] for each in found)
    wrong = collections.Counter(each["wrong"].partition(":")[0] for each in found if each["wrong"])
    slowest, largest = max(each["seconds"] for each in found), max(each["peak_mib"] for each in found)
    each_kind = ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items()))
    print(f"{len(found):,} mutations, seed {options.seed}: {each_kind}")
    print(f"slowest {slowest:.1f} s of processor time, largest process {largest:,} MiB")
    print(f"found: {', '.join(f'{n} {what}' for what, n in sorted(wrong.items())) or 'nothing'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
