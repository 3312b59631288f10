"""One thread per test process: two workers on two cores would otherwise fight for them."""

import functools
from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def operators_read_once() -> Iterator[None]:
    """Let torch's ONNX exporter read its table of operators once, not at every export: half the time of a small one."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield
