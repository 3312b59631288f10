"""The protocol of a runtime: what computes a network, asked by everything that measures networks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import nn

from slimnet.benchmark.contender import Cell, Contender, Form
from slimnet.benchmark.latency import Run, Stopwatch, wall_clock
from slimnet.benchmark.runtimes.layer_timer import LayerTimer
from slimnet.errors import reason
from slimnet.modules.example_inputs import Inputs, tensors_in

MakeTimer = Callable[[Contender, Cell, Inputs, Path], LayerTimer]
"""Makes the timer of a contender's layers; its files, if it writes any, begin with the path."""


class Runtime(ABC):
    """A way to run networks.

    Attributes:
        name: what people ask for, and what results are filed under.
        needs: the form of a network that it runs.
        is_variant: it runs the kernels of another runtime in another way, so that its accuracy is that one's.
        on_request: it is measured only where it is asked for, since it takes long to prepare a network.
    """

    name: ClassVar[str]
    needs: ClassVar[Form]
    is_variant: ClassVar[bool] = False
    on_request: ClassVar[bool] = False

    @abstractmethod
    def versions(self) -> Mapping[str, str]:
        """The versions of the packages that it consists of, by their names; empty where it is not installed."""

    @abstractmethod
    def obstacle(self, device: str) -> str | None:
        """Why it does not run on a device here and what to do about it, in one line; None where it does."""

    @abstractmethod
    def prepare(self, contender: Contender, cell: Cell, inputs: Inputs) -> Run:
        """One forward of a contender, copied, in evaluation mode, in the setting of the cell.

        Raises:
            UsageError: the network cannot be loaded, or takes other inputs.
        """

    @abstractmethod
    def classifier(self, contender: Contender, threads: int, device: str) -> nn.Module:
        """A module that scores images `(N, C, H, W)`, on the device, or on the CPU where it has no other."""

    def details(self) -> str:
        """What `slimnet checks` shows of it where it runs."""
        return ", ".join(f"{package} {version}" for package, version in self.versions().items())

    def layer_timers(self, device: str) -> MakeTimer | None:
        """How layers are timed on a device; None where it cannot time them one by one."""
        return None

    def stopwatch(self, device: str) -> Stopwatch:
        """What times runs on a device."""
        return wall_clock()

    def session(self) -> AbstractContextManager[None]:
        """The context of a measurement, which ends with what prepared networks left in the process removed."""
        return nullcontext()

    def shapes(self, output: object) -> list[tuple[int, ...]]:
        """The shapes of what a run returned."""
        leaves = output if isinstance(output, list) else tensors_in(output)
        return [tuple(np.shape(leaf)) for leaf in leaves]

    def refusal(self, name: str, given: str, error: Exception) -> str:
        """Why a contender does not run on inputs of the shapes given, in one line."""
        where = f" under {self.name}" if self.is_variant else ""
        return f"{name} does not run{where} on inputs of {given}: {reason(error)}"
