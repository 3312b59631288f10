"""The environment of a measurement, without which a latency has no meaning."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from slimnet.benchmark.load import BUSY_CORES, other_work
from slimnet.benchmark.runtimes.table import installed_versions
from slimnet.storage.field_types import Amount, Count
from slimnet.version import installed_version

STORED_BY_NAME = ("torch", "onnxruntime")
"""The packages with a separate field, in records from before there were further runtimes."""


@dataclass(frozen=True)
class Environment:
    """The machine and the software of a measurement.

    `cores` is the number that the process may use; `other_work` the number of them that other programs kept busy at
    the start (None if the system does not report it), `instructions` the vector instructions of torch's kernels, `when`
    is in UTC. `clock` is the processor's clock; `gpu` and `driver` describe the GPU; each is empty if it is not known
    or was not used. `torch` and `onnxruntime` are versions, `runtimes` those of further packages by name, as they are
    stored; `software` has all of them.
    """

    cpu: str
    instructions: str
    cores: Count
    other_work: Amount | None
    os: str
    python: str
    torch: str
    onnxruntime: str
    slimnet: str
    when: str
    clock: str = ""
    gpu: str = ""
    driver: str = ""
    runtimes: Mapping[str, str] = field(default_factory=dict)

    @property
    def software(self) -> dict[str, str]:
        """The versions of all packages that ran networks, by name."""
        return {**{name: getattr(self, name) for name in STORED_BY_NAME}, **self.runtimes}

    @property
    def busy(self) -> bool:
        """Whether other programs used a large part of a core, which makes latencies unreliable."""
        return self.other_work is not None and self.other_work > BUSY_CORES

    def rows(self) -> tuple[tuple[str, str], ...]:
        """Its content as (name, value) pairs for display."""
        other = "not known" if self.other_work is None else f"{self.other_work:.1f} cores"
        gpu = (("GPU", self.gpu), ("GPU's driver and clocks", self.driver))
        return (
            ("Processor", self.cpu),
            *((name, value) for name, value in (("Clock", self.clock), *gpu) if value),
            ("Vector instructions", self.instructions),
            ("Cores", str(self.cores)),
            ("Taken by other programs", other),
            ("System", self.os),
            ("Python", self.python),
            *self.software.items(),
            ("slimnet", self.slimnet),
            ("Measured", self.when),
        )


def environment(devices: Sequence[str] = ("cpu",)) -> Environment:
    """Record the machine and the software; takes a quarter of a second to measure the load of other programs.

    The GPU is recorded if it is among the `devices`.
    """
    gpu = next((device for device in devices if device.startswith("cuda")), None)
    software = dict(installed_versions())
    return Environment(
        cpu=processor(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        cores=usable_cores(),
        other_work=other_work(),
        os=_system(),
        python=platform.python_version(),
        torch=software.pop("torch"),
        onnxruntime=software.pop("onnxruntime"),
        slimnet=installed_version("slimnet"),
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        clock=_clock(),
        gpu="" if gpu is None else _gpu(gpu),
        driver="" if gpu is None else _driver(gpu),
        runtimes=software,
    )


def usable_cores() -> int:
    """The number of cores that this process may use, which in a container can be fewer than the machine has."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The name of the CPU."""
    lines = _lines("/proc/cpuinfo")
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next((name for name in names if name), platform.processor() or platform.machine())


def _clock() -> str:
    """The current clock of the processor, and its governor, if Linux reports them."""
    lines = _lines("/proc/cpuinfo")
    speeds = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    governor = _lines("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")[:1]
    return ", ".join([f"{max(speeds):.0f} MHz"] * bool(speeds) + [f"governor {each}" for each in governor])


def _gpu(device: str) -> str:
    """The GPU's name and memory, and the versions of CUDA and cuDNN that torch was built for."""
    properties = torch.cuda.get_device_properties(device)
    memory = f"{properties.total_memory / 2**30:.0f} GiB"
    return f"{properties.name}, {memory}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"


def _driver(device: str) -> str:
    """The driver's version and the GPU's clocks, from nvidia-smi if it exists."""
    asked = "--query-gpu=driver_version,clocks.sm,clocks.max.sm,clocks.mem"
    identity = torch.cuda.get_device_properties(device).uuid
    try:
        output = subprocess.run(
            ["nvidia-smi", f"--id=GPU-{identity}", asked, "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return _described_driver(output)


def _described_driver(output: str) -> str:
    """The output of nvidia-smi in words."""
    parts = [part.strip() for part in output.strip().partition("\n")[0].split(",")]
    if len(parts) != 4:
        return ""
    driver, now, most, memory = parts
    return f"driver {driver}, {now} of at most {most}, memory {memory}"


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
