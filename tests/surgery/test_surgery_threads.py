"""The surgery on forwards that give work to other threads: followed there, or refused in one line; never missed.

A network's two branches each have dead channels, and meet in a layer that reads both.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from wiring import norm, planes, slim, wired

import slimnet
from slimnet.errors import TraceError
from slimnet.tracing import worker_threads

Work = Callable[[], torch.Tensor]
START, SUBMIT = threading.Thread.start, ThreadPoolExecutor.submit


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def branches(run: Callable[[list[Work]], list[torch.Tensor]]) -> nn.Module:
    """A stem with a dead channel in front of two branches, each of which `run` runs somewhere."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        return m.last(torch.cat(run([lambda: m.left(x), lambda: m.weigh(m.right(x))]), 1))

    model = wired(
        forward,
        stem=nn.Sequential(nn.Conv2d(2, 5, 1), norm(5, [3], -0.5), nn.ReLU()),
        left=nn.Sequential(nn.Conv2d(5, 6, 3), norm(6, [1, 4], -0.5), nn.ReLU()),
        right=nn.Sequential(nn.Conv2d(5, 6, 3), norm(6, [0, 1, 2], -0.5), nn.ReLU()),
        last=nn.Conv2d(12, 3, 3, padding=1),
    )
    model.weigh = functional.leaky_relu
    return model


def in_a_pool(works: list[Work]) -> list[torch.Tensor]:
    with ThreadPoolExecutor(2) as pool:
        return [future.result() for future in [pool.submit(work) for work in works]]


def mapped(works: list[Work]) -> list[torch.Tensor]:
    with ThreadPoolExecutor(1) as pool:
        return list(pool.map(lambda work: work(), works))


POOL = ThreadPoolExecutor(2)


def in_a_pool_of_before(works: list[Work]) -> list[torch.Tensor]:
    return list(POOL.map(lambda work: work(), works))


def in_threads(works: list[Work]) -> list[torch.Tensor]:
    found: dict[int, torch.Tensor] = {}
    threads = [
        threading.Thread(target=lambda place=place, work=work: found.setdefault(place, work()))
        for place, work in enumerate(works)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[place] for place in range(len(works))]


def awaited(works: list[Work]) -> list[torch.Tensor]:
    async def together() -> list[torch.Tensor]:
        return list(await asyncio.gather(*(asyncio.to_thread(work) for work in works)))

    return asyncio.run(together())


def nested(works: list[Work]) -> list[torch.Tensor]:
    return in_a_pool([lambda work=work: in_threads([work])[0] for work in works])


def forked(works: list[Work]) -> list[torch.Tensor]:
    return [torch.jit.wait(future) for future in [torch.jit.fork(work) for work in works]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("run", [in_a_pool, mapped, in_a_pool_of_before, in_threads, awaited, nested, forked])
def test_work_in_other_threads_is_followed_there(run):
    """Oracle: the dense network; and the widths are those of the same network without threads."""
    slimmed = slim(branches(run), planes())
    widths = [slimmed.model.stem[0], slimmed.model.left[0], slimmed.model.right[0], slimmed.model.last]
    assert [layer.out_channels for layer in widths] == [4, 4, 3, 3]
    assert (threading.Thread.start, ThreadPoolExecutor.submit) == (START, SUBMIT)


def test_activations_in_other_threads_are_measured():
    """Oracle: the dense network on the data; a ReLU that nothing passes is dead, in a thread as well."""
    model = branches(in_a_pool)
    with torch.no_grad():
        model.left[1].weight.fill_(1.0)
        model.left[1].bias.fill_(10.0)
        model.left[1].bias[[0, 5]] = -100.0
    images = planes()
    slimmed = slimnet.slim(model, images, criterion="activation", loader=[images], tolerance=1e-9)
    assert slimmed.model.left[0].out_channels == 4


class Consumer(threading.Thread):
    """A thread of one's own that does whatever it is given, one piece after the other."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.given: queue.Queue[Any] = queue.Queue()
        self.done: queue.Queue[Any] = queue.Queue()

    def run(self) -> None:
        for work in iter(self.given.get, None):
            with torch.no_grad():
                self.done.put(work())

    def __call__(self, works: list[Work]) -> list[torch.Tensor]:
        for work in works:
            self.given.put(work)
        return [self.done.get() for _ in works]


def test_a_module_in_a_thread_that_was_there_before_is_refused_by_name():
    consumer = Consumer()
    consumer.start()
    with pytest.raises(TraceError, match=r"^left runs in a thread that was there before the forward.*$"):
        slimnet.slim(branches(lambda works: consumer(works)), planes())
    consumer.given.put(None)


def test_a_thread_that_waits_for_more_is_refused(monkeypatch):
    monkeypatch.setattr(worker_threads, "LONGEST_WAIT", 0.1)
    consumers = []

    def run(works: list[Work]) -> list[torch.Tensor]:
        consumers.append(Consumer())
        consumers[-1].start()
        return consumers[-1](works)

    with pytest.raises(TraceError, match=r"work that it gave to another thread is not done after 0\.1 s"):
        slimnet.slim(branches(run), planes())
    for consumer in consumers:
        consumer.given.put(None)
        consumer.join()
    assert (threading.Thread.start, ThreadPoolExecutor.submit) == (START, SUBMIT)


def test_what_other_code_gives_to_threads_meanwhile_is_none_of_the_forwards():
    """A thread that somebody else starts while a forward is followed is not waited for."""
    release = threading.Event()
    others: list[threading.Thread] = []

    def elsewhere() -> None:
        others.append(threading.Thread(target=release.wait))
        others[-1].start()

    def run(works: list[Work]) -> list[torch.Tensor]:
        helper.submit(elsewhere)
        return in_a_pool(works)

    class Outside(ThreadPoolExecutor):
        submit = SUBMIT

    with Outside(1) as helper:
        slim(branches(run), planes())
        release.set()
    for thread in others:
        thread.join()
