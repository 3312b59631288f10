"""The accuracy of every contender on the same images: in torch, and again through onnxruntime."""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from slimnet.benchmark.contender import ONNX, TORCH, Contender, shared_runtimes
from slimnet.benchmark.results import Accuracies
from slimnet.benchmark.runtimes.onnxruntime import feeds_of, onnx_session
from slimnet.data import ImageData
from slimnet.errors import reason
from slimnet.modules.example_inputs import Inputs
from slimnet.torch_state.process import torch_threads
from slimnet.training.analysis.metrics import check_fits, evaluate

BATCH = 64


class OnnxClassifier(nn.Module):
    """An ONNX file under onnxruntime on the CPU, as a module that scores images."""

    def __init__(self, path: Path, threads: int):
        super().__init__()
        self.path = path
        self.session = onnx_session(path, threads)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores `(N, classes)` of images `(N, C, H, W)`.

        Raises:
            ValueError: onnxruntime does not take them.
        """
        feeds = feeds_of(self.session, self.path, Inputs.of(images))
        try:
            return torch.from_numpy(self.session.run(None, feeds)[0])
        except Exception as error:  # onnxruntime's exceptions have no type in common
            raise ValueError(reason(error)) from error


def accuracies(
    contenders: Sequence[Contender], data: ImageData, threads: int, device: str = "cpu"
) -> Iterator[Accuracies]:
    """Yield the accuracy of all contenders on the test images, through each runtime that has them all.

    torch computes on `device`, onnxruntime on the CPU.

    Raises:
        DataError: a contender does not take the images, or knows other classes.
    """
    names = tuple(contender.name for contender in contenders)
    for runtime in shared_runtimes(contenders):
        values = []
        for contender in contenders:
            network = scorer(contender, runtime, threads, device)
            check_fits(network, data, contender.name, trained=True)
            with torch_threads(threads):
                values.append(evaluate(network, data, batch_size=BATCH))
        yield Accuracies(runtime, data.name, names, tuple(values))


def scorer(contender: Contender, runtime: str, threads: int, device: str) -> nn.Module:
    """A module that scores images: a copy of the network, or its ONNX file."""
    if runtime == ONNX:
        assert contender.onnx is not None
        return OnnxClassifier(contender.onnx, threads)
    assert runtime == TORCH
    assert contender.model is not None
    return copy.deepcopy(contender.model).to(device)
