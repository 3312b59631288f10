"""What the callbacks of all trainers have in common: their arguments, and a shrinker made when training starts."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from slimnet.errors import UsageError
from slimnet.modules.example_inputs import ExampleInputs
from slimnet.shrinking import Shrinker
from slimnet.shrinking.shrinker import Cut


def checked_interval(every: int) -> int:
    """The number of steps between two looks.

    Raises:
        UsageError: it is below 1.
    """
    if every < 1:
        raise UsageError(f"every is {every}; it must be at least 1, the steps between two looks")
    return every


def part_of(module: nn.Module, path: str) -> Any:
    """The module at a path in the module that a trainer trains.

    Raises:
        UsageError: there is none.
    """
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise UsageError(f"{type(module).__name__} has no module {path!r}; name the path of the network") from error


class ShrinkingCallback:
    """The arguments of a callback that shrinks, its shrinker, and its report of a cut."""

    def __init__(
        self,
        example_inputs: ExampleInputs,
        every: int = 500,
        *,
        network: str = "",
        also: Sequence[str] = (),
        report: Callable[[str], None] | None = None,
        **options: Any,
    ) -> None:
        self._inputs, self._every = example_inputs, checked_interval(every)
        self._network, self._also, self._report, self._options = network, tuple(also), report, options
        self.shrinker: Shrinker | None = None

    def _make_shrinker(self, module: nn.Module, optimiser: Optimizer, inputs: ExampleInputs) -> None:
        """Make the shrinker of the network in a module, on inputs that are where the network is."""
        copies = [part_of(module, path) for path in self._also]
        self.shrinker = Shrinker(part_of(module, self._network), optimiser, inputs, also=copies, **self._options)

    def _show(self, step: int, cut: Cut | None) -> None:
        if cut is not None and self._report is not None:
            self._report(f"step {step}: {cut}")
