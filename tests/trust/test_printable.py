"""A name from a file reaches nobody's terminal or page but as letters: errors, tables, notes, pages, drawings."""

import io
import json
from xml.etree import ElementTree

import pytest
import slimnet_cli
from rich.text import Text
from slimnet_cli.output import phases, terminal
from slimnet_cli.output.phases import Phase, progress_of

from slimnet.errors import SlimnetError, UsageError
from slimnet.methods.iterative_pruning import Rung
from slimnet.printable import LONGEST, message, printable
from slimnet.report.drawing.numbers import Numbers
from slimnet.report.drawing.svg import drawing
from slimnet.report.methods.iterative_page import render_ladder
from slimnet.reproduction.markdown import escaped

EVIL = "a\x1b]0;title\x07b\x1b[2J\u202ec\u2028|d<script>[red]e[/blue]\x9b\x00\ud800"
ACTING = ("\x1b", "\x07", "\x9b", "\u202e", "\u2028", "\x00", "\ud800")


def is_harmless(text: str) -> bool:
    return not any(sign in text for sign in ACTING)


def test_what_acts_on_a_terminal_is_shown_as_its_escape():
    """Oracle: `str.isprintable`, and Python's own escapes."""
    assert printable(EVIL).isprintable()
    assert "\\x1b]0;title\\x07b" in printable(EVIL)
    assert "\\u202e" in printable(EVIL)
    assert "\\ud800" in printable(EVIL)
    assert printable("層\u202f3\u00a0é|γ|") == "層\u202f3\u00a0é|γ|"
    assert printable("a\nb\tc", kept="\n") == "a\nb\\tc"


@pytest.mark.parametrize("kind", [SlimnetError, UsageError])
def test_every_error_is_one_printable_line_of_bounded_length(kind):
    assert str(kind(f"  {EVIL}\r\n  it is wrong\n; rename it")).isprintable()
    assert str(kind("a  \n\n b")) == "a b"
    long = str(kind("x" * 10**6 + "; rename it"))
    assert len(long) <= LONGEST
    assert long.endswith("; rename it")
    assert str(kind()) == ""
    assert message("a  b") == "a  b"


class Terminal(io.StringIO):
    """Claims to be one."""

    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch, show) -> str:
    """What `show` writes to a terminal, without the escapes that rich itself writes."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.stdout", out := Terminal())
    monkeypatch.setattr("sys.stderr", err := Terminal())
    show()
    return Text.from_ansi(out.getvalue() + err.getvalue()).plain


def in_progress() -> None:
    with terminal.working(EVIL) as say:
        say(EVIL)
    with terminal.progress(EVIL, 3) as advance:
        advance(1, EVIL)
    with terminal.board(EVIL, 3) as board:
        board.show(1, [EVIL])
        board.say(EVIL)
    with progress_of(EVIL, [Phase(EVIL), Phase(EVIL)]) as phased:
        phased.at(1, 0.5, EVIL)


SHOWN = {
    "text": lambda: terminal.result().print(EVIL, soft_wrap=True),
    "styled": lambda: terminal.result().print(Text(EVIL, style="bold"), style="dim"),
    "table": lambda: terminal.result().print(terminal.table((EVIL, "x"), [(EVIL, Text(EVIL))])),
    "note": lambda: terminal.note(EVIL),
    "failure": lambda: terminal.failed(EVIL),
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_nothing_that_is_shown_acts_on_the_terminal_or_is_read_as_markup(monkeypatch, show):
    text = on_terminal(monkeypatch, show)
    assert is_harmless(text)
    assert "[red]" in text
    assert "\\x1b]0;title" in text


def test_what_is_shown_while_something_is_done_is_harmless_too(monkeypatch):
    """rich moves the cursor here itself, so only what it never writes is looked for."""
    monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setattr(phases, "FIRST_LINE", 0)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr("sys.stderr", stream)
        in_progress()
        shown = stream.getvalue()
        assert "]0;title" in shown
        assert "\x1b]0;" not in shown
        assert "[red]" in shown
        assert not any(sign in shown for sign in ACTING[1:])


def test_json_on_stdout_is_ascii(capsys):
    terminal.emit({EVIL: [EVIL]})
    text = capsys.readouterr().out
    assert text.isascii()
    assert is_harmless(text)
    assert json.loads(text) == {EVIL: [EVIL]}


def test_a_page_holds_every_value_escaped_and_printable():
    page = render_ladder(EVIL, [Rung("dense", 10, 100, accuracy=0.9, images=5), Rung(EVIL, note=EVIL)])
    assert is_harmless(page)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_a_drawing_is_xml_whatever_it_says():
    def draw(figure, _):
        figure.text(0.5, 0.5, EVIL.replace("\ud800", ""))

    drawn = drawing("evil", EVIL, lambda _: 50, draw, Numbers.of((EVIL,), [(EVIL,)]))
    assert is_harmless(drawn.numbers.rows[0][0])
    for svg in (drawn.wide, drawn.narrow):
        assert is_harmless(svg)
        assert "<script" not in svg
        root = ElementTree.fromstring(svg)
        assert any("\\x1b]0;title" in (each.text or "") for each in root.iter())


def test_a_cell_of_markdown_ends_where_it_should():
    assert escaped("a|b\n<script>\\") == "a\\|b\\\\n&lt;script>\\\\"
    assert is_harmless(escaped(EVIL))


def test_a_file_of_an_evil_name_is_named_harmlessly(capsys, tmp_path):
    path = tmp_path / "a\x1b]0;b\x07.json"
    path.write_text("[1]")
    assert slimnet_cli.run(["report", str(path)]) == 2
    printed = capsys.readouterr().err
    assert is_harmless(printed)
    assert printed.count("\n") == 1
