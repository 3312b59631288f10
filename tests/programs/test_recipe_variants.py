"""benchmarks/recipe_variants.py: what is kept of a run, and the table."""

import json
from pathlib import Path

import pytest
import recipe_variants
import slimnet_cli
from command_line import SHORT, recipe_of

from slimnet.checkpoint import load_checkpoint
from slimnet.data import load_data
from slimnet.training import evaluate


def test_a_run_is_kept_with_its_losses_and_errors(tmp_path, monkeypatch, capsys):
    """Oracle: the losses in its log, and the accuracy by another way."""
    run = tmp_path / "run"
    assert slimnet_cli.run(["train", "digits", *SHORT, "--iterations", "40", "--drops", "20", "-o", str(run)]) == 0
    monkeypatch.setattr(recipe_variants, "RESULTS", tmp_path / "variants.json")
    monkeypatch.setattr("sys.argv", ["recipe_variants.py", "--keep", str(run), "short", "--data", "digits"])
    recipe_variants.main()
    row = json.loads((tmp_path / "variants.json").read_text())["runs"]["short"]
    logged = {
        each["iteration"]: each["loss"] for each in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    }
    assert row["loss_before_drop"] == pytest.approx(logged[20])
    assert row["loss"] == pytest.approx(logged[40])
    args = row["recipe"]["arch_args"]
    model = load_checkpoint(run / "model.pt", "basicnet", args)
    assert row["error"] == pytest.approx(1 - evaluate(model, load_data("digits")).top1)
    assert f"| short | {logged[20]:.3f} | {logged[40]:.3f} |" in capsys.readouterr().out


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run of twenty steps."""
    folder = tmp_path_factory.mktemp("short") / "run"
    assert slimnet_cli.run(["train", "digits", *SHORT, "--iterations", "20", "-o", str(folder)]) == 0
    return folder


def test_a_checkpoint_is_kept_as_the_network_that_it_holds(run, tmp_path, monkeypatch, capsys):
    """Oracle: a run of a name in the paper's tables, and its own evaluation."""
    monkeypatch.setattr(recipe_variants, "RESULTS", tmp_path / "variants.json")
    (checkpoint,) = (run / "checkpoints").glob("*.pt")
    look = ["--look", str(checkpoint), recipe_variants.CELL, "--data", "digits"]
    monkeypatch.setattr("sys.argv", ["recipe_variants.py", *look])
    recipe_variants.main()
    (row,) = json.loads((tmp_path / "variants.json").read_text())["looks"]
    model = load_checkpoint(run / "model.pt", "basicnet", row["recipe"]["arch_args"])
    assert row["iteration"] == 20
    assert row["test_error"] == pytest.approx(1 - evaluate(model, load_data("digits")).top1)
    assert row["train_error"] == pytest.approx(1 - evaluate(model, load_data("digits"), "train").top1)
    out = capsys.readouterr().out
    assert f"| {recipe_variants.CELL} | 20 | {row['train_loss']:.2f} |" in out
    assert "| the paper's | 406,250 | 0.22 | – | 0.44 | 13.4 % |" in out


def test_dead_filters_are_counted_by_layer_where_a_run_has_come(run, tmp_path, monkeypatch, capsys):
    """Oracle: γ of the network at the end; iterations that the run has not reached are left out."""
    model = load_checkpoint(run / "model.pt", "basicnet", recipe_of(run).arch_args)
    monkeypatch.setattr(recipe_variants, "RESULTS", tmp_path / "variants.json")
    monkeypatch.setattr(recipe_variants, "LAYERS_AT", (20, 40))
    monkeypatch.setattr(recipe_variants, "DEAD_BELOW", threshold := 0.99)
    monkeypatch.setattr("sys.argv", ["recipe_variants.py", "--layers", str(run), "short"])
    recipe_variants.main()
    norms = (model.features.bn1, model.features.bn2)
    dead = [(norm.weight.abs() < threshold).float().mean().item() for norm in norms]
    (row,) = json.loads((tmp_path / "variants.json").read_text())["layers"]["short"]
    assert (row["iteration"], row["dead"]) == (20, pytest.approx(dead))
    assert row["recipe"]["data"] == "cifar10"
    assert 0 < sum(dead) < 2
    assert f"| short | 20 | {100 * dead[0]:.0f} | {100 * dead[1]:.0f} |" in capsys.readouterr().out


def test_a_loss_is_the_mean_over_the_last_fiftieth():
    rows = [{"iteration": number, "loss": float(number)} for number in range(1, 101)]
    assert recipe_variants.mean_loss(rows, 100) == 99.5
    assert recipe_variants.mean_loss(rows, 50) == 50
