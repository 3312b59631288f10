"""The latency of slim networks as a fraction of the dense one's, on a runtime, for budgets of latency."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from slimnet.benchmark import Contender, Latency, Settings, measure
from slimnet.benchmark.contender import in_form
from slimnet.benchmark.environment import processor
from slimnet.benchmark.runtimes.table import DEPLOYED, find_runtime
from slimnet.methods.budget import LatencyLeft
from slimnet.modules.example_inputs import ExampleInputs
from slimnet.surgery.measured_latency import MeasuredLatency

SECONDS = 1.0
"""The seconds for which each slim network is timed against the dense one."""

FINAL_SECONDS = 3.0
"""The seconds for which the network that was chosen is timed against the dense one."""


@contextmanager
def stopwatch(
    dense: nn.Module, inputs: ExampleInputs, runtime: str | None = None, *, seconds: float = SECONDS
) -> Iterator[LatencyLeft]:
    """Yield a function that times slim networks against `dense`, interleaved, at batch size 1.

    The default runtime is the one for which slim networks are made.

    Raises:
        UsageError: there is no such runtime, or it cannot run the networks.
    """
    with timing(dense, inputs, runtime, seconds) as latency_of:
        yield lambda slim: 1 / latency_of(slim).reliable_speedup().value


def measure_latency(
    dense: nn.Module,
    slim: nn.Module,
    inputs: ExampleInputs,
    asked: float,
    runtime: str | None = None,
    *,
    seconds: float = FINAL_SECONDS,
) -> MeasuredLatency:
    """Time a slim network against the dense one, interleaved, at batch size 1; `asked` is the budget's fraction.

    The search for the network was guided by shorter measurements, of which it took the first that met the budget: this
    one is independent of them.

    Raises:
        UsageError: there is no such runtime, or it cannot run the networks.
    """
    with timing(dense, inputs, runtime, seconds) as latency_of:
        latency = latency_of(slim)
    speedup, by_cpu = latency.speedup(), latency.cpu_speedup()
    return MeasuredLatency(
        asked=asked,
        left=1 / speedup.value,
        low=1 / speedup.high,
        high=1 / speedup.low,
        dense_ms=latency.median_ms(0),
        slim_ms=latency.median_ms(1),
        runtime=latency.runtime,
        threads=latency.threads,
        batch=latency.batch,
        processor=processor(),
        doubt=speedup.doubt,
        cpu_left=None if by_cpu is None else 1 / by_cpu.value,
    )


@contextmanager
def timing(
    dense: nn.Module, inputs: ExampleInputs, runtime: str | None, seconds: float
) -> Iterator[Callable[[nn.Module], Latency]]:
    """Yield a function that times a slim network and `dense` in turns."""
    chosen = find_runtime(runtime or DEPLOYED)
    settings = Settings(batches=(1,), seconds=seconds, runtimes=(chosen.name,))
    with tempfile.TemporaryDirectory() as folder:

        def contender(name: str, model: nn.Module) -> Contender:
            return in_form(Contender(name, model), chosen.needs, inputs, Path(folder))

        first = contender("dense", dense)

        def latency_of(slim: nn.Module) -> Latency:
            second = contender("slim", slim)
            (latency,) = measure([first, second], inputs, settings)
            if second.onnx is not None:
                second.onnx.unlink()
            return latency

        yield latency_of
