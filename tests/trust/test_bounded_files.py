"""Small files that claim to be large or deep, and what crashes and other programs leave in a run's folder."""

import io
import json
import resource
import sqlite3
import zipfile
from pathlib import Path

import click
import numpy as np
import pytest
import runs
import safetensors.torch
import torch
from bundles import refusal
from slimnet_cli.commands.report import report

from slimnet.comparison.folder import Begun, Folder
from slimnet.comparison.settings import Cell
from slimnet.data import npz
from slimnet.data.npz import load_npz
from slimnet.errors import CheckpointError, DataError, ExportError, SlimnetError, UsageError
from slimnet.export.onnx_runner import OnnxRunner, limit_for
from slimnet.methods.iterative_pruning import LadderRecord
from slimnet.reproduction import results
from slimnet.storage.records import from_json, read_record
from slimnet.sweep import Ending, Store, read_grid
from slimnet.training import TrainingRun
from slimnet.training.run.run_folder import create_run, read_history, recipe_of, reopen_run
from slimnet.training.run.run_status import status_of

DEEP = "[" * 100_000 + "]" * 100_000
REPORT = {"iteration": 1, "total": 7, "loss": 1.5, "accuracy": 0.5, "sparsity": 0.0, "seconds": 1.0, "epoch": 0.5}


def lines(*reports: object) -> str:
    return "".join(f"{each if isinstance(each, str) else json.dumps(REPORT | each)}\n" for each in reports)


@pytest.fixture
def run(tmp_path) -> Path:
    """A run's folder with a recipe and a report."""
    with create_run(tmp_path / "run", runs.recipe()):
        pass
    (tmp_path / "run" / "metrics.jsonl").write_text(lines({}, {"iteration": 2}))
    return tmp_path / "run"


def sweep_result(path: Path) -> object:
    store = Store(path.with_name("sweep.sqlite"))
    store.add(read_grid_of(path))
    with sqlite3.connect(path.with_name("sweep.sqlite")) as table:
        table.execute("UPDATE cells SET result = ?", (path.read_text(),))
    return store.rows()


def read_grid_of(path: Path) -> object:
    grid = path.with_name("grid.toml")
    grid.write_text('[base]\narch = "basicnet"\ndata = "digits"\niterations = 4\n')
    return read_grid(grid)


JSON_READERS = {
    "run/recipe.json": lambda path: recipe_of(path.parent),
    "run/metrics.jsonl": lambda path: read_history(path.parent),
    "comparison/comparison.json": lambda path: read_record(Begun, path, UsageError),
    "comparison/dense.json": lambda path: Folder(path.parent).dense(),
    "comparison/cells/implicit-exact.json": lambda path: Folder(path.parents[1]).outcome(Cell("implicit", None)),
    "comparison/results.json": lambda path: report.callback(path, None),
    "ladder/ladder.json": lambda path: read_record(LadderRecord, path, UsageError),
    "sweep/result.json": sweep_result,
    "sweep/deep.toml": read_grid,
    "paper/table6-x.json": lambda path: results.read_all(path.parent, "small"),
    "speed.json": lambda path: report.callback(path, None),
}


@pytest.mark.parametrize("name", JSON_READERS)
def test_what_is_nested_deep_is_refused_in_one_line(name, tmp_path, run):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = f"a = {DEEP}" if name.endswith(".toml") else DEEP
    path.write_text(f"{text}\n{json.dumps(REPORT)}\n" if name.endswith(".jsonl") else text)
    with pytest.raises((SlimnetError, click.UsageError)) as caught:
        JSON_READERS[name](path)
    message = getattr(caught.value, "message", str(caught.value))
    assert "nested too deep" in message
    assert "\n" not in message


