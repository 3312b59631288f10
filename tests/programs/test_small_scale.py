"""The program that tries other settings of the small scale: what it trains, and what it says of it."""

import json
from dataclasses import asdict

import pytest
import small_scale
from small_scale import SETTINGS, Setting

from slimnet.benchmark.environment import environment
from slimnet.reproduction.catalogue import entry
from slimnet.reproduction.results import Result, Run, without_seed
from slimnet.reproduction.scales import recipe_of

OWN, *OTHERS = SETTINGS
WHERE = {"Processor": "P", "Device": "CPU", "Threads": "1"}


@pytest.mark.parametrize("data", small_scale.DATA)
@pytest.mark.parametrize(
    "row", [("table1", "Adam, L2 1e-3"), ("table1", "Adam, L2 1e-4"), ("table3", "L2 1e-4, batch 160")]
)
def test_without_a_change_it_is_the_small_scales_own_cell(data, row):
    setting = Setting(1e-3 if "1e-3" in row[1] else 1e-4, batch_size=160 if "160" in row[1] else 40)
    assert setting.recipe(data, 2) == recipe_of(entry(*row, data), "small", 2)


def test_a_setting_changes_what_it_says():
    setting = Setting(1e-4, 3, 3, 4000, 160)
    assert setting.columns == ("1e-4", "3", "3", "4,000", "160")
    assert len({each.columns for each in SETTINGS}) == len(SETTINGS)
    changed = setting.recipe("cifar10", 0)
    assert (changed.l2, changed.lr) == (0.0003, 0.003)
    assert (changed.iterations, changed.drops, changed.batch_size) == (4000, (3076,), 160)


def made(setting: Setting, data: str, seed: int, gamma: float, loss: float) -> dict:
    """A run as the file of results has it."""
    row = {"setting": asdict(setting), "data": data, "seed": seed, "gamma": gamma, "train_loss": loss, "seconds": 1.0}
    return json.loads(json.dumps(row))


def cell(data: str, gamma: float) -> Result:
    """The paper's cell that is the first setting, with one seed."""
    readings = {"gamma": gamma, "train_loss": 1.0}
    run = Run(0, readings, (), (2, 1), 0, 0.0, 1.0, 1.0, WHERE)
    return Result((data,), "small", without_seed(OWN.recipe(data, 0)), (run,))


@pytest.fixture
def cells(monkeypatch):
    """What the paper's cells have: the first setting, on both data sets."""
    known = {"cifar10": cell("cifar10", 57.0), "cifar100": cell("cifar100", 67.0)}
    found = small_scale.paper.Found((), "small", known, {})
    monkeypatch.setattr(small_scale.paper, "found", lambda scale: found)


def test_the_table_has_the_means_of_settings_that_both_data_sets_were_run_under(cells):
    both = [
        ("cifar10", 0, 50.0, 1.0),
        ("cifar10", 1, 60.0, 2.0),
        ("cifar100", 0, 41.0, 3.0),
        ("cifar100", 1, 43.0, 4.0),
    ]
    runs = [*(made(OTHERS[1], *each) for each in both), made(OTHERS[0], "cifar10", 0, 1.0, 1.0)]
    lines = small_scale.table({"runs": runs}).splitlines()
    assert lines[2:] == [
        f"| {' | '.join(OWN.columns)} | 57.0 (1.00) | 67.0 (1.00) | -10.0 | 1 |",
        f"| {' | '.join(OTHERS[1].columns)} | 55.0 ± 5.0 (1.50) | 42.0 ± 1.0 (3.50) | +13.0 | 2 |",
    ]


def test_what_is_there_is_not_run_again(cells, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(small_scale, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(small_scale, "small", lambda name, root: None)
    monkeypatch.setattr("sys.argv", ["small_scale.py", "--seeds", "2"])
    ran = []

    def run(setting, data, name, seed):
        ran.append((setting, name, seed))
        return made(setting, name, seed, 50.0, 1.0)

    monkeypatch.setattr(small_scale, "run", run)
    # Each call measures the load of the machine for a quarter of a second.
    where = environment()
    monkeypatch.setattr(small_scale, "environment", lambda: where)
    small_scale.main()
    small_scale.main()
    assert len(ran) == len(set(ran)) == 2 * 2 * len(SETTINGS) - 2
    assert (OWN, "cifar10", 0) not in ran
    assert capsys.readouterr().out.splitlines()[-1].endswith("| 50.0 ± 0.0 (1.00) | 50.0 ± 0.0 (1.00) | +0.0 | 2 |")
