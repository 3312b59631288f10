"""Tables on narrow terminals: no word and no number is broken or cropped, whatever the width is."""

import json

import pytest
import slimnet_cli
import torch
from networks import lively
from slimnet_cli.output import terminal
from slimnet_cli.output.grid import share_room

from slimnet.models import build

HEADINGS = ("layer", "kind", "channels", "MACs", "parameters", "dead but kept, because")
ROWS = [
    ("features.conv1", "conv", "16", "102 k", "18,432", ""),
    ("features.conv2", "depthwise", "128", "2.77 M", "300,602", "kept as requested, by somebody (a_long_module.py:31)"),
]
ARGS = json.dumps({"widths": [8, 12], "pool_after": [1], "hidden": 16, "in_channels": 1})


def words(rows) -> list[str]:
    return sorted(word for row in rows for cell in row for word in cell.split())


@pytest.mark.parametrize("width", [1, 40, 60, 80, 120])
def test_every_word_is_whole_at_every_width(width, capsys, monkeypatch):
    """Oracle: the words that went into the table."""
    monkeypatch.setenv("COLUMNS", str(width))
    terminal.result().print(terminal.table(HEADINGS, ROWS, right=(2, 3, 4)))
    shown = capsys.readouterr().out
    assert sorted(shown.split()) == words([HEADINGS, *ROWS])
    lines = shown.splitlines()
    assert next(line for line in lines if line.startswith("features.conv2")).split()[:3] == list(ROWS[1][:3])
    if width >= 80:
        assert max(map(len, lines)) <= width


def test_columns_move_together_before_lines_become_too_long(capsys, monkeypatch):
    """By hand: two columns of 5 and 4 with three, two, and one blank between them."""
    for width, line in ((12, "abcde   1234"), (11, "abcde  1234"), (10, "abcde 1234"), (4, "abcde 1234")):
        monkeypatch.setenv("COLUMNS", str(width))
        terminal.result().print(terminal.table(("", ""), [("abcde", "1234")], right=(1,)))
        assert capsys.readouterr().out == f"{line}\n"


@pytest.mark.parametrize(
    ("least", "most", "room", "widths"),
    [
        ([5, 5], [5, 9], 20, [5, 9]),
        ([5, 5], [5, 30], 20, [5, 15]),
        ([20, 5], [50, 15], 30, [23, 7]),
        ([2, 2], [4, 90], 20, [4, 16]),
        ([5, 5], [9, 9], 3, [5, 5]),
    ],
)
def test_room_goes_to_those_that_want_it(least, most, room, widths):
    """Oracle: by hand. No column is narrower than its longest word, or wider than its longest line."""
    assert share_room(least, most, room) == widths


@pytest.mark.parametrize("width", [40, 60, 80])
def test_inspect_says_the_same_on_a_narrow_terminal(width, tmp_path, capsys, monkeypatch):
    """Oracle: the words at 200 columns."""
    torch.manual_seed(0)
    torch.save(lively(build("basicnet", json.loads(ARGS))).state_dict(), tmp_path / "net.pt")
    command = ["inspect", str(tmp_path / "net.pt"), "--arch", "basicnet", "--arch-args", ARGS]
    shown = []
    for columns in (200, width):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert slimnet_cli.run([*command, "--input-shape", "1,16,16"]) == 0
        shown.append(capsys.readouterr().out.partition("|γ|")[0])
    wide, narrow = shown
    assert sorted(narrow.split()) == sorted(wide.split())
    assert narrow.splitlines()[1].split() == wide.splitlines()[1].split()
    if width == 80:
        assert max(map(len, narrow.splitlines())) <= 80
