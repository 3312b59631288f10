"""Contenders, settings of a measurement, and the runtimes that can run all contenders."""

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnxruntime
import torch
from torch import nn

from slimnet.benchmark.counts import Counts, count_module, count_onnx
from slimnet.benchmark.environment import usable_cores
from slimnet.errors import UsageError, nearest_name
from slimnet.export.onnx import export_onnx
from slimnet.modules.example_inputs import ExampleInputs, Inputs

TORCH, COMPILED, GRAPH, ONNX = "torch", "torch.compile", "torch.graph", "onnxruntime"
RUNTIMES = (TORCH, COMPILED, GRAPH, ONNX)
"""torch as it comes, compiled, and replayed from a CUDA graph; onnxruntime."""
ALL = "all"
CUDA_PROVIDER = "CUDAExecutionProvider"


@dataclass(frozen=True)
class Contender:
    """A network to be measured: as a module (for torch), as an ONNX file (for onnxruntime), or both.

    `files` are files on disk whose sizes are compared, by kind ("safetensors", "onnx", ...).
    """

    name: str
    model: nn.Module | None = None
    onnx: Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict)


Models = Sequence[Contender] | Mapping[str, nn.Module | Path | str]
"""Contenders, or modules and ONNX files by name."""


@dataclass(frozen=True)
class Settings:
    """How to measure: batch sizes, threads, and seconds for each cell of device, runtime, threads and batch size.

    `threads` is one number, or several to be measured in turn; a GPU is measured with the largest alone. `runtimes`
    are some of `RUNTIMES`, or "all" for each that is there; when empty, all but the slow `torch.compile`. With
    `layers` the time of every layer is measured as well.

    Raises:
        UsageError: nothing can be measured so.
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
            raise UsageError(f"{self.threads} threads cannot measure; pass for example 1")
        if not self.seconds > 0:
            raise UsageError(f"{self.seconds} seconds cannot measure; the time must be positive")
        for name in self.runtimes:
            _check_runtime(name)
        if not self.devices:
            raise UsageError("no device to measure on; pass cpu, cuda or both")
        for device in self.devices:
            _check_device(device)

    @property
    def thread_counts(self) -> tuple[int, ...]:
        """Every number of threads that is measured."""
        return (self.threads,) if isinstance(self.threads, int) else self.threads


@dataclass(frozen=True)
class Cell:
    """The setting in which one latency is measured."""

    device: str
    runtime: str
    threads: int
    batch: int


def contenders_of(models: Models) -> list[Contender]:
    """Contenders, at least two.

    Raises:
        UsageError: fewer than two, or something that is no network.
    """
    if isinstance(models, Mapping):
        found = [_contender(name, source) for name, source in models.items()]
    else:
        found = list(models)
    if len(found) < 2:
        raise UsageError(f"{len(found)} network given, nothing to compare it with; pass at least two")
    return found


def _contender(name: str, source: nn.Module | Path | str) -> Contender:
    if isinstance(source, nn.Module):
        return Contender(name, source)
    if isinstance(source, str | Path):
        return Contender(name, None, Path(source), {"onnx": Path(source)})
    raise UsageError(f"{name} is a {type(source).__name__}; pass a module or the path of an ONNX file")


def cells(contenders: Sequence[Contender], settings: Settings) -> tuple[Cell, ...]:
    """Every setting in which all contenders are timed.

    Raises:
        UsageError: a runtime or device that was asked for cannot run them.
    """
    able = {device: runtimes_on(device, contenders, settings) for device in settings.devices}
    for name in settings.runtimes:
        if name != ALL and not any(name in runtimes for runtimes in able.values()):
            raise UsageError(_why_not(name, settings.devices[0], contenders))
    for device, runtimes in able.items():
        if not runtimes:
            raise UsageError(f"nothing that was asked for runs on {device}; ask for --runtime torch or another device")
    return tuple(
        Cell(device, runtime, threads, batch)
        for device, runtimes in able.items()
        for runtime in runtimes
        for threads in (settings.thread_counts if device == "cpu" else (max(settings.thread_counts),))
        for batch in settings.batches
    )


def runtimes_on(device: str, contenders: Sequence[Contender], settings: Settings) -> tuple[str, ...]:
    """The requested runtimes that can run every contender on a device."""
    asked = settings.runtimes or tuple(name for name in RUNTIMES if name != COMPILED)
    if ALL in asked:
        asked = RUNTIMES
    shared = shared_runtimes(contenders)
    torch_there = TORCH in shared
    able = {
        TORCH: torch_there,
        COMPILED: torch_there,
        GRAPH: torch_there and device != "cpu",
        ONNX: ONNX in shared and (device == "cpu" or CUDA_PROVIDER in onnxruntime.get_available_providers()),
    }
    return tuple(name for name in RUNTIMES if name in asked and able[name])


def shared_runtimes(contenders: Sequence[Contender]) -> tuple[str, ...]:
    """Which of torch and onnxruntime can run every contender.

    Raises:
        UsageError: there is none, or there is nothing to compare.
    """
    if len(contenders) < 2:
        raise UsageError(f"{len(contenders)} network given, nothing to compare it with; pass at least two")
    has_model = all(contender.model is not None for contender in contenders)
    has_onnx = all(contender.onnx is not None for contender in contenders)
    runtimes = tuple(name for name, has in ((TORCH, has_model), (ONNX, has_onnx)) if has)
    if not runtimes:
        names = ", ".join(contender.name for contender in contenders)
        raise UsageError(f"no runtime can run all of {names}: pass all as .onnx files, or all as modules")
    return runtimes


def count(contenders: Sequence[Contender], example: ExampleInputs | Inputs) -> tuple[Counts, ...]:
    """Parameters, MACs and file sizes of every contender, all counted in the same way."""
    if all(contender.model is not None for contender in contenders):
        on_cpu = Inputs.of(example).map(lambda tensor: tensor.cpu())
        return tuple(
            count_module(contender.name, copy.deepcopy(contender.model).eval().cpu(), on_cpu, contender.files)
            for contender in contenders
            if contender.model is not None
        )
    return tuple(
        count_onnx(contender.name, contender.onnx, contender.files)
        for contender in contenders
        if contender.onnx is not None
    )


def with_onnx(contender: Contender, example: ExampleInputs | Inputs, folder: Path) -> Contender:
    """The contender with an ONNX file, exported into `folder` where it has none."""
    if contender.onnx is not None or contender.model is None:
        return contender
    # In a folder of its own: a name need not be fit for a file, and two may have the same.
    path = export_onnx(contender.model, example, Path(tempfile.mkdtemp(dir=folder)) / "model.onnx").path
    return replace(contender, onnx=path, files={**contender.files, "onnx": path})


def _check_runtime(name: str) -> None:
    if name in RUNTIMES or name == ALL:
        return
    raise UsageError(f"there is no runtime {name!r}; {nearest_name(name, RUNTIMES)}")


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


def _why_not(runtime: str, device: str, contenders: Sequence[Contender]) -> str:
    """Why a requested runtime cannot run."""
    shared = shared_runtimes(contenders)
    if runtime == ONNX and ONNX in shared:
        return f"onnxruntime has no {CUDA_PROVIDER} here, which {device} needs; install onnxruntime-gpu"
    if runtime == ONNX:
        lacking = next(each.name for each in contenders if each.onnx is None)
        return f"{lacking} has no ONNX file, which onnxruntime needs; export it, or leave onnxruntime out"
    if TORCH not in shared:
        lacking = next(each.name for each in contenders if each.model is None)
        return f"{lacking} is an ONNX file alone, which {runtime} does not run; ask for onnxruntime"
    return f"{runtime} replays CUDA graphs, which {device} has not; measure on cuda, or leave it out"
