"""A comparison of methods, with the same surgery, the same fine-tuning and the same latency measurement for all."""

import copy
import hashlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from slimnet.benchmark import Contender, Environment, Latency, environment, measure, parameters
from slimnet.benchmark import Settings as Clock
from slimnet.benchmark.runtimes.table import DEPLOYED, find_runtime
from slimnet.comparison.folder import Folder
from slimnet.comparison.outcome import Dense, Failure, Outcome, Results, Size
from slimnet.comparison.rival import RivalError, cut_to_budget, remeasured
from slimnet.comparison.settings import ENGINE, SPARSE, Cell, Settings
from slimnet.counting import count_network
from slimnet.data import ImageData
from slimnet.errors import UsageError
from slimnet.export.onnx import export_onnx
from slimnet.methods import Ranking, remove_selected, score_channels, select_within_budget
from slimnet.pipeline import slim
from slimnet.slimmed import Slimmed
from slimnet.storage.files import held
from slimnet.torch_state.devices import device_of
from slimnet.torch_state.process import torch_threads
from slimnet.training import evaluate
from slimnet.training.analysis.metrics import check_fits
from slimnet.training.finetune import Finetuning, Point
from slimnet.training.loop.checkpoint_file import weights_of
from slimnet.training.loop.resume_checks import fingerprint

EXAMPLES = 64
"""The number of test images on which plans are certified."""

SPARSE_TESTS = 4
"""The number of evaluations, and checkpoints, of the network that is trained with L1 on γ."""

RANKING_BATCHES, RANKING_BATCH = 8, 64
"""The number of training images for the gradients of "taylor"."""


@dataclass(frozen=True)
class StudyProgress:
    """The progress of a comparison: the number of cells `done`, and what it is `doing`."""

    done: int
    total: int
    doing: str


@dataclass(frozen=True)
class Made:
    """A slim network before any training, as an engine made it; `difference` and `flaw` are those of its `Outcome`."""

    model: nn.Module
    size: Size
    difference: float | None
    flaw: str = ""


