"""The surgery on networks of other people's packages: exact or not, what is removed of what could be, and why not.

Each network has random weights and 40 % dead channels, drawn independently per BatchNorm, with calibrated statistics,
as in `zoo.py`. It is traced, planned and cut in a process of its own with a time limit, and the slim network is
compared with the masked one in double precision on an image that it has not seen. Listed and not run are networks
without BatchNorm, those with more than 100 million parameters, and those that take no batch of images. The order is
drawn by the seed, but one network of every source file of a package comes before the second of any. What is in the
output file already is not run again. Packages that are not installed are named and left out.

    python benchmarks/zoos.py [--zoo timm] [--sources] [--sample 40] [--minutes 10] [--seed 0] [--out F.json] [NAME ...]

An upper bound of what could be removed is what is removed and what stays only because slimnet does not follow the code:
a channel that varies where it is read, carries constants, or is normalised with others stays whatever slimnet learns.
"""

import argparse
import json
import multiprocessing
import random
import resource
import signal
import statistics
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn
from zoo import batch_norms, images, outputs, relative, rounding, scatter_dead
from zoo_networks import ZOOS

import slimnet
from slimnet.benchmark.environment import environment
from slimnet.errors import SlimnetError
from slimnet.graph.reasons import Cause
from slimnet.modules.copying import shared_copy
from slimnet.storage.files import whole_file
from slimnet.surgery.kept_shares import rank_lines
from slimnet.surgery.network_comparison import masked_scales
from slimnet.surgery.plan import SurgeryPlan

FRACTION = 0.4
BETA = "negative"
CALIBRATED_ON = 4
EXACT = 1e-9
MOST_PARAMETERS = 100_000_000
LIMIT_SECONDS = 120
"""The CPU time that a network may take, with building it and comparing it."""
WAITING_SECONDS = 10.0 * LIMIT_SECONDS
"""The time of the clock that it may take, on a machine that does other work as well."""
TOO_LARGE = f"more than {MOST_PARAMETERS:,} parameters"
LINES_SHOWN = 15
INHERENT = {Cause.VARYING, Cause.CONSTANTS, Cause.LAST, Cause.OUTPUT, Cause.OVER_CHANNELS, Cause.SCALES}
"""Causes for which channels stay however well the code is followed."""

RUN = ("exact", "wrong", "refused", "crash", "over the time limit")
"""What becomes of a network that is run."""


def build(name: str) -> nn.Module:
    """A network by the name of its package and its own, as in timm:resnet18."""
    zoo, _, network = name.partition(":")
    return ZOOS[zoo].build(network)


def side_of(model: nn.Module) -> int:
    """The side of the images that a network needs: its own where that is fixed, else 64 pixels."""
    known = getattr(model, "default_cfg", None) or {}
    return own_side(model) if known.get("fixed_input_size") else 64


def own_side(model: nn.Module) -> int:
    """The side of the images that a network was designed for, as timm and pytorchcv say it; else 224 pixels."""
    known = getattr(model, "default_cfg", None) or {}
    size = known.get("input_size") or getattr(model, "in_size", None)
    return int(size[-1]) if isinstance(size, tuple | list) else 224


def inputs_for(model: nn.Module, name: str) -> Callable[[int], torch.Tensor]:
    """What makes so many images of a size that the network takes: 64 pixels, or else its own size."""
    channels = ZOOS[name.partition(":")[0]].channels
    for side in dict.fromkeys((side_of(model), own_side(model))):
        try:
            outputs(model, images(name, 2, side, torch.float64)[:, :channels])
        except (RuntimeError, AssertionError, ValueError) as error:
            problem = error
            continue
        return lambda batch, side=side: images(name, batch, side, torch.float64)[:, :channels]
    raise problem


def size_of(name: str) -> int | None:
    """The parameters of a network, without building it in memory; None where its constructor needs numbers."""
    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in build(name).parameters())
    except Exception:  # whatever it is, the network that is built next shows it
        return None


def measure(name: str) -> dict[str, Any]:
    """Build one network, and slim it where it can have dead channels."""
    size = size_of(name)
    if size is not None and size > MOST_PARAMETERS:
        return {"result": TOO_LARGE}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            model = build(name).double().eval()
            make = inputs_for(model, name)
        except Exception as error:  # a network that needs a download, other inputs or another package
            return {"result": "not run on images", "because": first_line(error)}
    if not any(batch_norms(model)):
        return {"result": "no BatchNorm"}
    if sum(parameter.numel() for parameter in model.parameters()) > MOST_PARAMETERS:
        return {"result": TOO_LARGE}
    return slim_and_compare(model, make)


