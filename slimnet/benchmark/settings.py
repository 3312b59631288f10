"""Settings of a measurement, and the runtimes on which all contenders can be measured with them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from slimnet.benchmark.contender import Cell, Contender
from slimnet.benchmark.environment import usable_cores
from slimnet.benchmark.runtimes import table
from slimnet.benchmark.runtimes.runtime import Runtime
from slimnet.benchmark.runtimes.table import find_runtime
from slimnet.errors import UsageError

ALL = "all"


@dataclass(frozen=True)
class Settings:
    """The settings: batch sizes, threads, and seconds for each cell of device, runtime, threads and batch size.

    `threads` is one number, or several to be measured; a GPU is measured with the largest only. `runtimes` are names of
    runtimes, or "all" for every available one; if empty, all that are quick to prepare. With `layers` the time of
    every layer is measured too.

    Raises:
        UsageError: a setting is not valid.
    """

    batches: tuple[int, ...] = (1, 32)
    threads: int | tuple[int, ...] = field(default_factory=usable_cores)
    seconds: float = 4.0
    devices: tuple[str, ...] = ("cpu",)
    runtimes: tuple[str, ...] = ()
    layers: bool = False

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1:
            raise UsageError(f"batch sizes {list(self.batches)} are not all positive; pass for example 1,32")
        if not self.thread_counts or min(self.thread_counts) < 1:
            raise UsageError(f"threads is {self.threads}; it must be at least 1")
        if not self.seconds > 0:
            raise UsageError(f"seconds is {self.seconds}; the time must be positive")
        for name in self.runtimes:
            if name != ALL:
                find_runtime(name)
        if not self.devices:
            raise UsageError("no device to measure on; pass cpu, cuda or both")
        for device in self.devices:
            _check_device(device)

    @property
    def thread_counts(self) -> tuple[int, ...]:
        """Every number of threads that is measured."""
        return (self.threads,) if isinstance(self.threads, int) else self.threads


def cells(contenders: Sequence[Contender], settings: Settings) -> tuple[Cell, ...]:
    """Every setting in which all contenders are timed.

    Raises:
        UsageError: a requested runtime or device cannot run them.
    """
    able = {device: runtimes_on(device, contenders, settings) for device in settings.devices}
    _check_all_found(contenders, settings, {name for runtimes in able.values() for name in runtimes})
    for device, runtimes in able.items():
        if not runtimes:
            other = f"--runtime {table.RUNTIMES[0].name}"
            raise UsageError(f"no requested runtime runs on {device}; pass {other} or another device")
    return tuple(
        Cell(device, runtime, threads, batch)
        for device, runtimes in able.items()
        for runtime in runtimes
        for threads in (settings.thread_counts if device == "cpu" else (max(settings.thread_counts),))
        for batch in settings.batches
    )


def runtimes_on(device: str, contenders: Sequence[Contender], settings: Settings) -> tuple[str, ...]:
    """The requested runtimes that can run every contender on a device."""
    _able(contenders)
    return tuple(each.name for each in requested(settings) if _runs_all(each, contenders, device))


def requested(settings: Settings) -> tuple[Runtime, ...]:
    """The runtimes that the settings request, whether or not they are available."""
    if ALL in settings.runtimes:
        return table.RUNTIMES
    if not settings.runtimes:
        return tuple(each for each in table.RUNTIMES if not each.on_request)
    return tuple(each for each in table.RUNTIMES if each.name in settings.runtimes)


def shared_runtimes(contenders: Sequence[Contender]) -> tuple[str, ...]:
    """The runtimes that can run every contender on the CPU, without variants of others and those on request only.

    Raises:
        UsageError: there is none, or there are fewer than two contenders.
    """
    able = [each for each in _able(contenders) if not each.on_request]
    return tuple(each.name for each in able if _runs_all(each, contenders, "cpu"))


def left_out(contenders: Sequence[Contender], settings: Settings) -> tuple[str, ...]:
    """Why requested runtimes that run here are left out: each has an objection to a contender, stated in one line."""
    found = [each for each in requested(settings) if _has_forms(each, contenders)]
    running = [each for each in found if any(each.obstacle(device) is None for device in settings.devices)]
    return tuple(filter(None, (_objection(each, contenders) for each in running)))


def _able(contenders: Sequence[Contender]) -> list[Runtime]:
    """The runtimes, without variants of others, of which every contender has the form.

    Raises:
        UsageError: there is none, or there are fewer than two contenders.
    """
    if len(contenders) < 2:
        raise UsageError(f"{len(contenders)} network given, nothing to compare it with; pass at least two")
    found = [each for each in table.RUNTIMES if not each.is_variant and _has_forms(each, contenders)]
    if not found:
        names = ", ".join(contender.name for contender in contenders)
        raise UsageError(f"no runtime can run all of {names}: pass all as .onnx files, or all as modules")
    return found


def _has_forms(runtime: Runtime, contenders: Sequence[Contender]) -> bool:
    return all(map(runtime.takes, contenders))


def _runs_all(runtime: Runtime, contenders: Sequence[Contender], device: str) -> bool:
    runs = _has_forms(runtime, contenders) and runtime.obstacle(device) is None
    return runs and _objection(runtime, contenders) is None


def _objection(runtime: Runtime, contenders: Sequence[Contender]) -> str | None:
    """The first objection of a runtime to a contender."""
    return next(filter(None, map(runtime.objection, contenders)), None)


def _check_all_found(contenders: Sequence[Contender], settings: Settings, able: set[str]) -> None:
    """Refuse a runtime that was requested by name and runs on no device."""
    for name in settings.runtimes:
        if name != ALL and name not in able:
            raise UsageError(_why_not(find_runtime(name), settings.devices[0], contenders))


def _check_device(name: str) -> None:
    if name == "cpu":
        return
    kind, _, index = name.partition(":")
    if kind != "cuda" or (index and not index.isdecimal()):
        raise UsageError(f"cannot measure on {name!r}; the devices are cpu, cuda and cuda:N")
    if not torch.cuda.is_available():
        raise UsageError(f"there is no {name} here: torch {torch.__version__} finds no GPU; measure on cpu")
    if index and int(index) >= torch.cuda.device_count():
        raise UsageError(f"there is no {name} here, only {torch.cuda.device_count()} GPUs; measure on cuda:0")


def _why_not(runtime: Runtime, device: str, contenders: Sequence[Contender]) -> str:
    """Why a requested runtime cannot run, and the remedy."""
    lacking = next((each for each in contenders if not runtime.takes(each)), None)
    if lacking is None:
        obstacle = runtime.obstacle(device)
        why = _objection(runtime, contenders) if obstacle is None else None
        return obstacle or f"{why or f'{runtime.name} does not run on {device}'}; leave {runtime.name} out"
    if runtime.needs == "onnx":
        return f"{lacking.name} has no ONNX file, which {runtime.name} needs; export it, or leave {runtime.name} out"
    able = [each.name for each in table.RUNTIMES if each.takes(lacking) and not each.obstacle(device)]
    kind = "an ONNX file alone" if lacking.onnx else "a file for OpenVINO alone"
    others = " or ".join(able) or "another"
    return f"{lacking.name} is {kind}, which {runtime.name} does not run; ask for {others}"
