"""Values that somebody who means harm puts into a file, and JSON and TOML in which they stand."""

import json
import random
from typing import Any

CANARY = "fuzz_canary"
"""A module that must never be imported, and a word that must never reach code or the markup of a page."""


def nested(depth: int) -> str:
    """Lists in lists, as JSON."""
    return "[" * depth + "]" * depth


TEXTS = (
    "",
    " ",
    ".",
    "..",
    "/",
    "../../etc/passwd",
    "/etc/passwd",
    "/dev/zero",
    f"{CANARY}:make",
    "os:system",
    "subprocess:run",
    "builtins:exec",
    f"__import__('{CANARY}')",
    f"x=__import__('{CANARY}'), y",
    f"a\n    import {CANARY}\n",
    "timm:resnet18",
    "torchvision:resnet18",
    "torchvision:get_model",
    "timm:create_model",
    "http://127.0.0.1:9/net.pt",
    "\x1b]0;title\x07\x1b[2J\x1b[31mred",
    "\u202egnp.exe",
    "a\nerror: something else",
    "a\r\x00b",
    "\ud800",
    f"<script>{CANARY}()</script>",
    f'"><img src=x onerror={CANARY}()>',
    "{{ 7 * 7 }}{% for x in y %}",
    "[bold red]markup[/bold]",
    "%s%n{0}{a.b}",
    "'; DROP TABLE cells; --",
    "9**9**9",
    "nan",
    "x" * 100_000,
    "é" * 300,
    "features.bn1",
    "cuda:99",
    "meta",
)
NUMBERS = (0, -1, 1, 2, 12, 255, 2**15, 2**31 - 1, 2**31, 2**40, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, -0.0)
FRACTIONS = (0.5, -1.5, 1e-320, 1e308, 5e-324)
OTHERS = (None, True, False, [], {}, [[]], [None], {"": None}, [1] * 5000, {"__class__": "os.system"})
RAW = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "0x10",
    "01",
    nested(70),
    nested(100_000),
    '"\\ud800"',
    "9" * 5000,
)
"""What `json.dumps` does not write."""

HOLE = "fuzz-hole-7f3a"
Path = tuple[Any, ...]


def value(chance: random.Random, was: Any) -> Any:
    """A hostile value for the place of `was`: often of its type, so that what comes after its check is reached."""
    same: tuple[Any, ...] = ()
    if isinstance(was, str):
        same = (*TEXTS, was + "\x1b[31m", was * 1000, was.upper(), was[:-1])
    elif isinstance(was, bool):
        same = (not was,)
    elif isinstance(was, int):
        same = (*NUMBERS, was + 1, was - 1, -was, was * 1_000_000)
    elif isinstance(was, float):
        same = (*FRACTIONS, *NUMBERS, -was, was * 1e6)
    elif isinstance(was, list) and was:
        same = (was * 2, was[:-1], was[::-1], was * 300, [was], [was[0]] * len(was))
    elif isinstance(was, dict) and was:
        same = (list(was), list(was.values()), dict.fromkeys(was, was))
    if same and chance.random() < 0.7:
        return chance.choice(same)
    return chance.choice((*TEXTS, *NUMBERS, *FRACTIONS, *OTHERS))


def places(document: Any, trail: Path = ()) -> list[Path]:
    """Every place in a document, its root too."""
    found = [trail]
    if isinstance(document, dict):
        for key, inner in document.items():
            found += places(inner, (*trail, key))
    elif isinstance(document, list):
        for number, inner in enumerate(document[:50]):
            found += places(inner, (*trail, number))
    return found


def at(document: Any, trail: Path) -> Any:
    """What stands at a place."""
    for step in trail:
        document = document[step]
    return document


def spoil_document(chance: random.Random, document: Any) -> Any:
    """Change one place of a document: another value, a key less, a key more, or a key of another name."""
    trail = chance.choice(places(document))
    if not trail:
        return value(chance, document) if chance.random() < 0.3 else spoil_document(chance, [document])[0]
    holder, last = at(document, trail[:-1]), trail[-1]
    way = chance.random()
    if way < 0.7:
        holder[last] = value(chance, holder[last])
    elif way < 0.8:
        del holder[last]
        if not document:
            return [{}]
    elif isinstance(holder, dict):
        named = chance.choice(TEXTS)
        holder[named] = holder[last] if way < 0.9 else holder.pop(last)
    else:
        holder.insert(last, value(chance, holder[last]))
    return document


def spoil_json(chance: random.Random, content: bytes) -> bytes:
    """JSON text with one to three places changed; sometimes with what no writer of JSON writes, or a key twice."""
    document = [json.loads(content)]
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        changed = spoil_document(chance, document)
        # The root itself may have become something else.
        document = changed if isinstance(changed, list) else [changed]
    way = chance.random()
    if way < 0.75 or not document:
        return _text(document[0] if document else None)
    raw = chance.choice(RAW)
    trails = [trail for trail in places(document) if trail]
    trail = chance.choice(trails)
    was = at(document, trail)
    if way < 0.9 or not isinstance(was, dict) or not was:
        at(document, trail[:-1])[trail[-1]] = HOLE
        return _text(document[0]).replace(f'"{HOLE}"'.encode(), raw.encode())
    twice = json.dumps(was)[:-1] + f", {json.dumps(next(iter(was)))}: {raw}}}"
    at(document, trail[:-1])[trail[-1]] = HOLE
    return _text(document[0]).replace(f'"{HOLE}"'.encode(), twice.encode())


def spoil_lines(chance: random.Random, content: bytes) -> bytes:
    """Lines of JSON with one of them spoilt, twice there, or gone."""
    lines = content.splitlines(keepends=True)
    number = chance.randrange(len(lines))
    way = chance.random()
    if way < 0.8:
        lines[number] = spoil_json(chance, lines[number]).replace(b"\n", b" ") + b"\n"
    elif way < 0.9:
        lines.insert(number, lines[number])
    else:
        del lines[number]
    return b"".join(lines)


def spoil_toml(chance: random.Random, content: bytes) -> bytes:
    """TOML text with a value or a key replaced, and sometimes tables nested, dates or numbers that JSON has not."""
    lines = content.decode().splitlines()
    numbers = [number for number, line in enumerate(lines) if "=" in line]
    number = chance.choice(numbers)
    key, _, was = lines[number].partition("=")
    written = json.dumps(value(chance, was.strip())).replace("null", '""')
    written = written if not written.startswith("{") else "{a = 1}"
    raw = ("inf", "-nan", "1979-05-27T07:32:00Z", "07:32:00", "0xff", "1_000", nested(50_000), "[" + "1," * 5000 + "]")
    way = chance.random()
    if way < 0.5:
        lines[number] = f"{key} = {written}"
    elif way < 0.7:
        lines[number] = f"{key} = {chance.choice(raw)}"
    elif way < 0.85:
        lines[number] = f"{json.dumps(chance.choice(TEXTS))} ={was}"
    else:
        lines.insert(number, chance.choice((lines[number], "[a]", "[[base]]", "[grid.l2]", "a." * 2000 + "b = 1")))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _text(document: Any) -> bytes:
    return json.dumps(document, indent=1).encode()