def slim_and_compare(model: nn.Module, make: Callable[[int], torch.Tensor]) -> dict[str, Any]:
    """Kill channels of a network, slim it, and compare it with the masked one."""
    scatter_dead(model, make(CALIBRATED_ON), FRACTION, BETA)
    start = time.process_time()
    try:
        slimmed = slimnet.slim(model, make(2), tolerance=float("inf"))
    except SlimnetError as error:
        return {"result": "refused", "because": str(error)}
    seconds = time.process_time() - start
    masked = shared_copy(model, masked_scales(model, slimmed.plan)).eval()
    fresh = make(1)
    error = relative(outputs(masked, fresh), outputs(slimmed.model, fresh))
    exact = error is not None and (error < EXACT or error < 30 * rounding(masked, fresh))
    return {"result": "exact" if exact else "wrong", "error": error, "seconds": seconds} | facts(slimmed.plan)


def first_line(error: Exception) -> str:
    """The type of an error and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def facts(plan: SurgeryPlan) -> dict[str, Any]:
    """What a plan removes, the upper bound, and what stays by cause and by line of code."""
    shares = plan.shares
    followed = sum(share.channels for share in shares.kept if share.cause not in INHERENT)
    return {
        "parameters": plan.params_before,
        "dead": shares.dead,
        "removed": shares.removed,
        "at_most": shares.removed + followed,
        "kept": {share.cause.name.lower(): share.channels for share in shares.kept},
        "lines": {f"{line.name}, {line.reason}": line.channels for line in rank_lines(plan)},
    }


def answer(name: str, end: Connection) -> None:
    """Send what `measure` finds, or where it stopped with an error that is not slimnet's own, through a pipe."""
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_SECONDS, LIMIT_SECONDS + 5))
    try:
        found = measure(name)
    except Exception as error:  # a crash is a result
        where = traceback.extract_tb(error.__traceback__)[-1]
        found = {
            "result": "crash",
            "because": first_line(error),
            "where": f"{Path(where.filename).name}:{where.lineno}",
        }
    end.send(found)


def measure_elsewhere(name: str) -> dict[str, Any]:
    """`measure` in a process of its own, which is ended when it takes too long."""
    too_long = {"result": "over the time limit", "because": f"{LIMIT_SECONDS} s"}
    forks = multiprocessing.get_context("fork")
    here, there = forks.Pipe(duplex=False)
    process = forks.Process(target=answer, args=(name, there))
    process.start()
    there.close()
    try:
        if not here.poll(WAITING_SECONDS):
            return too_long
        found: dict[str, Any] = here.recv()
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGXCPU:
            return too_long
        return {"result": "crash", "because": f"the process ended with {process.exitcode}"}
    finally:
        process.kill()
        process.join()
    return found


def read(path: Path) -> dict[str, Any]:
    """The results so far."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"networks": {}}
    return found


def write(path: Path, name: str, found: dict[str, Any], settings: dict[str, Any]) -> None:
    """Add one network to the results, in one step."""
    results = read(path)
    results["networks"][name] = found
    results["environment"] = dict(environment().rows())
    results["settings"] = settings
    with whole_file(path, SlimnetError) as file:
        file.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


def chosen(zoos: Iterable[str], sample: int | None, seed: int) -> list[str]:
    """The networks of these packages in an order drawn by the seed, the packages in turns; of each so many at most.

    Within a package the first network of every source file comes before the second of any.
    """
    orders = []
    for zoo in zoos:
        names = [f"{zoo}:{name}" for name in ZOOS[zoo].list_names()]
        random.Random(seed).shuffle(names)
        orders.append(in_rounds(names)[:sample])
    longest = max(map(len, orders), default=0)
    return [names[place] for place in range(longest) for names in orders if place < len(names)]


def in_rounds(names: Iterable[str]) -> list[str]:
    """The networks in rounds: one of each source file, in the order of the names, then a second one, and so on."""
    earlier: Counter[str] = Counter()
    rounds: defaultdict[int, list[str]] = defaultdict(list)
    for name in names:
        source = source_of(name)
        rounds[earlier[source]].append(name)
        earlier[source] += 1
    return [name for number in sorted(rounds) for name in rounds[number]]


def one_a_file(names: Iterable[str], done: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The networks that are to be run for one of each source file; after one that is too large, another of its file.

    `done` are the results so far, those of the networks yielded here included.
    """
    for name in names:
        source = source_of(name)
        if all(row["result"] == TOO_LARGE for row in done.values() if row["source"] == source):
            yield name


def source_of(name: str) -> str:
    """The package and the source file of a network, by the name of its package and its own."""
    zoo, _, network = name.partition(":")
    return f"{zoo}:{ZOOS[zoo].source_of(network)}"


def installed() -> list[str]:
    """The packages that are installed here."""
    return [zoo for zoo in ZOOS if ZOOS[zoo].version is not None]


def versions(networks: Iterable[str]) -> dict[str, str | None]:
    """The version of each package of these networks."""
    return {zoo: ZOOS[zoo].version for zoo in sorted({name.partition(":")[0] for name in networks})}


