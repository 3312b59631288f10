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
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fuzzing.mutation import Mutation, kind_of
from fuzzing.readers import READERS
from fuzzing.specimens import make_specimens
from fuzzing.worker import Reading, guard

LONGEST = 600.0
"""Seconds after which a process that does not answer is taken to hang; on a busy machine many are no sign of it."""

Answer = dict[str, Any]


def begun(specimens: Path, seed: int) -> subprocess.Popen[str]:
    """A new worker, which finds what this process finds."""
    command = [sys.executable, "-m", "fuzzing.worker", str(specimens), str(seed)]
    places = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **places}
    )


def answer_to(mutation: Mutation, worker: subprocess.Popen[str]) -> Answer:
    """What a worker says about a mutation; one that does not answer is ended."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    guard = threading.Timer(LONGEST, worker.kill)
    guard.start()
    worker.stdin.write(f"{mutation.number} {mutation.kind}\n")
    worker.stdin.flush()
    line = worker.stdout.readline()
    guard.cancel()
    if line:
        found: Answer = json.loads(line)
        return found
    wrong = f"ended: the process ended with {worker.wait()}"
    return {
        "number": mutation.number,
        "kind": mutation.kind,
        "file": "?",
        "wrong": wrong,
        "seconds": 0.0,
        "peak_mib": 0,
    }


def answers_of(mutations: Iterator[Mutation], specimens: Path, seed: int) -> Iterator[Answer]:
    """What workers say, one after the other, about mutations that others take from as well."""
    waiting = next(mutations, None)
    while waiting is not None:
        with begun(specimens, seed) as worker:
            while waiting is not None and worker.poll() is None:
                yield answer_to(waiting, worker)
                waiting = next(mutations, None)


class Shared(Iterator[Mutation]):
    """Mutations that several threads take from."""

    def __init__(self, mutations: Iterable[Mutation]) -> None:
        self._mutations, self._lock = iter(mutations), threading.Lock()

    def __next__(self) -> Mutation:
        with self._lock:
            return next(self._mutations)


def fuzz(mutations: Iterable[Mutation], specimens: Path, seed: int, workers: int) -> list[Answer]:
    """Read mutations in so many processes; returns what was said about each, and shows what was found."""
    shared, found, since = Shared(mutations), list[Answer](), time.monotonic()

    def work(_: int) -> None:
        for answer in answers_of(shared, specimens, seed):
            found.append(answer)
            if answer["wrong"]:
                again = Mutation(seed, answer["number"], answer["kind"]).replay
                print(f"{answer['number']}: {answer['file']}: {answer['wrong']}\n    {again}", flush=True)
            if len(found) % 500 == 0:
                print(f"{len(found):,} read in {time.monotonic() - since:.0f} s", flush=True)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))
    return found


def replay(mutation: Mutation, specimens: Path, keep: Path) -> int:
    """Make one again, keep its files, and show what each reader says of it."""
    sys.addaudithook(guard)
    sys.dont_write_bytecode = True
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        answer = Reading(specimens, Path(scratch)).answer(mutation, keep.absolute(), explain=True)
    print(f"\n{keep}: {answer['file']} was spoilt: {answer['wrong'] or 'nothing is wrong'}")
    return 1 if answer["wrong"] else 0


def summary(found: list[Answer], seed: int) -> str:
    """How many were read, what was found, the slowest and the largest."""
    kinds = collections.Counter(each["kind"] for each in found)
    wrong = collections.Counter(each["wrong"].partition(":")[0] for each in found if each["wrong"])
    slowest, largest = max(each["seconds"] for each in found), max(each["peak_mib"] for each in found)
    each_kind = ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items()))
    return (
        f"{len(found):,} mutations, seed {seed}: {each_kind}\n"
        f"slowest {slowest:.1f} s of processor time, largest process {largest:,} MiB\n"
        f"found: {', '.join(f'{count} {what}' for what, count in sorted(wrong.items())) or 'nothing'}"
    )


def main() -> int:
    """Run it, and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzzing", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="how many mutations")
    parser.add_argument("--first", type=int, default=0, help="the number of the first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=list(READERS), help="of this kind of file alone")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--replay", type=int, nargs=2, metavar=("SEED", "NUMBER"), help="show one of them again")
    parser.add_argument("--keep", type=Path, help="the folder for the files of the one that is shown again")
    options = parser.parse_args()
    kinds = (options.kind,) if options.kind else tuple(READERS)
    with tempfile.TemporaryDirectory() as folder:
        if options.replay:
            seed, number = options.replay
            mutation = Mutation(seed, number, kind_of(seed, number, kinds))
            make_specimens(Path(folder), (mutation.kind,))
            return replay(mutation, Path(folder), options.keep or Path(f"fuzz-{seed}-{number}"))
        make_specimens(Path(folder), kinds)
        numbers = range(options.first, options.first + options.count)
        mutations = [Mutation(options.seed, number, kind_of(options.seed, number, kinds)) for number in numbers]
        found = fuzz(mutations, Path(folder), options.seed, options.workers)
    print(summary(found, options.seed))
    return 1 if any(each["wrong"] for each in found) else 0


if __name__ == "__main__":
    sys.exit(main())
