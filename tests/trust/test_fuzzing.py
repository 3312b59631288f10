"""A sample of the fuzzer's mutations; `make fuzz` runs ten thousand."""

import sys

import pytest
from fuzzing import worker
from fuzzing.__main__ import fuzz
from fuzzing.readers import READERS


@pytest.mark.filterwarnings("ignore")
def test_nothing_that_is_spoilt_runs_raises_or_hangs(tmp_path):
    """In a process of its own, which is watched and bounded; the same hundred every time."""
    found = fuzz(iter(range(100)), tmp_path, seed=7)
    assert len(found) == 100
    assert [each for each in found if each["wrong"]] == []
    assert {each["kind"] for each in found} == set(READERS)


HARM = {
    "traceback": "raise KeyError('x')",
    "executed": "import subprocess; subprocess.Popen(['true']).wait()",
    "slow": "while True: pass",
    "memory": "bytes(4 << 30)",
}


@pytest.mark.parametrize("what", HARM)
def test_the_fuzzer_sees_harm(what, monkeypatch, tmp_path):
    """Each kind of harm done by a reader of its own; without this it might find nothing because it sees nothing."""
    if what == "executed":
        sys.addaudithook(worker.watch)
    monkeypatch.setattr(worker, "SECONDS", 0.2)
    monkeypatch.setitem(READERS, "benchmark", (lambda folder, file: exec(HARM[what], {}),))
    assert str(worker.verdict("benchmark", tmp_path, tmp_path / "x")).startswith(f"{what}: ")
