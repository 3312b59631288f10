"""Work in many threads at once: every result is right, and what was changed for the process is as it was before."""

import contextlib
import copy
import gc
import io
import logging
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from blocks import Encoder
from bundles import basic_net, images, lived_in, small_net
from processes import LONGEST_WAIT
from torch import nn

import slimnet
from slimnet.export.quiet_torch import quiet
from slimnet.torch_state.devices import fastest_kernels
from slimnet.torch_state.precision import float32_products
from slimnet.torch_state.process import collection_paused, torch_threads
from slimnet.torch_state.process_patch import ProcessPatch, attribute_patch
from slimnet.torch_state.random_state import random_numbers_kept
from slimnet.torch_state.silence import silenced
from slimnet.tracing.meta_autocast import as_with_data

THREADS = 8


def process_state() -> dict[str, Any]:
    """Everything of the process that slimnet changes for a while."""
    backends = torch.backends
    products = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul)
    return {
        "autocast": torch.amp.autocast_mode.autocast.__init__,
        "start": threading.Thread.start,
        "submit": ThreadPoolExecutor.submit,
        "call": nn.Module.__call__,
        "getattr": nn.Module.__getattr__,
        "products": [each.fp32_precision for each in products],
        "matmul": torch.get_float32_matmul_precision(),
        "kernels": (backends.cudnn.benchmark, backends.cudnn.enabled, backends.mkldnn.enabled),
        "collected": gc.isenabled(),
        "threads": torch.get_num_threads(),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "streams": (sys.stdout, sys.stderr),
        "handlers": [list(each.filters) for each in logging.root.handlers],
        "globals": sorted(map(str, torch.serialization.get_safe_globals())),
        "torch": torch.get_rng_state().tolist(),
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False)["state"]["key"].tolist(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
    }


@contextlib.contextmanager
def left_alone() -> Iterator[None]:
    """Check that the process is afterwards what it was before."""
    before = process_state()
    yield
    after = process_state()
    for name, value in before.items():
        assert after[name] == value, name


def together(*works: Callable[[], object], times: int = 1) -> list[Any]:
    """What each work returns, all begun at once, `times` over, with threads switched very often."""
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> list[object]:
        found = []
        for _ in range(times):
            barrier.wait(LONGEST_WAIT)
            found.append(work())
        return found

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(len(works)) as pool:
            return [found for each in [pool.submit(run, work) for work in works] for found in each.result()]
    finally:
        sys.setswitchinterval(interval)


def casting(model: nn.Module) -> nn.Module:
    """A network whose forward asks for autocast where its input is."""

    class Casting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            with torch.autocast(image.device.type, enabled=False):
                return self.inner(image)

    return Casting().eval()


