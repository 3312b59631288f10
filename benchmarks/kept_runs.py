"""The runs of a benchmark in a results file, which an interrupted benchmark goes on from."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from slimnet.benchmark.environment import environment
from slimnet.errors import SlimnetError
from slimnet.storage.files import whole_file

Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser, results: Path, *, iterations: int, seeds: int) -> None:
    """Add the length of the runs, the number of seeds, the results file, and whether only the table is printed."""
    parser.add_argument("--iterations", type=int, default=iterations)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--out", type=Path, default=results)
    parser.add_argument("--table", action="store_true", help="print what is in the output file and run nothing")


def read(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Row:
    """The results so far; runs of another length in the output file end the program."""
    results: Row = json.loads(options.out.read_text()) if options.out.exists() else {"runs": {}}
    if results["runs"] and not options.table and results["settings"]["iterations"] != options.iterations:
        parser.error(f"{options.out} holds runs of another length; give another --out")
    return results


def every_run(
    kinds: Iterable[str], strengths: Iterable[float], seeds: int, make: Callable[[str, float, int], Row]
) -> dict[str, Callable[[], Row]]:
    """What makes each run, by its name: all kinds and strengths of L2 with a seed, before those with the next one."""
    return {
        f"{kind}, L2 {l2:g}, seed {seed}": partial(make, kind, l2, seed)
        for seed, l2, kind in product(range(seeds), strengths, kinds)
    }


def make_missing(path: Path, results: Row, wanted: Mapping[str, Callable[[], Row]], settings: Row) -> None:
    """Make the runs that are not there yet, and write each down as it ends, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    missing = [name for name in wanted if name not in results["runs"]]
    for number, name in enumerate(missing, 1):
        print(f"{number}/{len(missing)} {name}", file=sys.stderr, flush=True)
        results["runs"][name] = wanted[name]()
        results["environment"] = dict(environment().rows())
        results["settings"] = settings
        with whole_file(path, SlimnetError) as file:
            file.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
