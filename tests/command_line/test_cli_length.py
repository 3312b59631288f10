"""slimnet train --resume RUN --iterations N: a run is made longer or shorter, and says what becomes of its schedule."""

import json

import pytest
from command_line import recipe_of, run
from slimnet_cli.options.network import Network
from slimnet_cli.options.sources import find_source


def test_a_finished_run_is_made_longer_and_says_what_becomes_of_its_schedule(begun, capsys):
    """And goes on with that length; the network of the shorter run stays, and is used like any other."""
    capsys.readouterr()
    assert run("--resume", begun, "--no-report", "--json", "--iterations", 60) == 0
    written = capsys.readouterr()
    words = "60 iterations instead of 40: the drops of the learning rate stay where they were, at 24"
    assert [line for line in written.err.splitlines() if "instead of" in line] == [words]
    assert "resuming from iteration 40 of 60" in written.err
    document = json.loads(written.out)
    assert (document["recipe"]["iterations"], document["recipe"]["drops"]) == (60, [24])
    assert (recipe_of(begun).iterations, recipe_of(begun).drops) == (60, (24,))
    old, new = find_source(str(begun / "model_40.pt"), Network(None)), find_source(str(begun), Network(None))
    assert (old.weights, new.weights) == (begun / "model_40.pt", begun / "model.pt")
    assert run("--resume", begun, "--no-report") == 0
    assert "instead of" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--iterations", "20"), "the run is at iteration 40 and cannot end at 20; give at least 40"),
        (("--iterations", "0"), "the run is at iteration 40 and cannot end at 0; give at least 40"),
        (
            ("--iterations", "60", "--drops", "5"),
            "its drops before that were at [24]; repeat these, and add later ones",
        ),
        (("--iterations", "60", "--lr", "1"), "the run was begun with lr 0.005, not 1.0"),
        (("--iterations", "60", "--cosine"), "the recipe's drops is (24,); it must be empty"),
        (("--iterations", "many"), "is not a valid integer"),
    ],
)
def test_what_cannot_go_on_so_is_one_line_and_changes_nothing(options, message, begun, capsys):
    before = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert run("--resume", begun, *options) == 2
    written = capsys.readouterr()
    assert (written.out, written.err.count("\n")) == ("", 1)
    assert message in written.err
    assert {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()} == before
