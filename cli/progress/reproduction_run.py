"""A reproduction of the paper in a folder: its runs, the training of missing ones, and their results."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimnet_cli.options.workers import WorkerOptions
from slimnet_cli.output import terminal
from slimnet_cli.output.other_programs import note_other_programs
from slimnet_cli.progress.sweep_queue import train_waiting

from slimnet.storage.folder_names import TABLE

if TYPE_CHECKING:
    from slimnet.data import ImageData
    from slimnet.report.paper.figures import Moved
    from slimnet.reproduction.catalogue import Entry
    from slimnet.reproduction.scales import Scale
    from slimnet.reproduction.variation import Variation
    from slimnet.sweep import Row, Store
    from slimnet.sweep.jobs import Job
    from slimnet.sweep.workers import Workers
    from slimnet.training import Recipe
    from slimnet.training.analysis.universality import ProgressCallback

STORE, RUNS, RESULTS = TABLE, "runs", "results"


@dataclass(frozen=True)
class Task:
    """One run: a recipe with a seed, and the networks of the paper that it covers, the most important first."""

    recipe: Recipe
    entries: tuple[Entry, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the networks."""
        return tuple(entry.name for entry in self.entries)

    @property
    def dead(self) -> float:
        """The share of dead filters, 0..1, of the first network for which the paper prints one; 0 if there is none."""
        return next((entry.dead for entry in self.entries if entry.dead), 0.0)

    @functools.cached_property
    def key(self) -> str:
        """Its key in the sweep."""
        from slimnet.sweep import Cell

        return Cell(self.recipe, "").key


def tasks_of(wanted: Sequence[Entry], scale: Scale, seeds: int, variation: Variation) -> list[Task]:
    """The runs of these networks, the most important first, and all of a first seed before the next.

    A run covers every network of the paper that has its recipe, also those not requested. The variation applies to
    all recipes.

    Raises:
        UsageError: a value of the variation is out of its range.
    """
    from slimnet.reproduction.catalogue import by_worth
    from slimnet.reproduction.scales import recipe_of

    names = {entry.name for entry in wanted}
    found: dict[str, Task] = {}
    for seed in range(seeds):
        for entry in by_worth():
            recipe = recipe_of(entry, scale, seed, variation)
            if recipe is not None:
                alone = Task(recipe, (entry,))
                known = found.get(alone.key, Task(recipe, ()))
                found[alone.key] = Task(recipe, (*known.entries, entry))
    return [task for task in found.values() if names & set(task.names)]


