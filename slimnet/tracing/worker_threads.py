"""Work that a forward gives to other threads runs under the same dispatch mode, one piece after the other."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from slimnet.errors import TraceError
from slimnet.torch_state.process_patch import attribute_patch

LONGEST_WAIT = 30.0
"""Seconds that a piece of work may take: a thread that waits for more work never ends."""

FOLLOWED: dict[int, TorchDispatchMode] = {}
"""The threads whose ops are seen, by their number, and the mode that sees them."""


@contextmanager
def work_followed(mode: TorchDispatchMode) -> Iterator[None]:
    """While the context lasts, `mode` is on here and in what is given to other threads from here.

    A dispatch mode belongs to one thread. So each piece of work puts it on anew, and is waited for, so that the
    order of ops does not depend on how threads are scheduled.

    Raises:
        TraceError: work does not end before the forward goes on.
    """
    me = threading.get_ident()
    outer = FOLLOWED.get(me)
    FOLLOWED[me] = mode
    try:
        with _STARTING, _GIVING, mode:
            yield
    finally:
        if outer is None:
            del FOLLOWED[me]
        else:
            FOLLOWED[me] = outer


def starting(real: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """`Thread.start`, which waits for the thread where it was started from a forward that is followed."""

    def start(thread: threading.Thread) -> None:
        mode = FOLLOWED.get(threading.get_ident())
        if mode is None:
            return real(thread)
        thread.run = under(mode, thread.run)  # type: ignore[method-assign]
        real(thread)
        thread.join(LONGEST_WAIT)
        check_done(not thread.is_alive())
        return None

    return start


def giving(real: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    """`ThreadPoolExecutor.submit`, which waits for the work where it comes from a forward that is followed."""

    def submit(pool: ThreadPoolExecutor, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        me = threading.get_ident()
        mode = FOLLOWED.pop(me, None)
        if mode is None:
            return real(pool, work, *args, **kwargs)
        # Not followed meanwhile: the pool may start threads of its own, which do not end.
        try:
            future = real(pool, under(mode, work), *args, **kwargs)
        finally:
            FOLLOWED[me] = mode
        check_done(not wait([future], LONGEST_WAIT).not_done)
        return future

    return submit


_STARTING = attribute_patch(threading.Thread, "start", starting)
_GIVING = attribute_patch(ThreadPoolExecutor, "submit", giving)


def under(mode: TorchDispatchMode, work: Callable[..., Any]) -> Callable[..., Any]:
    """Some work as it is done in another thread that is followed as well."""

    def run(*args: Any, **kwargs: Any) -> Any:
        me = threading.get_ident()
        FOLLOWED[me] = mode
        try:
            with torch.no_grad(), mode:
                return work(*args, **kwargs)
        finally:
            del FOLLOWED[me]

    return run


def check_done(done: bool) -> None:
    """Refuse work that goes on beside the forward.

    Raises:
        TraceError: it does.
    """
    if not done:
        raise TraceError(
            f"the forward goes on while work that it gave to another thread is not done after {LONGEST_WAIT:g} s; "
            "slimnet follows threads one after the other only"
        )


class Path(list[str]):
    """The paths of the modules whose forwards are running; `astray` is one in a thread that is not followed."""

    astray: str | None = None

    def append(self, name: str) -> None:
        """A module's forward begins."""
        if self.astray is None and threading.get_ident() not in FOLLOWED:
            self.astray = name
        super().append(name)

    def check(self) -> None:
        """Refuse modules whose ops were not seen: after the forward, since to raise in a thread could block it forever.

        Raises:
            TraceError: a module ran in a thread that is not followed.
        """
        if self.astray is not None:
            raise TraceError(
                f"{self.astray or 'the network'} runs in a thread that was there before the forward, where slimnet "
                "cannot follow its channels; give the work to a ThreadPoolExecutor, or run it in the forward's own"
            )