def test_a_broken_line_amid_the_metrics_is_refused_by_file_and_line(run):
    (run / "metrics.jsonl").write_text(lines({}, '{"iteration": 2, "tot', {"iteration": 3}))
    message = refusal(UsageError, read_history, run)
    assert message.startswith(f"{run / 'metrics.jsonl'}, line 2: ")
    assert "delete that line" in message
    with reopen_run(run) as folder:
        refusal(UsageError, folder.forget_after, 9)
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("torn", ['{"iteration": 3, "tot', "\0\0\0\0", '{"iteration": 3}\n'])
def test_the_last_line_may_be_torn(torn, run):
    """By a kill or a power cut; what was measured before is read, and the run that goes on drops the rest."""
    (run / "metrics.jsonl").write_text(lines({}, {"iteration": 2}) + torn)
    assert [each.iteration for each in read_history(run).progress] == [1, 2]
    with reopen_run(run) as folder:
        folder.forget_after(9)
    assert (run / "metrics.jsonl").read_text() == lines({}, {"iteration": 2})


def test_a_report_that_lost_nothing_but_its_end_of_line_is_not_run_together_with_the_next(run):
    (run / "metrics.jsonl").write_text(lines({}, {"iteration": 2})[:-1])
    with reopen_run(run) as folder:
        folder.forget_after(2)
        folder.report(read_history(run).progress[-1])
    assert [each.iteration for each in read_history(run).progress] == [1, 2, 2]


def test_who_watches_a_run_passes_over_a_broken_line(run):
    """A sweep goes on while one of its cells has a damaged file."""
    (run / "metrics.jsonl").write_text(lines({}, DEEP[:99], {"iteration": 3}))
    assert status_of(run).progress.iteration == 3


def test_other_programs_files_in_the_history_and_among_the_checkpoints_are_left_alone(run):
    for name in (".DS_Store", "._00000001.safetensors", "Thumbs.db", "notes.safetensors", "notes.pt", "1.pt.part"):
        for folder in ("history", "checkpoints"):
            (run / folder / name).write_bytes(b"\0\0\0\1Bud1")
    history = {"scale/bn": torch.ones(2), "shift/bn": torch.zeros(2)}
    safetensors.torch.save_file(history, run / "history" / "00000001.safetensors", {"layers": '["bn"]'})
    assert read_history(run).iterations.tolist() == [1]
    with reopen_run(run) as folder:
        assert folder.checkpoint() is None
        folder.forget_after(0)
    assert sorted(path.name for path in (run / "history").iterdir())[:2] == [".DS_Store", "._00000001.safetensors"]


@pytest.fixture(scope="module")
def state() -> dict[str, object]:
    run = TrainingRun(runs.recipe(), runs.images(), every=1)
    next(run)
    return run.state()


WRONG = (None, 5, "text", -1, 2**70, float("nan"), [], [[]], {}, {"a": 1}, torch.ones(2), torch.tensor(1.5))


def refused_with(state: dict[str, object]) -> str | None:
    """The message with which a state is refused, if it is."""
    try:
        TrainingRun(runs.recipe(), runs.images(), state=state)
    except SlimnetError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "entry", ["state_dict", "recipe", "iteration", "data", "optimiser", "random", "tally", "seconds"]
)
def test_a_state_of_the_wrong_type_is_refused_in_one_line(entry, state):
    """Each entry of a checkpoint in turn is something else, or absent; what is refused is a kind of slimnet's."""
    refused = [said for value in WRONG if (said := refused_with(state | {entry: value}))]
    # Seconds may be any number from 0 up, iterations one up to the end, and another stream of random numbers is one.
    assert len(refused) >= len(WRONG) - 3
    assert "\n" not in "".join(refused)
    refusal(
        CheckpointError, TrainingRun, runs.recipe(), runs.images(), state={n: v for n, v in state.items() if n != entry}
    )


