"""Grids of recipes and the table of what became of them."""

import itertools
import json
import sqlite3
from pathlib import Path

import pytest

from slimnet.errors import SlimnetError, UsageError
from slimnet.sweep.grid import Cell, read_grid
from slimnet.sweep.store import Store
from slimnet.training import Recipe

BASE = '[base]\narch = "basicnet"\ndata = "digits"\niterations = 5\narch_args = {in_channels = 1, width = 0.25}\n'


def grid(folder: Path, text: str) -> tuple[Cell, ...]:
    path = folder / "grid.toml"
    path.write_text(text)
    return read_grid(path)


def test_every_combination_is_a_cell_and_shares_the_base(tmp_path):
    """The oracle is itertools.product over the two lists, in their order."""
    cells = grid(tmp_path, BASE + '[grid]\nl2 = [0.1, 0.2]\noptimiser = ["adam", "sgd"]\n')
    expected = list(itertools.product([0.1, 0.2], ["adam", "sgd"]))
    assert [(cell.recipe.l2, cell.recipe.optimiser) for cell in cells] == expected
    assert all(cell.recipe.arch_args == {"in_channels": 1, "width": 0.25} for cell in cells)
    assert cells[1].varied == "l2=0.1, optimiser=sgd"
    assert [cell.recipe.lr for cell in cells] == [1e-3, 0.1, 1e-3, 0.1]


def test_variants_are_combined_with_the_grid_and_replace_the_base(tmp_path):
    text = BASE + "[grid]\nseed = [0, 1]\n[[cells]]\nl2 = 0.1\n[[cells]]\nweight_decay = 0.1\niterations = 7\n"
    cells = grid(tmp_path, text)
    found = [(cell.recipe.l2, cell.recipe.weight_decay, cell.recipe.iterations, cell.recipe.seed) for cell in cells]
    assert found == [(0.1, 0, 5, 0), (0.1, 0, 5, 1), (0, 0.1, 7, 0), (0, 0.1, 7, 1)]


def test_one_argument_of_the_network_may_vary(tmp_path):
    cells = grid(tmp_path, BASE + '[grid]\n"arch_args.width" = [0.5, 1.0]\n')
    assert [cell.recipe.arch_args for cell in cells] == [{"in_channels": 1, "width": w} for w in (0.5, 1.0)]


def test_equal_cells_run_once_and_keep_their_key_in_another_grid(tmp_path):
    one = grid(tmp_path, BASE + "[grid]\nseed = [3, 3]\n")
    other = grid(tmp_path, BASE + "[[cells]]\nseed = 2\n[[cells]]\nseed = 3\n")
    assert len(one) == 1
    assert other[1].key == one[0].key != other[0].key


def test_a_base_alone_is_one_cell(tmp_path):
    (cell,) = grid(tmp_path, BASE)
    assert cell.recipe == Recipe(
        arch="basicnet", data="digits", iterations=5, arch_args={"in_channels": 1, "width": 0.25}
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[base", "not TOML"),
        ("[bases]\n", "no table 'bases'"),
        ('[base]\narch = "basicnet"\niterations = 5\n', "lacks 'data'"),
        (BASE + "[grid]\nlamda = [1]\n", "no field 'lamda'"),
        (BASE + "[grid]\nl2 = 0.1\n", "l2 is 0.1; it must be a list"),
        (BASE + "[grid]\nl2 = []\n", r"l2 is \[\]; it must be a list"),
        (BASE + "[grid]\nl2 = [-1.0]\n", "recipe's l2 is -1.0"),
        ("base = 3\n", r"\[base\]"),
        (BASE + "cells = 3\n", "no field 'cells'"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        grid(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "grid.toml") in str(caught.value)


def test_a_missing_grid_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"none\.toml: cannot be read"):
        read_grid(tmp_path / "none.toml")


@pytest.fixture
def cells(tmp_path):
    return grid(tmp_path, BASE + "[grid]\nseed = [0, 1, 2]\n")


def states(store: Store) -> list[str]:
    return [row.state for row in store.rows()]


def test_a_cell_goes_from_waiting_to_done_or_failed(tmp_path, cells):
    store = Store(tmp_path / "sweep.sqlite")
    store.add(cells)
    assert states(store) == ["waiting"] * 3
    for cell in cells:
        store.begin(cell.key)
    store.finish(cells[0].key, {"error": 0.5})
    store.fail(cells[1].key, "the loss became nan")
    store.leave(cells[2].key)
    done, failed, left = Store(tmp_path / "sweep.sqlite").rows()
    assert (done.state, done.result, done.error) == ("done", {"error": 0.5}, None)
    assert (failed.state, failed.error) == ("failed", "the loss became nan")
    assert left.state == "waiting"
    assert done.finished >= done.started
    assert Recipe.from_json(done.recipe) == cells[0].recipe


def test_what_is_known_is_not_added_again_and_new_cells_come_last(tmp_path, cells):
    store = Store(tmp_path / "sweep.sqlite")
    store.add(cells[1:])
    store.finish(cells[1].key, {})
    store.add(cells)
    assert [row.key for row in store.rows()] == [cells[1].key, cells[2].key, cells[0].key]
    assert states(store) == ["done", "waiting", "waiting"]
    assert [row.key for row in store.rows([cells[2].key])] == [cells[2].key]


@pytest.mark.parametrize(
    ("again", "expected"), [(False, ["waiting", "failed", "done"]), (True, ["waiting", "waiting", "done"])]
)
def test_what_was_running_waits_again_and_what_failed_when_it_is_asked_for(tmp_path, cells, again, expected):
    store = Store(tmp_path / "sweep.sqlite")
    store.add(cells)
    store.begin(cells[0].key)
    store.fail(cells[1].key, "no")
    store.finish(cells[2].key, {})
    store.wait_again(failed=again)
    assert states(store) == expected


def test_the_table_is_plain_sqlite(tmp_path, cells):
    """Anybody's tools can read it."""
    store = Store(tmp_path / "sweep.sqlite")
    store.add(cells)
    store.finish(cells[0].key, {"sparsity": 0.25})
    with sqlite3.connect(tmp_path / "sweep.sqlite") as table:
        (text,) = table.execute("SELECT result FROM cells WHERE state = 'done'").fetchone()
    table.close()
    assert json.loads(text) == {"sparsity": 0.25}


def test_a_file_that_is_no_table_is_refused(tmp_path):
    path = tmp_path / "sweep.sqlite"
    path.write_bytes(b"not a database, " * 100)
    with pytest.raises(UsageError, match="not the table of a sweep"):
        Store(path)
    assert path.read_bytes().startswith(b"not a database")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SlimnetError, match="none"):
        Store(tmp_path / "none" / "sweep.sqlite")
