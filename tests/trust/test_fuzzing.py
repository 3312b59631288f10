"""A sample of the fuzzer's mutations; `make fuzz` runs ten thousand."""

import ast
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzzing import guard as guarding
from fuzzing import worker
from fuzzing.mutation import Mutation
from fuzzing.readers import READERS
from fuzzing.specimens import SPECIMENS, make_specimens

SAMPLE = {
    "npz": 150,
    "benchmark": 40,
    "images": 80,
    "checkpoint": 12,
    "recipe": 3,
    "run": 2,
    "sweep": 2,
    "ladder": 2,
    "comparison": 1,
    "paper": 1,
    "bundle": 5,
    "nameless": 2,
}
"""How many of each kind: what trains, slims or verifies takes a hundred times as long as what reads a file."""


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Watch this process; Python keeps a hook, so it is installed once."""
    if not getattr(worker, "watched", False):
        sys.addaudithook(worker.guard)
        worker.watched = True
    worker.guard.clear()
    yield


@pytest.fixture(scope="module")
def reading(tmp_path_factory, operators_read_once) -> worker.Reading:
    """Where mutations of all kinds are read."""
    return worker.Reading(tmp_path_factory.mktemp("specimens"), tmp_path_factory.mktemp("fuzzing"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SAMPLE)
def test_nothing_that_is_spoilt_runs_raises_writes_or_hangs(kind, reading):
    """The same every time; three hundred of all kinds."""
    reading.make_specimen(kind)
    with watched():
        answers = [reading.answer(Mutation(7, number, kind)) for number in range(SAMPLE[kind])]
    assert [Mutation(7, each["number"], kind).replay + f": {each['wrong']}" for each in answers if each["wrong"]] == []


def test_every_kind_is_in_the_sample():
    assert SAMPLE.keys() == READERS.keys() == SPECIMENS.keys()
    assert sum(SAMPLE.values()) == 300


@pytest.mark.filterwarnings("ignore")
def test_a_mutation_is_the_same_when_it_is_made_again(reading, tmp_path):
    """Which is what replaying rests on; another number spoils otherwise."""
    reading.make_specimen("npz")
    contents = []
    for number in (3, 3, 4):
        folder = tmp_path / str(len(contents))
        Mutation(7, number, "npz").make(reading.specimens, folder)
        contents.append((folder / "data.npz").read_bytes())
    assert contents[0] == contents[1] != contents[2]


HARM = {
    "traceback": "raise KeyError('x')",
    "executed": "import subprocess; subprocess.Popen(['true']).wait()",
    "slow": "while True: pass",
    "memory": "bytes(4 << 30)",
    "written": "open(folder.parent.parent / 'sentinel' / 'net.pt', 'a').close()",
    "left": "import tempfile; tempfile.mkdtemp()",
    "markup": "(folder / 'page.html').write_text('<script>fuzz_canary()</script>')",
}


@pytest.mark.parametrize("what", HARM)
def test_the_fuzzer_sees_harm(what, monkeypatch, tmp_path):
    """Each kind of harm done by a reader of its own; without this it might find nothing because it sees nothing."""
    monkeypatch.setattr(worker, "SECONDS", 0.2)
    monkeypatch.setitem(READERS, "benchmark", (lambda folder, file: exec(HARM[what], {"folder": folder}),))
    make_specimens(tmp_path / "specimens", ("benchmark",))
    with watched():
        answer = worker.Reading(tmp_path / "specimens", tmp_path / "scratch").answer(Mutation(0, 0, "benchmark"))
    assert str(answer["wrong"]).startswith(f"{what}: ")


@pytest.mark.parametrize("change", ["write", "remove", "add"])
def test_the_tree_beside_shows_what_python_does_not(change, tmp_path):
    """Files that compiled code opens raise no event."""
    place: Path = guarding.make_sentinel(tmp_path / "sentinel")
    before = guarding.tree(place)
    assert guarding.difference(before, guarding.tree(place)) is None
    file = place / "inner" / "recipe.json"
    if change == "write":
        file.write_text("other")
    elif change == "remove":
        file.unlink()
    else:
        file = place / "inner" / "empty" / "new"
        file.touch()
    # The folder that a file was made in or removed from has changed as well.
    assert guarding.difference(before, guarding.tree(place)) in (str(file), str(file.parent))


def test_code_that_is_compiled_is_seen_and_data_that_are_parsed_are_none():
    """`ast.literal_eval` compiles to a syntax tree, of which nothing can run."""
    text = "__import__('fuzz_canary')"
    with watched():
        with pytest.raises(ValueError, match="malformed"):
            ast.literal_eval(text)
        assert worker.guard.executed == []
        compile(text, "net", "eval")
        assert worker.guard.executed[0].startswith("compile ")