def not_installed() -> list[str]:
    """A line for each package that is not installed, whose networks are not run."""
    return [
        f"{zoo.distribution}: not installed, its networks are not run (pip install {zoo.distribution})"
        for zoo in ZOOS.values()
        if zoo.version is None
    ]


def table(results: dict[str, Any]) -> str:
    """What became of the networks of each package, why channels stay, and the lines of code that keep most."""
    zoos: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for name, row in results["networks"].items():
        zoo, _, network = name.partition(":")
        zoos[zoo][network] = row
    ran = {zoo: [row for row in rows.values() if row["result"] in RUN] for zoo, rows in zoos.items()}
    lines = [
        "| package | source files | networks | "
        + " | ".join(RUN)
        + " | dead | removed | of what could be at most | CPU seconds, median |",
        "|---|---|---|" + "---|" * len(RUN) + "---|---|---|---|",
        *(summary(zoo, rows) for zoo, rows in ran.items() if rows),
        "",
    ]
    skipped = Counter(
        f"{zoo}: {row['result']}" for zoo in zoos for row in zoos[zoo].values() if row["result"] not in RUN
    )
    lines += [f"Listed and not run: {'; '.join(f'{what}, {count}' for what, count in skipped.items())}.", ""] * bool(
        skipped
    )
    lines += problems(results["networks"])
    lines += reasons([row for rows in ran.values() for row in rows])
    return "\n".join(lines)


def summary(zoo: str, rows: list[dict[str, Any]]) -> str:
    """A row of the table: what became of the networks of one package."""
    counts = Counter(row["result"] for row in rows)
    cut = [row for row in rows if "dead" in row]
    dead, removed, most = (sum(row[key] for row in cut) for key in ("dead", "removed", "at_most"))
    seconds = f"{statistics.median(row['seconds'] for row in cut):.2f}" if cut else "–"
    share = f"{100 * removed / most:.1f} %" if most else "–"
    sources = {row["source"] for row in rows}
    results = [counts[result] for result in RUN]
    cells = [zoo, len(sources), len(rows), *results, f"{dead:,}", f"{removed:,}", share, seconds]
    return f"| {' | '.join(map(str, cells))} |"


def problems(networks: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each network that is not exact."""
    found = []
    for name, row in sorted(networks.items()):
        if row["result"] in RUN and row["result"] != "exact":
            what = (
                f"error {row['error']}" if "error" in row else " ".join([row["because"], row.get("where", "")]).strip()
            )
            found.append(f"- `{name}` is {row['result']}: {what}")
    return [*found, ""] if found else []


def reasons(rows: list[dict[str, Any]]) -> list[str]:
    """Why dead channels stay, and the lines of code that keep most, over all networks."""
    kept: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    networks: defaultdict[str, set[int]] = defaultdict(set)
    for number, row in enumerate(rows):
        kept.update(row.get("kept", {}))
        lines.update(row.get("lines", {}))
        for key in (*row.get("kept", {}), *row.get("lines", {})):
            networks[key].add(number)
    found = ["| dead channels that stay since | channels | networks |", "|---|---|---|"]
    found += [f"| {Cause[name.upper()].value} | {n:,} | {len(networks[name])} |" for name, n in kept.most_common()]
    found += ["", "| line of code | channels | networks |", "|---|---|---|"]
    found += [f"| {line} | {n:,} | {len(networks[line])} |" for line, n in lines.most_common(LINES_SHOWN)]
    return found


def main() -> None:
    """Run what is missing, saying how far it is, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks such as timm:resnet18; without any, those of the packages")
    parser.add_argument("--zoo", choices=ZOOS, action="append", help="run this package only (repeatable)")
    parser.add_argument("--sources", action="store_true", help="one network of each source file of the packages")
    parser.add_argument("--sample", type=int, help="so many networks of each package at most, drawn by the seed")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no network after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "zoos.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * options.minutes
    print(*not_installed(), sep="\n", file=sys.stderr)
    wanted = options.names or chosen(options.zoo or installed(), options.sample, options.seed)
    done = read(options.out)["networks"]
    missing: Iterable[str] = [name for name in wanted if name not in done]
    settings = {
        "dead": FRACTION,
        "beta": BETA,
        "seed": options.seed,
        "image": 64,
        "versions": versions([*done, *missing]),
    }
    for name in one_a_file(missing, done) if options.sources else missing:
        if time.monotonic() > end:
            print("the time is over: others are left to run", file=sys.stderr)
            break
        done[name] = measure_elsewhere(name) | {"source": source_of(name)}
        print(f"{len(done)} {name}: {done[name]['result']}", file=sys.stderr, flush=True)
        write(options.out, name, done[name], settings)
    print(table(read(options.out)))


if __name__ == "__main__":
    main()
