"""Where numbers were measured: without this a latency means nothing."""

import os
import platform
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

BUSY_CORES = 0.3
WATCH_SECONDS = 0.25


@dataclass(frozen=True)
class Environment:
    """The machine and the software that a measurement ran on.

    `cores` is how many the process may use; `other_work` how many of them other programs kept busy at the
    start (None where the system does not say), `instructions` the vector instructions that torch's kernels
    picked, `when` is UTC.
    """

    cpu: str
    instructions: str
    cores: int
    other_work: float | None
    os: str
    python: str
    torch: str
    onnxruntime: str
    slimnet: str
    when: str

    @property
    def busy(self) -> bool:
        """Whether other programs were taking a good part of a core, so that latencies are to be doubted."""
        return self.other_work is not None and self.other_work > BUSY_CORES

    def rows(self) -> tuple[tuple[str, str], ...]:
        """What it says, as (name, value) pairs for people."""
        other = "not known" if self.other_work is None else f"{self.other_work:.1f} cores"
        return (
            ("Processor", self.cpu),
            ("Vector instructions", self.instructions),
            ("Cores", str(self.cores)),
            ("Taken by other programs", other),
            ("System", self.os),
            ("Python", self.python),
            ("torch", self.torch),
            ("onnxruntime", self.onnxruntime),
            ("slimnet", self.slimnet),
            ("Measured", self.when),
        )


def environment() -> Environment:
    """Record the machine and the software; watches for a quarter of a second whether others are busy."""
    return Environment(
        cpu=_cpu(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        cores=usable_cores(),
        other_work=_other_work(),
        os=_system(),
        python=platform.python_version(),
        torch=torch.__version__,
        onnxruntime=installed_version("onnxruntime"),
        slimnet=installed_version("slimnet"),
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def usable_cores() -> int:
    """How many cores this process may use, which in a container can be fewer than the machine has."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def installed_version(package: str) -> str:
    """The version of an installed package, or "not installed"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    lines = _lines("/proc/cpuinfo")
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next((name for name in names if name), platform.processor() or platform.machine())


def _other_work() -> float | None:
    """Cores kept busy while this process sleeps, among those it may use."""
    before = _busy_ticks()
    if before is None:
        return None
    time.sleep(WATCH_SECONDS)
    after = _busy_ticks()
    if after is None:
        return None
    return round((after - before) / os.sysconf("SC_CLK_TCK") / WATCH_SECONDS, 1)


def _busy_ticks() -> int | None:
    """Clock ticks that the usable cores have spent working (Linux counts them since it started)."""
    if sys.platform != "linux":
        return None
    ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    rows = [line.split() for line in _lines("/proc/stat")]
    busy = [sum(map(int, row[1:4])) for row in rows if row and row[0] in ours]
    return sum(busy) if busy else None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        name = platform.system()
    return f"{name}, {platform.system()} {platform.release()} ({platform.machine()})"