@dataclass(frozen=True)
class Reproduction:
    """The folder of a reproduction, its data, and its workers.

    `train_here` runs `slimnet train` with these arguments in this process, and returns its exit code.
    """

    out: Path
    root: Path
    scale: Scale
    workforce: WorkerOptions
    train_here: Callable[[Sequence[str]], int]

    @property
    def results(self) -> Path:
        """The folder of the results."""
        return self.out / RESULTS

    def done(self, task: Task) -> bool:
        """Whether a run has been measured.

        Raises:
            UsageError: the folder holds results of the same network with another variation of its recipe.
        """
        from slimnet.reproduction.results import check_alike, holds

        check_alike(self.results, task.names, self.scale, task.recipe)
        return holds(self.results, task.names, self.scale, task.recipe)

    @functools.cached_property
    def lacking(self) -> Mapping[str, str]:
        """The instructions for each missing data set, by its name."""
        from slimnet.errors import DataError
        from slimnet.reproduction.catalogue import datasets
        from slimnet.reproduction.images import source_of

        found = {}
        for name, data in datasets().items():
            try:
                source_of(data, self.root)
            except DataError as error:
                found[name] = str(error)
        return found

    def can_run(self, task: Task) -> bool:
        """Whether the images of a run are available."""
        return task.entries[0].data not in self.lacking or (self.out / task.recipe.data).is_file()

    def seconds(self, tasks: Sequence[Task]) -> dict[str, float]:
        """The estimated seconds of each run, by its key: from earlier runs here, or from a few timed steps."""
        from slimnet.reproduction.timing import Stage, known_steps, shape_of, stages_of, step_seconds
        from slimnet.sweep import Store

        known = known_steps(Store(self.out / STORE).rows()) if (self.out / STORE).exists() else {}
        stages = {
            task.key: (Stage(task.recipe.iterations, task.recipe),)
            if shape_of(task.recipe) in known
            else stages_of(task.recipe, task.dead)
            for task in tasks
        }
        timed = {shape_of(stage.recipe): (task, stage.recipe) for task in tasks for stage in stages[task.key]}
        new = {shape: each for shape, each in timed.items() if shape not in known}
        device, threads = self.workforce.chosen_device(), self.workforce.threads
        if new:
            note_other_programs("the estimated times are longer for it")
        with terminal.progress("Timing steps", len(new)) as advance:
            for number, (shape, (task, recipe)) in enumerate(new.items(), 1):
                known[shape] = step_seconds(recipe, self._size(task), device=device, threads=threads)
                advance(number, task.entries[0].name)
        return {
            key: sum(stage.iterations * known[shape_of(stage.recipe)] for stage in parts)
            for key, parts in stages.items()
        }

    def _size(self, task: Task) -> int:
        """The size of a run's images in pixels."""
        from slimnet.reproduction.catalogue import datasets
        from slimnet.reproduction.scales import images_of

        images = images_of(self.scale)
        return datasets()[task.entries[0].data].size if images is None else images.size[task.recipe.arch]

    def train(self, tasks: Sequence[Task], budget: float | None) -> bool:
        """Train and measure missing runs; returns whether some were left for a later call.

        Raises:
            SlimnetError: the disk refuses something, or another process is at work in the folder.
        """
        from slimnet.errors import UsageError
        from slimnet.storage.files import held
        from slimnet.sweep import Cell, Store

        by_key = {task.key: task for task in tasks}
        self.out.mkdir(parents=True, exist_ok=True)
        with held(self.out, UsageError, "reproducing"):
            self._provide(tasks)
            store = Store(self.out / STORE)
            store.add(Cell(task.recipe, f"{task.names[0]}, seed {task.recipe.seed}") for task in tasks)
            store.wait_again(failed=True)
            # Networks that an earlier process trained but did not measure.
            for row in store.rows(by_key):
                if row.state == "done" and not self.done(by_key[row.key]):
                    with terminal.working(by_key[row.key].names[0]) as tell:
                        self._try_to_measure(store, by_key[row.key], tell)
            return self._train(store, by_key, budget)

    def _train(self, store: Store, by_key: Mapping[str, Task], budget: float | None) -> bool:
        rows = {row.key: row for row in store.rows(by_key) if row.state == "waiting"}
        waiting = [rows[key] for key in by_key if key in rows]
        stop = threading.Event()
        timer = threading.Timer(budget or 0, stop.set)
        timer.daemon = True
        if budget is not None:
            timer.start()
        try:
            return train_waiting(
                store,
                [self._job(row, by_key[row.key]) for row in waiting],
                {row.key: row.varied for row in waiting},
                self._workers(),
                finished=lambda key, tell: self._try_to_measure(store, by_key[key], tell),
                stop=stop,
            )
        finally:
            timer.cancel()

    def troubles(self, tasks: Sequence[Task]) -> list[str]:
        """The reasons why attempted runs have no result, one line each."""
        from slimnet.sweep import Store

        by_key = {task.key: task for task in tasks}
        rows = Store(self.out / STORE).rows(by_key) if (self.out / STORE).exists() else []
        failed = [f"{row.varied} failed: {row.error}" for row in rows if row.state == "failed"]
        unmeasured = [row.varied for row in rows if row.state == "done" and not self.done(by_key[row.key])]
        return failed + [f"{name} was trained, but not measured" for name in unmeasured]

    def _workers(self) -> Workers:
        from slimnet.sweep.workers import InTurn

        # Short runs one after the other: starting a process for each would take longer than some of them train.
        alone = self.scale == "small" and self.workforce.concurrent == 1 and self.workforce.ray is None
        return InTurn(lambda arguments: self.train_here(arguments[1:])) if alone else self.workforce.workers()

    def _job(self, row: Row, task: Task) -> Job:
        from slimnet.sweep.jobs import Job

        placed = dataclasses.replace(task.recipe, data=self._source(task))
        folder = self.out.absolute() / RUNS / row.key
        return Job(row.key, placed.to_json(), folder, self.out.absolute(), self.workforce.arguments)

    def _source(self, task: Task) -> str:
        """The path of a run's images."""
        from slimnet.reproduction.catalogue import datasets
        from slimnet.reproduction.images import source_of
        from slimnet.reproduction.scales import images_of

        if images_of(self.scale) is not None:
            return task.recipe.data
        return source_of(datasets()[task.entries[0].data], self.root.absolute())

    def _provide(self, tasks: Sequence[Task]) -> None:
        """Create the missing parts of data sets on which the scale trains."""
        from slimnet.data import load_data
        from slimnet.reproduction.catalogue import datasets
        from slimnet.reproduction.images import source_of, write_small
        from slimnet.reproduction.scales import images_of

        images = images_of(self.scale)
        if images is None:
            return
        for task in {task.recipe.data: task for task in tasks}.values():
            path = self.out / task.recipe.data
            if not path.exists():
                size, source = images.size[task.recipe.arch], source_of(datasets()[task.entries[0].data], self.root)
                with terminal.working(f"Making {path.name}"):
                    whole = load_data(source, image_size=size if Path(source).is_dir() else None)
                    write_small(whole, path, size=size, train=images.train, test=images.test)

    def _try_to_measure(self, store: Store, task: Task, tell: terminal.Say) -> None:
        """Measure a run, or report why that fails and go on with the others."""
        from slimnet.errors import SlimnetError

        try:
            self._measure(store, task, lambda what: terminal.counting(tell, f"trained; measuring the {what}"))
        except SlimnetError as error:
            terminal.note(f"{task.names[0]} cannot be measured: {error}")

    def _measure(self, store: Store, task: Task, progress: Callable[[str], ProgressCallback]) -> None:
        """Measure a trained network, and store the result."""
        from slimnet.checkpoint import load_checkpoint
        from slimnet.reproduction.measure import measure
        from slimnet.reproduction.results import add, run_of
        from slimnet.sweep import Ending
        from slimnet.torch_state.process import torch_threads
        from slimnet.training.run.run_folder import MODEL

        (row,) = store.rows([task.key])
        path = self.out / RUNS / task.key / MODEL
        with torch_threads(self.workforce.threads):
            model = load_checkpoint(path, task.recipe.arch, task.recipe.arch_args).eval()
            measured = measure(model.to(self.workforce.chosen_device()), self._images(task), progress=progress)
        seconds = Ending.of(row.result).seconds if row.result else float("nan")
        add(self.results, task.names, self.scale, task.recipe, run_of(measured, task.recipe, seconds, self.machine()))

    def histories(self, tasks: Sequence[Task], names: Sequence[str]) -> dict[str, Moved]:
        """The histories of γ and β in the runs of these figures that are available."""
        from slimnet.reproduction.catalogue import figures

        found = {}
        for figure in (figures()[name] for name in names if name in figures()):
            for entry in figure.entries if figure.layer else ():
                own = [task for task in tasks if entry.name in task.names and task.recipe.seed == 0]
                folder = self.out / RUNS / own[0].key
                if self.done(own[0]) and folder.is_dir():
                    found[entry.name] = moved(folder, entry.row, figure.layer or 1)
        return found

    def _images(self, task: Task) -> ImageData:
        # The part of a data set is in the folder of the reproduction; the path of a complete one is absolute.
        return _loaded(str(self.out / self._source(task)), task.recipe.image_size)

    def machine(self) -> dict[str, str]:
        """The machine of the runs, without values that vary over time and packages that are not used in training."""
        from slimnet.benchmark.environment import environment

        where = environment()
        unused = {"Taken by other programs", *where.software} - {"torch"}
        rows = {name: value for name, value in where.rows() if name not in unused}
        device, threads = self.workforce.chosen_device(), self.workforce.threads
        return {"Device": _device_name(device), "Threads": str(threads or "all")} | rows


def moved(folder: Path, label: str, layer: int) -> Moved:
    """The history of γ and β of a layer, counted from 1, in a run.

    Raises:
        UsageError: the run's history does not hold them.
    """
    from slimnet.errors import UsageError
    from slimnet.report.paper.figures import Moved
    from slimnet.training.run.run_folder import read_history

    history = read_history(folder)
    name = next(iter(list(history.scales)[layer - 1 : layer]), None)
    if name not in history.shifts:
        raise UsageError(f"{folder} holds no history of γ and β in layer {layer}; delete the folder to train it again")
    return Moved(label, history.iterations.numpy(), history.scales[name].numpy(), history.shifts[name].numpy())


@functools.lru_cache(maxsize=2)
def _loaded(source: str, image_size: int | None) -> Any:
    from slimnet.data import load_data

    return load_data(source, image_size=image_size)


def _device_name(device: str) -> str:
    import torch

    chosen = torch.device(device)
    return torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else "CPU"
