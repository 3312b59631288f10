"""Do filters die by themselves, and what makes them: the most telling cells of the paper's tables 1 and 3.

    python benchmarks/phenomenon.py --data-root data [--seeds 2]
    python benchmarks/phenomenon.py --table

They are cells of `slimnet reproduce`, run by it at the small scale, and kept with the others in results/paper: this is
the short way to see the phenomenon, and the other is the way to all of it. The table has every scale that was run.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import paper
from slimnet_cli.commands.reproduce import train_here
from slimnet_cli.options.workers import WorkerOptions
from slimnet_cli.progress.reproduction_run import Reproduction, tasks_of

from slimnet.reproduction.catalogue import Entry, datasets, entry
from slimnet.reproduction.markdown import macs_left, number
from slimnet.reproduction.results import Result
from slimnet.reproduction.scales import Scale
from slimnet.reproduction.trends import verdicts

ROWS = (
    ("table1", "Adam, L2 1e-3"),
    ("table1", "Adam, L2 1e-4"),
    ("table1", "Adam, WD 1e-3"),
    ("table1", "SGD, L2 1e-3"),
    ("table3", "L2 1e-3, batch 20"),
    ("table3", "L2 1e-3, batch 80"),
)
READINGS = ("gamma", "activation", "error")


def entries() -> list[Entry]:
    """The cells, on both data sets."""
    return [entry(table, row, data) for data in ("cifar10", "cifar100") for table, row in ROWS]


def table(known: Mapping[Scale, Mapping[str, Result]]) -> str:
    """Paper and ours at each scale in Markdown, and which of the trends that these cells show hold."""
    lines = [
        "| cell | data | scale | γ / act. / error | MACs left | seeds | iterations |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in entries():
        own = {scale: results[each.name] for scale, results in known.items() if each.name in results}
        if own:
            length = datasets()[each.data].iterations
            lines.append(f"| {each.row} | {each.data} | the paper | {shown(each.paper)} | – | – | {length:,} |")
            lines += [f"| {each.row} | {each.data} | {scale} | {measured(result)} |" for scale, result in own.items()]
    return "\n".join(
        [*lines, "", *(f"- {each}" for scale, results in known.items() for each in trends(results, scale))]
    )


def page() -> str:
    """The table of every scale."""
    return table({scale: paper.found(scale).results for scale in paper.SCALES})


def measured(result: Result) -> str:
    """The last columns of a row of ours."""
    readings = shown({name: result.mean(name) for name in READINGS})
    return f"{readings} | {macs_left(result):.0f} % | {len(result.runs)} | {result.iterations:,}"


def trends(results: Mapping[str, Result], scale: Scale) -> list[str]:
    """The trends that these cells show at one scale, a line each."""
    own = {each.name: results[each.name] for each in entries() if each.name in results}
    return [paper.line(each, scale) for each in verdicts(own) if each.holds is not None]


def shown(values: dict) -> str:
    """Three numbers."""
    return " / ".join(number(name, values.get(name)) for name in READINGS)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="where cifar10.npz and cifar100.npz are")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/paper"), help="the folder of the runs")
    parser.add_argument("--table", action="store_true", help="print what has been found and run nothing")
    options = parser.parse_args()
    if not options.table:
        alone = WorkerOptions(concurrent=1, threads=1, device="cpu", ray=None, gpus=0.0)
        reproduction = Reproduction(options.out, options.data_root, "small", alone, train_here)
        tasks = tasks_of(entries(), "small", options.seeds)
        reproduction.train([task for task in tasks if not reproduction.done(task)], None)
        paper.keep(options.out)
    print(page())


if __name__ == "__main__":
    main()
