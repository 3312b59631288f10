"""One thread per test process: two workers on two cores would otherwise fight for them. Kernels are not measured."""

import functools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bundles import SHAPE, Made, basic_net, coded_net, images, make, tied_net
from command_line import SHORT, run
from kernel_prices import store_proportional
from slimnet_cli.output import phases

torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Processes that tests start heed signals, though the tests themselves may run in the background (`nohup`, `&`).

    They find times of kernels in the cache folder, by which exact widths are the fastest.
    """
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["SLIMNET_CACHE"] = cache = tempfile.mkdtemp(prefix="slimnet-tests-")
    config.add_cleanup(functools.partial(shutil.rmtree, cache, ignore_errors=True))
    store_proportional(Path(cache))


LONG = ("test_elsewhere.py", "test_sweep.py", "test_signals.py", "test_readme.py", "test_certified_weights.py")
"""Files of tests that take longest; they come first, so that no process is left alone with them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True)
def as_wide_as_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are drawn as for a pipe: a test process that runs beside others gets the width of a terminal."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture(autouse=True)
def as_quiet_as_quick_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of progress do not depend on how busy the machine is: there are none, unless a test asks for them."""
    monkeypatch.setattr(phases, "FIRST_LINE", float("inf"))


@pytest.fixture
def as_before() -> Iterator[None]:
    """The handlers of this process come back."""
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def operators_read_once() -> Iterator[None]:
    """Let torch's ONNX exporter read its table of operators once, not at every export: half the time of a small one."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(scope="session")
def basic(tmp_path_factory, operators_read_once) -> Made:
    """A bundle of a network with an architecture, in a mixture of modes, with a frozen parameter."""
    model = basic_net().train()
    model.features.bn2.eval()
    model.classifier.eval()
    model.features.conv3.weight.requires_grad_(False)
    return make(model, torch.randn(3, *SHAPE), tmp_path_factory.mktemp("basic") / "slim", "resnet.th")


@pytest.fixture(scope="session")
def nameless(tmp_path_factory, operators_read_once) -> Made:
    """A bundle of a network that nothing says how to build."""
    return make(tied_net(), images(), tmp_path_factory.mktemp("nameless") / "slim")


@pytest.fixture(scope="session")
def coded(tmp_path_factory, operators_read_once) -> Made:
    """A bundle of a network that is made by code elsewhere."""
    return make(coded_net(), images(), tmp_path_factory.mktemp("coded") / "slim")


@pytest.fixture
def copy(tmp_path):
    """Copies of bundles that a test may change."""

    def made(original: Made, name: str = "slim") -> Path:
        return Path(shutil.copytree(original.folder, tmp_path / name))

    return made


@pytest.fixture
def begun(tmp_path) -> Path:
    """A finished run of forty steps with a checkpoint every twenty."""
    assert run("digits", *SHORT, "--iterations", 40, "--checkpoint-every", 20, "-o", tmp_path / "run") == 0
    return tmp_path / "run"
