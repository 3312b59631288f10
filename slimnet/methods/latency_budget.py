"""The latency of slim networks as a fraction of the dense one's, on a runtime, for budgets of latency."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from slimnet.benchmark import Contender, Settings, measure
from slimnet.benchmark.contender import in_form
from slimnet.benchmark.runtimes.table import DEPLOYED, find_runtime
from slimnet.methods.budget import LatencyLeft
from slimnet.modules.example_inputs import ExampleInputs

SECONDS = 1.0
"""The seconds for which each slim network is timed against the dense one."""


@contextmanager
def stopwatch(
    dense: nn.Module, inputs: ExampleInputs, runtime: str | None = None, *, seconds: float = SECONDS
) -> Iterator[LatencyLeft]:
    """Yield a function that times slim networks against `dense`, interleaved, at batch size 1.

    The default runtime is the one for which slim networks are made.

    Raises:
        UsageError: there is no such runtime, or it cannot run the networks.
    """
    chosen = find_runtime(runtime or DEPLOYED)
    settings = Settings(batches=(1,), seconds=seconds, runtimes=(chosen.name,))
    with tempfile.TemporaryDirectory() as folder:

        def contender(name: str, model: nn.Module) -> Contender:
            return in_form(Contender(name, model), chosen.needs, inputs, Path(folder))

        first = contender("dense", dense)

        def latency_left(slim: nn.Module) -> float:
            second = contender("slim", slim)
            (latency,) = measure([first, second], inputs, settings)
            if second.onnx is not None:
                second.onnx.unlink()
            return 1 / latency.speedup().value

        yield latency_left
