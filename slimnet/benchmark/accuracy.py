"""The accuracy of every contender on the same images, through each runtime."""

from collections.abc import Iterator, Sequence

from torch import nn

from slimnet.benchmark.byte_inputs import FromNormalised, byte_layout
from slimnet.benchmark.contender import Contender
from slimnet.benchmark.parts import WatchPart, begun, counting
from slimnet.benchmark.results import Accuracies
from slimnet.benchmark.runtimes.runtime import Runtime, file_of
from slimnet.benchmark.runtimes.table import find_runtime
from slimnet.benchmark.settings import shared_runtimes
from slimnet.data import ImageData
from slimnet.torch_state.process import torch_threads
from slimnet.training.analysis.metrics import check_fits, evaluate

BATCH = 64


def accuracies(
    contenders: Sequence[Contender],
    data: ImageData,
    threads: int,
    device: str = "cpu",
    watch: WatchPart | None = None,
) -> Iterator[Accuracies]:
    """Yield the accuracy of all contenders on the test images, by each runtime that can run all of them.

    A runtime computes on `device` if it can score images there, otherwise on the CPU. `watch` is called with the
    progress of each network, in the order of `accuracy_parts`.

    Raises:
        DataError: a contender does not take the images, or has another number of classes.
    """
    names = tuple(contender.name for contender in contenders)
    number = 0
    for runtime in shared_runtimes(contenders):
        values = []
        for contender in contenders:
            part = begun(watch, number)
            network = classifier(find_runtime(runtime), contender, data, threads, device)
            check_fits(network, data, contender.name, trained=True)
            with torch_threads(threads):
                values.append(evaluate(network, data, batch_size=BATCH, progress=counting(part)))
            number += 1
        yield Accuracies(runtime, data.name, names, tuple(values))


def classifier(runtime: Runtime, contender: Contender, data: ImageData, threads: int, device: str) -> nn.Module:
    """A module that computes logits of the images of some data, normalised as these are, through a runtime."""
    network = runtime.classifier(contender, threads, device)
    path = file_of(contender) if runtime.needs != "module" else None
    layout = None if path is None else byte_layout(path)
    return network if layout is None else FromNormalised(network, data.spec, layout)
