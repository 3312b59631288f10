"""Real processes for tests: forked from one that has imported torch already, or started as people start them."""

import multiprocessing
import os
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TextIO

PRELOADED = ["torch._dynamo", "slimnet.training.run.resumable_run", "slimnet.data.digits"]
"""What the children would each take seconds to import; DistributedDataParallel wants torch._dynamo."""

LONGEST_WAIT = 600.0
"""Seconds after which a process that a test waits for is taken to hang; a busy machine may need a hundred."""


def forkserver() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def read_to_progress(lines: TextIO | None) -> str:
    """Read what a training process prints up to its next line of progress, and return that line."""
    assert lines is not None
    found = next((line for line in lines if line.startswith("Training: ")), None)
    assert found is not None, "it ended before it showed any progress"
    return found


def below(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    try:
        # Each thread has children of its own.
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    children = " ".join(lists).split()
    return [each for child in map(int, children) for each in (child, *below(child))]


def runs(pid: int) -> bool:
    """Whether a process is at work; one that has ended and that nobody has asked about is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def environment_of(pid: int) -> dict[str, str]:
    """What the environment of a process was when it started."""
    try:
        entries = os.fsdecode(Path(f"/proc/{pid}/environ").read_bytes()).split("\0")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)