class Study:
    """A comparison of methods on one network, stored in a folder: iterate over it for its progress.

    After any interruption, a study of the same network, data and conditions resumes from its folder; methods and
    budgets may be added. The network is not modified. It is run and fine-tuned on its device; latency is that of
    onnxruntime on the CPU.

    Attributes:
        settings: methods, budgets and conditions.
        cells: the slim networks, in the order of creation.

    Raises:
        DataError: the network does not take the data, or has another number of classes.
        UsageError: the folder belongs to another study, or another process holds it.
    """

    def __init__(self, name: str, model: nn.Module, data: ImageData, settings: Settings, folder: str | Path) -> None:
        self.settings, self.cells = settings, settings.cells()
        self._name, self._model, self._data = name, copy.deepcopy(model).eval(), data
        self._folder = Folder(Path(folder))
        check_fits(self._model, data, trained=True)
        self._place = device_of(self._model)
        self._inputs, _ = next(data.batches("test", EXAMPLES, self._place))
        self._sparse: tuple[nn.Module, Point] | None = None

    def __iter__(self) -> Iterator[StudyProgress]:
        """Run the missing trials, and yield the progress.

        Raises:
            UsageError: a method cannot meet its budget; the message has the smallest one. Nothing has been fine-tuned.
            DivergedError: fine-tuning diverged.
        """
        self._folder.path.mkdir(parents=True, exist_ok=True)
        with held(self._folder.path, UsageError, "comparing"), torch_threads(self.settings.threads):
            self._environment = self._begin()
            yield self._now("the dense network")
            self._measure_dense()
            waiting = [cell for cell in self.cells if not self._folder.is_done(cell)]
            sparse = [cell for cell in waiting if cell.method == SPARSE and self.settings.sparsifying is not None]
            for cell in waiting:
                if cell not in sparse:
                    yield self._now(f"choosing channels: {cell}")
                    self._choose(cell)
            if sparse:
                yield from self._sparsify()
            for cell in sparse:
                yield self._now(f"choosing channels: {cell}")
                self._choose(cell)
            for cell in waiting:
                yield from self._judge(cell)
        yield self._now("done")

    def results(self) -> Results:
        """The results so far.

        Raises:
            UsageError: the study has not been begun.
        """
        dense = self._folder.dense()
        if dense is None:
            raise UsageError(f"{self._folder.path} holds no results yet; iterate over the study first")
        found = [self._folder.outcome(cell) for cell in self.cells]
        failures = [self._folder.failure(cell) for cell in self.cells]
        return Results(
            network=self._name,
            data=self._data.name,
            images=len(self._data.y_test),
            dense=dense,
            outcomes=tuple(outcome for outcome in found if outcome is not None),
            finetuning=self.settings.finetuning,
            sparsifying=self.settings.sparsifying,
            recalibrated=self.settings.recalibrate,
            measured_on=self.settings.measure_on if self.settings.recalibrate else 0,
            refitted=self.settings.refit,
            failures=tuple(failure for failure in failures if failure is not None),
            environment=self._environment,
        )

    def _begin(self) -> Environment:
        where = environment((str(self._place),))
        here = asdict(where)
        machine = {"cpu": where.cpu, "torch": where.torch, **find_runtime(DEPLOYED).versions()}
        if self._place.type != "cpu":
            machine["device"] = here["gpu"] or str(self._place)
        conditions = {"weights": digest(self._model), "data": fingerprint(self._data), **self.settings.conditions()}
        return self._folder.begin(conditions | machine, here)

    def _now(self, doing: str) -> StudyProgress:
        done = sum(map(self._folder.is_done, self.cells))
        return StudyProgress(done, len(self.cells), doing)

    def _measure_dense(self) -> None:
        if self.settings.seconds and not self._folder.dense_onnx.exists():
            export_onnx(self._model, self._inputs, self._folder.dense_onnx)
        if self._folder.dense() is None:
            plan = slim(self._model, self._inputs, 0.0, tolerance=float("inf")).plan
            channels = sum(layer.channels_before for layer in plan.layers)
            size = self._size(self._model, channels, plan.params_before)
            self._folder.keep_dense(Dense(size, self._error(self._model)))

    def _sparsify(self) -> Iterator[StudyProgress]:
        """Train the copy in which "liu2017" chooses with L1 on γ; resumes from its checkpoint."""
        assert self.settings.sparsifying is not None, "asked before"
        training = Finetuning(
            self._model,
            self.settings.sparsifying,
            self._data,
            evaluations=SPARSE_TESTS,
            folder=self._folder.sparse,
            threads=self.settings.threads,
            device=self._place,
        )
        for progress in training:
            doing = f"{SPARSE}: L1 on γ {progress.iteration}/{progress.total}, loss {progress.loss:.3f}"
            yield self._now(doing)
        self._sparse = training.model.eval(), training.course[-1]

    def _network(self, cell: Cell) -> nn.Module:
        """The network in which a cell's method chooses channels."""
        return self._sparse[0] if cell.method == SPARSE and self._sparse is not None else self._model

    def _size(self, model: nn.Module, channels: int, params: int) -> Size:
        """The size of a network with so many channels and parameters."""
        counts = count_network(model, self._inputs)
        return Size(channels, params, counts.macs, counts.counted_by)

    def _error(self, model: nn.Module) -> float:
        return 1 - evaluate(model, self._data).top1

    def _choose(self, cell: Cell) -> None:
        """Choose the channels of a cell by its method, unless they are stored; another engine chooses when it cuts."""
        if cell.budget is None or cell.engine != ENGINE or self._folder.selection(cell) is not None:
            return
        chosen = select_within_budget(
            self._network(cell), self._inputs, self._ranking(cell), cell.budget, latency=self._latency_left
        )
        self._folder.keep_selection(cell, chosen)

    def _ranking(self, cell: Cell) -> Ranking:
        """The scores of all channels by a cell's method."""
        batches = itertools.islice(self._data.batches("train", RANKING_BATCH), RANKING_BATCHES)
        return score_channels(
            cell.method,
            self._network(cell),
            self._inputs,
            batches=batches,
            seed=self.settings.seed,
            threshold=self.settings.threshold,
        )

    def _made(self, cell: Cell) -> Made:
        """The cell's slim network, before any training.

        Raises:
            RivalError: another engine made none.
        """
        if cell.engine != ENGINE:
            return self._made_by_rival(cell)
        slimmed = self._removed(cell)
        channels = sum(layer.channels_after for layer in slimmed.plan.layers)
        size = self._size(slimmed.model, channels, slimmed.plan.params_after)
        return Made(slimmed.model, size, slimmed.certificate.max_rel_difference)

    def _made_by_rival(self, cell: Cell) -> Made:
        """The network that torch-pruning cuts by the same scores, with BatchNorms measured on the same images."""
        dense, count = self._folder.dense(), self.settings.measure_on
        assert dense is not None, "measured first"
        assert cell.budget is not None, "refused before"
        cut = cut_to_budget(self._network(cell), self._inputs, self._ranking(cell), cell.budget)
        channels = dense.size.channels - sum(map(len, cut.removed.values()))
        size = self._size(cut.model, channels, parameters(cut.model))
        if self.settings.recalibrate and count:
            remeasured(cut.model, self._data.sample(count), self._place)
        return Made(cut.model, size, cut.difference, cut.flaw)

    def _removed(self, cell: Cell) -> Slimmed:
        """The network that slimnet makes.

        A network without a budget is the exact one.
        """
        if cell.budget is None:
            # The table shows whether the threshold's certificate holds; this is no reason to stop.
            return slim(self._model, self._inputs, self.settings.threshold, tolerance=float("inf"))
        selection = self._folder.selection(cell)
        assert selection is not None, "chosen before anything is judged"
        count = self.settings.measure_on
        return remove_selected(
            self._network(cell),
            self._inputs,
            selection,
            recalibrate=self.settings.recalibrate,
            images=self._data.sample(count) if count else None,
            refit=self.settings.refit and selection.count > 0,
        )

    def _judge(self, cell: Cell) -> Iterator[StudyProgress]:
        """Remove the channels of a cell, test, fine-tune, test, and time; then write the row."""
        start = time.perf_counter()
        yield self._now(f"{cell}: removing channels")
        try:
            made = self._made(cell)
        except RivalError as failure:
            assert cell.budget is not None, "refused before"
            self._folder.fail(Failure(cell.method, cell.budget, cell.engine, str(failure)), cell)
            return
        yield self._now(f"{cell}: testing")
        error = self._error(made.model)
        model = made.model
        course: tuple[Point, ...] = ()
        if self.settings.finetuning is not None:
            tuning = self._finetuning(cell, made.model)
            for progress in tuning:
                yield self._now(f"{cell}: fine-tuning {progress.iteration}/{progress.total}, loss {progress.loss:.3f}")
            model, course = tuning.model.eval(), tuple(tuning.course)
        latency = None
        if self.settings.seconds:
            yield self._now(f"{cell}: measuring latency")
            latency = self._latency(model, self._folder.onnx(cell), cell.key)
        self._folder.finish(
            cell,
            Outcome(
                method=cell.method,
                budget=cell.budget,
                size=made.size,
                error=error,
                difference=made.difference,
                engine=cell.engine,
                flaw=made.flaw,
                sparsified=self._sparse[1] if cell.method == SPARSE and self._sparse is not None else None,
                course=course,
                latency=latency,
                seconds=time.perf_counter() - start,
            ),
        )

    def _finetuning(self, cell: Cell, model: nn.Module) -> Finetuning:
        assert self.settings.finetuning is not None
        return Finetuning(
            model,
            self.settings.finetuning,
            self._data,
            evaluations=self.settings.evaluations,
            folder=self._folder.under_way(cell),
            threads=self.settings.threads,
            device=self._place,
        )

    def _latency(self, model: nn.Module, path: Path, name: str) -> Latency:
        """The latency of dense and slim, interleaved, on the runtime for which slim networks are made."""
        export_onnx(model, self._inputs, path)
        pair = [Contender("dense", onnx=self._folder.dense_onnx), Contender(name, onnx=path)]
        clock = Clock((self.settings.batch,), self.settings.threads, self.settings.seconds, runtimes=(DEPLOYED,))
        return next(iter(measure(pair, self._inputs, clock)))

    def _latency_left(self, model: nn.Module) -> float:
        """A slim network's latency as a fraction of the dense one's."""
        if not self.settings.seconds:
            raise UsageError("a budget of latency needs time to measure it; give seconds above 0")
        return 1 / self._latency(model, self._folder.path / "tried.onnx", "tried").reliable_speedup().value


def digest(model: nn.Module) -> str:
    """SHA-256 of a network's weights and their names."""
    found = hashlib.sha256()
    for name, tensor in weights_of(model).items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return found.hexdigest()
