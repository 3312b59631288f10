"""Dense against slim, side by side: size, multiply-accumulates, latency on every runtime both can use."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from slimnet.benchmark.counts import Counts, batched, count_module, count_onnx, read_onnx
from slimnet.benchmark.environment import Environment, environment, usable_cores
from slimnet.benchmark.latency import Latency, Run, interleave
from slimnet.errors import UsageError
from slimnet.export import export_onnx
from slimnet.inputs import ExampleInputs, Inputs, tensors_in
from slimnet.models.architecture import reason
from slimnet.threads import torch_threads

RUNTIMES = ("torch", "onnxruntime")
SPIN_ONLY_WHILE_RUNNING = ("session.force_spinning_stop", "1")


@dataclass(frozen=True)
class Contender:
    """A network to be measured: as a module (for torch), as an ONNX file (for onnxruntime), or both.

    `files` are files on disk whose sizes are compared, by kind ("safetensors", "onnx", ...).
    """

    name: str
    model: nn.Module | None = None
    onnx: Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """How to measure: batch sizes, threads, and seconds for each pair of runtime and batch size."""

    batches: tuple[int, ...] = (1, 32)
    threads: int = field(default_factory=usable_cores)
    seconds: float = 4.0

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1:
            raise UsageError(f"batch sizes {list(self.batches)} are not all positive; pass for example 1,32")
        if self.threads < 1 or not self.seconds > 0:
            raise UsageError(f"{self.threads} threads for {self.seconds} s cannot measure; both must be positive")


@dataclass(frozen=True)
class Comparison:
    """What was measured, and where; the first contender is the one the others are compared with."""

    counts: tuple[Counts, ...]
    latencies: tuple[Latency, ...]
    environment: Environment

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, raw samples included, with the medians and speed-ups beside them."""
        document = asdict(self)
        for row, latency in zip(document["latencies"], self.latencies, strict=True):
            contenders = range(len(latency.names))
            row["median_ms"] = [latency.median_ms(contender) for contender in contenders]
            row["speedup"] = [asdict(latency.speedup(contender)) for contender in contenders]
        return document

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=1)


def compare(
    contenders: Sequence[Contender], example: ExampleInputs | Inputs, settings: Settings | None = None
) -> Comparison:
    """Measure contenders against the first of them.

    Raises:
        UsageError: no runtime can run them all, or fewer than two were given.
    """
    settings = settings or Settings()
    where = environment()
    latencies = tuple(measure(contenders, example, settings))
    return Comparison(count(contenders, example), latencies, where)


def measure(contenders: Sequence[Contender], example: ExampleInputs | Inputs, settings: Settings) -> Iterator[Latency]:
    """Yield the latency on each runtime at each batch size as soon as it is measured.

    Modules are copied and put into eval mode; the ones given stay as they are. torch's thread count is
    restored.
    """
    runtimes = shared_runtimes(contenders)
    models = [copy.deepcopy(contender.model).eval() for contender in contenders if contender.model is not None]
    names = tuple(contender.name for contender in contenders)
    for runtime in runtimes:
        for batch in settings.batches:
            inputs = batched(example, batch)
            with torch_threads(settings.threads), torch.inference_mode():
                if runtime == "torch":
                    runs = [_torch_run(model, inputs) for model in models]
                else:
                    runs = [_onnx_run(contender, inputs, settings.threads) for contender in contenders]
                _check_alike(contenders, runs, inputs)
                samples = interleave(runs, settings.seconds)
            yield Latency(runtime, batch, settings.threads, names, tuple(map(tuple, samples.tolist())))


def _check_alike(contenders: Sequence[Contender], runs: Sequence[Run], inputs: Inputs) -> None:
    """Run every contender once, and refuse those that cannot be compared.

    Raises:
        UsageError: one does not run on these inputs, or returns other shapes than the first.
    """
    given = ", ".join(str(tuple(tensor.shape)) for tensor in inputs.tensors)
    shapes = []
    for contender, run in zip(contenders, runs, strict=True):
        try:
            shapes.append(_shapes(run()))
        except Exception as error:  # whatever the runtimes raise, which have no type in common
            raise UsageError(f"{contender.name} does not run on inputs of {given}: {reason(error)}") from error
        if shapes[-1] != shapes[0]:
            raise UsageError(
                f"{contender.name} returns {shapes[-1]} for inputs of {given}, but {contenders[0].name} "
                f"returns {shapes[0]}; compare networks for one task only"
            )


def _shapes(output: object) -> list[tuple[int, ...]]:
    """Shapes of what a run returns: a list of arrays from onnxruntime, tensors in anything from torch."""
    leaves = output if isinstance(output, list) else tensors_in(output)
    return [tuple(np.shape(leaf)) for leaf in leaves]


def shared_runtimes(contenders: Sequence[Contender]) -> tuple[str, ...]:
    """The runtimes that can run every contender.

    Raises:
        UsageError: there is none, or there is nothing to compare.
    """
    if len(contenders) < 2:
        raise UsageError(f"{len(contenders)} network given, nothing to compare it with; pass at least two")
    has_model = all(contender.model is not None for contender in contenders)
    has_onnx = all(contender.onnx is not None for contender in contenders)
    runtimes = tuple(name for name, has in zip(RUNTIMES, (has_model, has_onnx), strict=True) if has)
    if not runtimes:
        names = ", ".join(contender.name for contender in contenders)
        raise UsageError(f"no runtime can run all of {names}: pass all as .onnx files, or all as modules")
    return runtimes


def count(contenders: Sequence[Contender], example: ExampleInputs | Inputs) -> tuple[Counts, ...]:
    """Parameters, MACs and file sizes of every contender, all counted in the same way."""
    if all(contender.model is not None for contender in contenders):
        return tuple(
            count_module(contender.name, copy.deepcopy(contender.model).eval(), example, contender.files)
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
    path = export_onnx(contender.model, example, folder / f"{contender.name}.onnx").path
    return replace(contender, onnx=path, files={**contender.files, "onnx": path})


def _torch_run(model: nn.Module, inputs: Inputs) -> Run:
    return lambda: inputs.call(model)


def _onnx_run(contender: Contender, inputs: Inputs, threads: int) -> Run:
    assert contender.onnx is not None
    session = _session(contender.onnx, threads)
    names = [value.name for value in session.get_inputs()]
    if len(names) != len(inputs.tensors):
        raise UsageError(
            f"{contender.onnx} takes {len(names)} inputs but {len(inputs.tensors)} given; pass one for each"
        )
    feeds = {name: tensor.numpy() for name, tensor in zip(names, inputs.tensors, strict=True)}
    return lambda: session.run(None, feeds)


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    read_onnx(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Else one contender's idle threads would still spin while the other is timed.
    options.add_session_config_entry(*SPIN_ONLY_WHILE_RUNNING)
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no type in common
        raise UsageError(f"onnxruntime cannot load {path}: {reason(error)}") from error