def packed(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def array(shape: tuple[int, ...], dtype: str = "|u1", header: bytes = b"") -> bytes:
    """An array of zeros as NumPy writes it."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return (header or file.getvalue()) + bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)


BOMBS = {
    "images that expand a thousandfold": ({"x_train": array((400, 100, 100, 1))}, "expands from"),
    "more images than labels": ({"x_train": array((300, 64, 64, 1))}, "must pair up"),
    "a header of megabytes": (
        {"y_train": b"\x93NUMPY\x02\x00" + (300 << 20).to_bytes(4, "little") + b" " * (20 << 20)},
        "not a readable .npz",
    ),
    "names of megabytes": ({"classes": array((100,), "<U5000")}, "the names of classes take"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_an_npz_expands_to_no_more_than_it_needs(bomb, tmp_path, monkeypatch):
    """With small limits, so that the bombs are small as well."""
    monkeypatch.setattr(npz, "FREELY_EXPANDED", 3 << 20)
    monkeypatch.setattr(npz, "LIMIT_NAMES", 1 << 20)
    labels = array((4,), "<i8")
    members = {"x_train": array((4, 8, 8, 1)), "y_train": labels, "x_test": array((4, 8, 8, 1)), "y_test": labels}
    spoilt, printed = BOMBS[bomb]
    path = packed(tmp_path / "data.npz", **members | spoilt)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert printed in refusal(DataError, load_npz, path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10 << 10
    assert path.stat().st_size < 2 << 20


def test_an_npz_that_numpy_compressed_is_read(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(4)
    np.savez_compressed(tmp_path / "data.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    assert len(load_npz(tmp_path / "data.npz").x_train) == 4


def test_an_onnx_file_is_only_as_large_as_the_weights_let_it_be(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(10 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    limit = limit_for(tmp_path / "model.safetensors")
    assert "more than 67,112,864 bytes" in refusal(ExportError, OnnxRunner, tmp_path / "model.onnx", limit)
    assert "more than 2,147,483,647 bytes" in refusal(ExportError, OnnxRunner, tmp_path / "model.onnx")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


@pytest.mark.parametrize(
    "code",
    [
        "CREATE VIEW cells AS WITH RECURSIVE n(key) AS (SELECT 1 UNION ALL SELECT key FROM n) SELECT key FROM n",
        "CREATE TABLE a (b); CREATE TRIGGER endless AFTER INSERT ON a BEGIN SELECT 1; END",
    ],
)
def test_a_table_of_cells_brings_no_code(code, tmp_path):
    with sqlite3.connect(tmp_path / "sweep.sqlite") as table:
        table.executescript(code)
    assert "it holds the" in refusal(UsageError, Store, tmp_path / "sweep.sqlite")


@pytest.mark.parametrize(("name", "place"), [(b"cells", 0), (b"state", 1), (b"position", 0), (b"CREATE TABLE", 0)])
def test_a_table_of_cells_with_a_damaged_name_is_none(name, place, tmp_path):
    """A byte that no text has; SQLite quotes it in a message that Python cannot decode."""
    Store(tmp_path / "sweep.sqlite")
    content = (tmp_path / "sweep.sqlite").read_bytes()
    start = -1
    for _ in range(place + 1):
        start = content.index(name, start + 1)
    (tmp_path / "sweep.sqlite").write_bytes(content[:start] + b"\xc4" + content[start + 1 :])
    assert "not the table of a sweep" in refusal(UsageError, Store, tmp_path / "sweep.sqlite")


def test_a_text_in_a_table_of_cells_that_is_none_is_one_line(tmp_path):
    store = Store(tmp_path / "sweep.sqlite")
    with sqlite3.connect(tmp_path / "sweep.sqlite") as table:
        values = "VALUES ('k', 0, CAST(x'c4' AS TEXT), '', 'waiting')"
        table.execute(f"INSERT INTO cells (key, position, varied, recipe, state) {values}")
    assert "not the table of a sweep" in refusal(UsageError, store.rows)


@pytest.mark.parametrize("result", [{}, {"accuracy": 1, "dead_filters": 0.5, "seconds": 1.0}, {"seconds": []}])
def test_the_result_of_a_cell_is_read_strictly(result):
    assert refusal(UsageError, Ending.of, result).startswith("the result of a cell")


def test_an_ending_has_what_train_says():
    said = {"accuracy": {"top1": 0.5, "top5": 1.0, "n": 10}, "dead_filters": 0.25, "seconds": 1.0, "folder": None}
    assert Ending.of(said).accuracy.top1 == 0.5
    assert from_json(Ending, json.dumps(said), "it", UsageError, others_ignored=True) == Ending.of(said)
