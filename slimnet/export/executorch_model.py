"""Networks lowered for ExecuTorch, with XNNPACK's kernels where it has them, and how they are run.

ExecuTorch writes on the process's own stderr, past Python's, whatever it does; see `native_messages_dropped`. What it
refuses without a reason, such as inputs of another shape, is checked before it is called.
"""

import importlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from slimnet.errors import ExportError, UsageError, reason, whole_reason
from slimnet.export.quiet_torch import quiet
from slimnet.modules.example_inputs import Inputs
from slimnet.torch_state.random_state import random_numbers_kept
from slimnet.version import install_command

INSTALL = install_command("executorch")
LIBRARY = "executorch.extension.pybindings.portable_lib"
PARTITIONER = "executorch.backends.xnnpack.partition.xnnpack_partitioner"

_MESSAGES = threading.RLock()
"""Held while the process's stderr is replaced."""


def load_executorch() -> ModuleType:
    """Import ExecuTorch's library, which runs programs.

    Raises:
        UsageError: it is not installed (it is an optional extra), or does not load.
    """
    try:
        with quiet(), native_messages_dropped():
            importlib.import_module("executorch")
            return importlib.import_module(LIBRARY)
    except Exception as error:  # a library that is missing or does not fit raises errors of all kinds
        if isinstance(error, ModuleNotFoundError) and error.name == "executorch":
            raise UsageError(f"executorch is not installed; {INSTALL}") from error
        raise UsageError(f"executorch does not load here: {whole_reason(error)}; reinstall it: {INSTALL}") from error


@contextmanager
def native_messages_dropped() -> Iterator[None]:
    """Drop what is written to the process's stderr in the context, by other threads too; Python's own stays as it is.

    ExecuTorch's log there has no switch in its packages: files that it does not find on this kind of machine, every
    change of the number of threads, and the cause of each error in addition to the exception.
    """
    with _MESSAGES, open(os.devnull, "wb") as nowhere:
        sys.stderr.flush()
        kept = os.dup(2)
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def lowered(module: nn.Module, inputs: Inputs, name: str) -> bytes:
    """The program (.pte) of a module in evaluation mode on the CPU, for inputs of exactly these shapes.

    Raises:
        ExportError: it cannot be captured, or ExecuTorch lacks one of its operators.
    """
    load_executorch()
    exir, xnnpack = importlib.import_module("executorch.exir"), importlib.import_module(PARTITIONER)
    try:
        with quiet(), native_messages_dropped(), torch.no_grad(), random_numbers_kept():
            program = torch.export.export(module, inputs.args, inputs.kwargs, strict=False)
            edge = exir.to_edge_transform_and_lower(program, partitioner=[xnnpack.XnnpackPartitioner()])
            return bytes(edge.to_executorch().buffer)
    except Exception as error:  # each of its passes may raise anything
        raise ExportError(f"{name} cannot be written for ExecuTorch: {reason(error):.300}") from error


FORWARD = "Execute"
"""The name of the part of ExecuTorch's record that holds one forward."""


@dataclass(frozen=True)
class Event:
    """One event of a forward: its name, whether it is an operator of XNNPACK, and its milliseconds."""

    name: str
    delegated: bool
    milliseconds: float


class LoweredNetwork:
    """A program of ExecuTorch in memory, for inputs of fixed shapes and types.

    Raises:
        ExportError: ExecuTorch does not load it, such as for an operator that this build lacks.
    """

    def __init__(self, content: bytes, inputs: Inputs, *, layer_times: bool = False) -> None:
        self._forms = forms_of(inputs.tensors)
        # ExecuTorch reads the program from there while it exists, and does not keep it alive.
        self._content = content
        library = load_executorch()
        try:
            with native_messages_dropped():
                self._program = library._load_for_executorch_from_buffer(content, enable_etdump=layer_times)
        except RuntimeError as error:
            raise ExportError(f"ExecuTorch does not load the program: {whole_reason(error)}") from error

    def run(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The outputs.

        Raises:
            ValueError: an input has another shape or type, or ExecuTorch gives up.
        """
        if forms_of(tensors) != self._forms:
            made_for = ", ".join(f"{shape} in {kind}" for shape, kind in self._forms)
            raise ValueError(f"the program was made for inputs of {made_for}")
        return self.run_again(tensors)

    def run_again(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The outputs for inputs that are known to fit."""
        try:
            return list(self._program.forward(list(tensors)))
        except RuntimeError as error:
            raise ValueError(f"ExecuTorch stopped while computing: {error}") from error

    def recorded(self) -> list[list[Event]]:
        """The events of each forward so far, where `layer_times` was asked for.

        Raises:
            ValueError: this build of ExecuTorch records nothing.
        """
        if not self._program.has_etdump():
            raise ValueError("this build of ExecuTorch records no times")
        with tempfile.TemporaryDirectory(prefix="slimnet-etdump-") as folder:
            path = Path(folder) / "times.etdump"
            with quiet(), native_messages_dropped():
                reader = importlib.import_module("executorch.devtools.etdump.serialize")
                self._program.write_etdump_result_to_file(str(path))
                dump = reader.deserialize_from_etdump_flatcc(path.read_bytes())
        forwards = [block.events for block in dump.run_data if block.name == FORWARD]
        return [[event_of(each.profile_event) for each in events if each.profile_event] for events in forwards]


def event_of(event: Any) -> Event:
    """An event of ExecuTorch's record, whose times are in nanoseconds."""
    name = event.delegate_debug_id_str or event.name or ""
    return Event(name, event.delegate_debug_id_str is not None, (event.end_time - event.start_time) / 1e6)


def forms_of(tensors: Sequence[torch.Tensor]) -> list[tuple[tuple[int, ...], str]]:
    """Shape and type of each tensor."""
    return [(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for tensor in tensors]


def threads_in_use() -> int:
    """The number of threads on which ExecuTorch computes in this process."""
    library = load_executorch()
    with native_messages_dropped():
        return int(library._threadpool_get_thread_count())


def use_threads(count: int) -> None:
    """Let ExecuTorch compute on so many threads in this process; nothing may run under it meanwhile."""
    library = load_executorch()
    if threads_in_use() != count:
        with native_messages_dropped():
            library._unsafe_reset_threadpool(count)
