"""The protocol of a runtime, on which all measurements of networks are based."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import nn

from slimnet.benchmark.byte_inputs import inputs_for
from slimnet.benchmark.contender import Cell, Contender, Form
from slimnet.benchmark.runtimes.layer_timer import LayerTimer
from slimnet.benchmark.turns import Run, Stopwatch, wall_clock
from slimnet.errors import UsageError, reason
from slimnet.modules.example_inputs import Inputs, tensors_in

MakeTimer = Callable[[Contender, Cell, Inputs, Path], LayerTimer]
"""Creates the timer of a contender's layers; the path is the prefix of any files that it writes."""


def obstacle_on_cpu(name: str, device: str, load: Callable[[], object]) -> str | None:
    """The obstacle of a runtime for CPUs alone: a GPU, or a package that `load` does not import."""
    if device != "cpu":
        return f"{name} is measured on the CPU alone, not on {device}; leave it out, or measure on cpu"
    try:
        load()
    except UsageError as error:
        return str(error)
    return None


def shapes_of(inputs: Inputs) -> str:
    """The shapes of inputs, as messages state them."""
    return ", ".join(str(tuple(tensor.shape)) for tensor in inputs.tensors)


def file_of(contender: Contender) -> Path | None:
    """The file of a contender: in OpenVINO's own format if it has one, otherwise in ONNX; None if it has neither."""
    return contender.openvino or contender.onnx


class Runtime(ABC):
    """A runtime of networks.

    Attributes:
        name: its name in options and results.
        needs: the form of a network that it runs, and that is made for it.
        takes_also: further forms that it runs if a network has them.
        is_variant: whether it runs the kernels of another runtime in another way, and thus has the same accuracy.
        on_request: whether it is measured only on request, since the preparation of a network takes long.
    """

    name: ClassVar[str]
    needs: ClassVar[Form]
    takes_also: ClassVar[tuple[Form, ...]] = ()
    is_variant: ClassVar[bool] = False
    on_request: ClassVar[bool] = False

    @abstractmethod
    def versions(self) -> Mapping[str, str]:
        """The versions of its packages, by name; empty if it is not installed."""

    @abstractmethod
    def obstacle(self, device: str) -> str | None:
        """Why it does not run on a device here, and the remedy, in one line; None if it runs."""

    def takes(self, contender: Contender) -> bool:
        """Whether a contender has a form that it runs."""
        return any(contender.has(form) for form in (self.needs, *self.takes_also))

    def inputs_of(self, contender: Contender, inputs: Inputs) -> Inputs:
        """The inputs as a contender takes them here: a file may take images as bytes.

        Raises:
            UsageError: its file cannot be read.
        """
        path = file_of(contender) if self.needs != "module" else None
        return inputs if path is None else inputs_for(path, inputs)

    def objection(self, contender: Contender) -> str | None:
        """Why it does not run a contender that has the form it needs, in one line; None if that is not known before.

        It is asked only where the runtime runs. Where it was not requested by name, it is left out.
        """
        return None

    @abstractmethod
    def prepare(self, contender: Contender, cell: Cell, inputs: Inputs) -> Run:
        """One forward of a contender, copied, in evaluation mode, in the setting of the cell.

        Raises:
            UsageError: the network cannot be loaded, or takes other inputs.
        """

    @abstractmethod
    def classifier(self, contender: Contender, threads: int, device: str) -> nn.Module:
        """A module that computes logits of images `(N, C, H, W)`, on the device, or on the CPU if it has no other."""

    def details(self) -> str:
        """The description that `slimnet checks` shows if it runs."""
        return ", ".join(f"{package} {version}" for package, version in self.versions().items())

    def layer_timers(self, device: str) -> MakeTimer | None:
        """The constructor of layer timers on a device; None if it cannot time single layers."""
        return None

    def why_no_layers(self, device: str) -> str:
        """Why it has no layer timers on a device, in one line."""
        return f"{self.name} does not tell layers apart on {device}"

    def stopwatch(self, device: str) -> Stopwatch:
        """The stopwatch for runs on a device."""
        return wall_clock()

    def session(self) -> AbstractContextManager[None]:
        """The context of a measurement, which afterwards removes process-wide state of prepared networks."""
        return nullcontext()

    def shapes(self, output: object) -> list[tuple[int, ...]]:
        """The shapes of the outputs of a run."""
        leaves = output if isinstance(output, list) else tensors_in(output)
        return [tuple(np.shape(leaf)) for leaf in leaves]

    def refusal(self, name: str, given: str, error: Exception) -> str:
        """The message for a contender that does not run on inputs of the shapes `given`, in one line."""
        where = f" under {self.name}" if self.is_variant else ""
        return f"{name} does not run{where} on inputs of {given}: {reason(error)}"
