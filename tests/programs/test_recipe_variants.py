"""benchmarks/recipe_variants.py: what is kept of a run, and the table."""

import json

import pytest
import recipe_variants
import slimnet_cli
from command_line import SHORT

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


def test_a_loss_is_the_mean_over_the_last_fiftieth():
    rows = [{"iteration": number, "loss": float(number)} for number in range(1, 101)]
    assert recipe_variants.mean_loss(rows, 100) == 99.5
    assert recipe_variants.mean_loss(rows, 50) == 50
