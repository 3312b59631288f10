"""Do filters die by themselves, and what makes them: the most telling cells of the paper's tables 1 and 3, small.

    python benchmarks/phenomenon.py --data-root data [--seeds 2]
    python benchmarks/phenomenon.py --table

They are cells of `slimnet reproduce --scale small`, run by it and kept with the others in results/paper: this is the
short way to see the phenomenon, and the other is the way to all of it.
"""

import argparse
from pathlib import Path

import paper
from slimnet_cli.commands.reproduce import train_here
from slimnet_cli.options.workers import WorkerOptions
from slimnet_cli.progress.reproduction_run import Reproduction, tasks_of

from slimnet.reproduction.catalogue import Entry, entry
from slimnet.reproduction.markdown import macs_left, number
from slimnet.reproduction.results import Result
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


def table(results: dict[str, Result]) -> str:
    """Paper and ours side by side in Markdown, and which of the trends that these cells show hold."""
    lines = [
        "| cell | data | paper: γ / act. / error | small: γ / act. / error | MACs left | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for each in entries():
        if each.name in results:
            result = results[each.name]
            columns = [shown(each.paper), shown({name: result.mean(name) for name in READINGS})]
            cells = [each.row, each.data, *columns, f"{macs_left(result):.0f} %", str(len(result.runs))]
            lines.append(f"| {' | '.join(cells)} |")
    own = {each.name: results[each.name] for each in entries() if each.name in results}
    known = [each for each in verdicts(own) if each.holds is not None]
    return "\n".join([*lines, "", *(f"- {paper.line(each, 'small')}" for each in known)])


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
    print(table(paper.found("small").results))


if __name__ == "__main__":
    main()
