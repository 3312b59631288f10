"""Messages and help in plain words: what was wrong and what to do, in the singular where there is one."""

import pytest
import slimnet_cli
from torch import nn
from wiring import chain, norm, planes

import slimnet
from slimnet.errors import UsageError
from slimnet.planning.width_rounding import WHOLE
from slimnet.report.census.text import traced_in_words
from slimnet.reproduction.catalogue import wanted
from slimnet.training import Recipe


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["benchmark", "a.onnx", "--batch", "0"], "'0' is not a list of positive whole numbers such as 1,32"),
        (
            ["slim", "a.pt", "--arch", "resnet20", "--input-shape", "0", "--dry-run"],
            "'0' is not a list of positive whole numbers such as 3,224,224",
        ),
    ],
)
def test_the_example_is_one_of_the_option(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.onnx", "a.pt"):
        (tmp_path / name).touch()
    assert slimnet_cli.run(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_number_that_is_too_large_is_not_called_another_kind_of_number():
    with pytest.raises(UsageError, match=r"iterations is 9+; it must be a whole number of at least 1, and below 2\^63"):
        Recipe(arch="basicnet", data="digits", iterations=99999999999999999999)


@pytest.mark.parametrize("name", ["nothing", "tabel1"])
def test_an_unknown_cell_is_answered_by_the_nearest_ones(name):
    with pytest.raises(UsageError) as raised:
        wanted([name])
    message = str(raised.value)
    assert message.endswith("'slimnet reproduce all --dry-run' lists all names")
    assert ("did you mean table1" in message) == (name == "tabel1")
    assert len(message) < 200


def test_help_says_what_an_option_is(capsys):
    assert slimnet_cli.run(["train", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in ("Momentum of sgd.", "β1,β2 of adam, amsgrad and adamax.", "Remove dead filters every N iterations"):
        assert text in shown


def test_one_network_of_a_census_is_said_in_the_singular():
    assert (traced_in_words(1), traced_in_words(2)) == ("the one that was traced", "the 2 that were traced")


def test_widths_that_all_stay_are_said_to():
    plain = chain(nn.Conv2d(2, 8, 3), norm(8, [0, 1]), nn.ReLU(), nn.Conv2d(8, 3, 1))
    plan = slimnet.slim(plain, planes(), round_to=WHOLE).plan
    assert plan.removed_channels == 0
    assert "\n  every layer keeps its width\n" in str(plan)