def test_networks_are_slimmed_in_many_threads_at_once():
    """Oracle: the plans and the outputs of each network slimmed alone. One draws random numbers."""
    torch.manual_seed(0)
    networks = [small_net(), casting(small_net(1)), lived_in(Encoder()).eval(), small_net(2)] * (THREADS // 4)
    alone = [slimnet.slim(each, images()) for each in networks]
    for _ in range(3):
        with left_alone():
            found = together(*(lambda each=each: slimnet.slim(each, images()) for each in networks))
        for slimmed, expected in zip(found, alone, strict=True):
            assert slimmed.plan == expected.plan
            assert slimmed.certificate == expected.certificate


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.sweep)])
def test_bundles_are_saved_loaded_verified_and_exported_in_many_threads_at_once(rounds, tmp_path, operators_read_once):
    """Oracle: the outputs of the network that was slimmed alone, and files that are equal byte for byte."""
    dense, x = basic_net(), torch.randn(4, 1, 8, 8)
    slimmed = slimnet.slim(dense, x)
    torch.save(dense.state_dict(), tmp_path / "net.pt")
    slimnet.save(slimmed, tmp_path / "first")
    with torch.no_grad():
        expected = copy.deepcopy(slimmed.model).eval()(x)

    def loaded() -> torch.Tensor:
        with torch.no_grad():
            return slimnet.load(tmp_path / "first").eval()(x)

    def read() -> nn.Module:
        # Alone it draws the weights that it then replaces, as building a network does.
        with random_numbers_kept():
            return slimnet.load_checkpoint(tmp_path / "net.pt", "basicnet", slimmed.architecture.args)

    for number in range(rounds):
        here = tmp_path / str(number)
        here.mkdir()
        works = (
            partial(slimnet.save, slimmed, here / "saved"),
            partial(slimnet.export_onnx, slimmed.model, x, here / "net.onnx"),
            partial(slimnet.verify_bundle, tmp_path / "first"),
            loaded,
            read,
            partial(slimnet.slim, dense, x),
            partial(slimnet.verify_bundle, tmp_path / "first", dense=dense),
        )
        with left_alone():
            saved, exported, verified, outputs, network, again, *_ = together(*works)
        assert verified.certified
        assert exported.max_rel_difference < 1e-5
        # torch turns oneDNN off for the process while it exports; a forward meanwhile may differ in the last bits.
        torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)
        assert all(map(torch.equal, network.state_dict().values(), dense.state_dict().values()))
        assert again.certificate == slimmed.certificate
        for name in ("model.safetensors", "model.onnx", "plan.json", "certificate.json"):
            assert (saved / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


CONTEXTS: dict[str, list[Callable[[], Any]]] = {
    "products": [partial(float32_products, tf32=True), partial(float32_products, tf32=False)],
    "kernels": [fastest_kernels],
    "collection": [collection_paused],
    "forward": [as_with_data],
    "numbers": [random_numbers_kept],
    "silence": [silenced],
    "quiet": [quiet],
    "threads": [partial(torch_threads, 3), partial(torch_threads, None), partial(torch_threads, 1)],
}


@pytest.mark.parametrize("name", CONTEXTS)
def test_what_is_changed_for_the_process_is_put_back_however_threads_interleave(name):
    contexts = CONTEXTS[name]

    def enter() -> None:
        for first, second in zip(contexts, reversed(contexts), strict=True):
            with first(), contextlib.suppress(ZeroDivisionError), second():
                raise ZeroDivisionError

    with left_alone():
        together(*[enter] * THREADS, times=20)


def staggered(first: Any, second: Any, within: Callable[[], object]) -> list[object]:
    """Enter the first, and in another thread the second; leave the first, then the second; `within` at every step."""
    found, entered, left = [], threading.Event(), threading.Event()

    def other() -> None:
        with second:
            entered.set()
            left.wait(LONGEST_WAIT)
            found.append(within())

    thread = threading.Thread(target=other)
    with first:
        thread.start()
        entered.wait(LONGEST_WAIT)
        found.append(within())
    left.set()
    thread.join()
    return [*found, within()]


def test_a_patch_lasts_until_the_last_thread_has_left_it():
    class Owner:
        value = 1

    patch = attribute_patch(Owner, "value", lambda old: old + 1)
    assert staggered(patch, patch, lambda: Owner.value) == [2, 2, 1]


def test_what_somebody_else_put_over_a_patch_is_theirs():
    class Owner:
        value = 1

    with attribute_patch(Owner, "value", lambda _: 2):
        Owner.value = 3
    assert Owner.value == 3


def test_what_a_class_inherits_it_inherits_again():
    class Base:
        value = 1

    class Owner(Base):
        pass

    with attribute_patch(Owner, "value", lambda _: 2):
        assert (Owner.value, Base.value) == (2, 1)
    assert "value" not in vars(Owner)


def test_a_patch_that_fails_to_apply_is_not_counted():
    attempts = iter([ZeroDivisionError, None])

    def apply() -> None:
        error = next(attempts)
        if error:
            raise error

    undone: list[None] = []
    patch = ProcessPatch(apply, undone.append)
    with pytest.raises(ZeroDivisionError), patch:
        pass
    with patch:
        pass
    assert undone == [None]


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True)])
def test_where_one_thread_wants_exact_products_all_have_them(first, second):
    """A certificate is measured in one thread while another trains with TF32."""

    def precision() -> str:
        return torch.backends.cudnn.conv.fp32_precision

    before = precision()
    kept = "tf32" if second else "ieee"
    found = staggered(float32_products(tf32=first), float32_products(tf32=second), precision)
    assert found == ["ieee", kept, before]


def test_only_the_thread_that_is_silenced_is(capsys, monkeypatch):
    """Warnings, prints and log records of others go on, however the command line has set torch's loggers before."""
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    monkeypatch.setattr(logging.getLogger("torch.export"), "level", logging.WARNING)
    logging.getLogger("torch.export").addHandler(handler)

    def speak(name: str) -> None:
        print(f"{name} prints")
        logging.getLogger("torch.export").warning("%s logs", name)
        warnings.warn(f"{name} warns", UserWarning, stacklevel=1)

    entered, spoken = threading.Event(), threading.Event()

    def exporter() -> None:
        with quiet():
            entered.set()
            spoken.wait(LONGEST_WAIT)
            speak("the exporter")

    thread = threading.Thread(target=exporter)
    try:
        thread.start()
        entered.wait(LONGEST_WAIT)
        with pytest.warns(UserWarning, match="^somebody else warns$"):
            speak("somebody else")
        spoken.set()
        thread.join()
    finally:
        logging.getLogger("torch.export").removeHandler(handler)
    assert capsys.readouterr().out == "somebody else prints\n"
    assert heard.getvalue() == "somebody else logs\n"


def test_warnings_about_one_thing_may_be_silenced_alone(capsys):
    with silenced(about=".*glyph"):
        warnings.warn("a glyph is missing", UserWarning, stacklevel=1)
        print("heard")
        with pytest.warns(UserWarning, match="^something else$"):
            warnings.warn("something else", UserWarning, stacklevel=1)
    assert capsys.readouterr().out == "heard\n"
