"""benchmarks/recovery.py: one recipe for all, a run that goes on where it was, and the table."""

import argparse
import json
from types import SimpleNamespace

import pytest
import recovery
import torch

from slimnet.data import load_data


@pytest.fixture
def bench(monkeypatch):
    """A bench of scikit-learn's digits whose every method leaves a small network as it is."""
    monkeypatch.setattr(recovery, "network", lambda *_: (digits_net(), {"macs": 10, "params": 20}))
    recipe = recovery.recipe_of(0.02)
    return SimpleNamespace(model=digits_net(), data=load_data("digits"), recipe=recipe, error=lambda _: 0.9)


def digits_net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))


def options_in(folder) -> argparse.Namespace:
    return argparse.Namespace(only=["implicit, fitted at 2.13"], folder=folder, out=folder / "recovery.json")


def test_every_cell_is_the_same_recipe_of_forty_epochs():
    recipe = recovery.recipe_of(recovery.EPOCHS)
    assert recipe.iterations * recipe.batch_size == 40 * 50_000
    assert len(recovery.every_cell()) == len(recovery.METHODS) * len(recovery.FEWER) + 1


def test_an_interrupted_run_goes_on_bit_for_bit(bench, tmp_path, monkeypatch):
    """Oracle: the weights and the errors of a run that nobody interrupted."""
    whole, parts = options_in(tmp_path / "whole"), options_in(tmp_path / "parts")
    results, others = {"runs": {}}, {"runs": {}}
    recovery.run_missing(bench, whole, results)

    class Interrupted(recovery.Finetuning):
        def __next__(self):
            if self.run.iteration:
                self.save()
                raise KeyboardInterrupt
            return super().__next__()

    with monkeypatch.context() as patch:
        patch.setattr(recovery, "Finetuning", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            recovery.run_missing(bench, parts, others)
    assert not parts.out.exists()
    recovery.run_missing(bench, parts, others)
    (row,), (other,) = results["runs"].values(), others["runs"].values()
    assert row["course"] == other["course"]
    assert row["error"] == row["course"][-1][1] < 0.9
    networks = [next(each.folder.rglob("network.pt")) for each in (whole, parts)]
    first, second = (torch.load(each, weights_only=False).state_dict() for each in networks)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert json.loads(parts.out.read_text())["runs"].keys() == others["runs"].keys()


def test_a_row_says_what_is_left_and_at_what_error():
    run = {
        "method": "implicit",
        "fewer": 2.13,
        "error_before": 0.25,
        "error": 0.06,
        "macs": 58_890_880,
        "params": 461_658,
    }
    measured = run | {"fewer": 4.0, "speedup": {"value": 1.5, "low": 1.4, "high": 1.6}}
    names = [name for name in recovery.every_cell() if name.startswith("implicit")]
    _, _, first, second = recovery.table(
        {"runs": dict(zip([names[0], names[2]], [run, measured], strict=True))}
    ).splitlines()
    assert first == "| 2.13 | implicit | 25.00 | 6.00 | 58.9 | 462 | – |"
    assert second.endswith("| 1.50 (1.40 to 1.60) |")
