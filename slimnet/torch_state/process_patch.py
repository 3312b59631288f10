"""What is changed for the whole process: by the first thread that needs it, until the last one is done."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ContextDecorator, contextmanager
from types import TracebackType
from typing import Any, Generic, TypeVar

Before = TypeVar("Before")
Value = TypeVar("Value")


class ProcessPatch(ContextDecorator, Generic[Before]):
    """A change that several threads may need at once; a context manager and decorator, of which all share one.

    `apply` makes the change and returns what `undo` needs to take it back. The first that enters makes it, the last
    that leaves takes it back; each alone would restore what another had changed.
    """

    def __init__(self, apply: Callable[[], Before], undo: Callable[[Before], None]) -> None:
        self._apply, self._undo = apply, undo
        self._lock = threading.RLock()
        self._users = 0
        self._before: list[Before] = []

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._before = [self._apply()]
            self._users += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._undo(self._before.pop())


def attribute_patch(owner: Any, name: str, replacement: Callable[[Any], Any]) -> ProcessPatch[tuple[Any, Any, bool]]:
    """A patch that puts `replacement(original)` in the place of an attribute.

    It is taken back only where it is still there: whoever wrapped it meanwhile keeps their own. What a class only
    inherits, it inherits again.
    """

    def apply() -> tuple[Any, Any, bool]:
        original, own = getattr(owner, name), not isinstance(owner, type) or name in vars(owner)
        new = replacement(original)
        setattr(owner, name, new)
        return original, new, own

    def undo(before: tuple[Any, Any, bool]) -> None:
        original, new, own = before
        if getattr(owner, name) is not new:
            return
        if own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)

    return ProcessPatch(apply, undo)


class ProcessSetting(Generic[Value, Before]):
    """A setting of the process of which threads may want different values at once: the one that `prefer` chooses holds.

    `read` returns what `restore` needs when nobody wants a value any more; `write` sets a value.
    """

    def __init__(
        self,
        read: Callable[[], Before],
        write: Callable[[Value], None],
        restore: Callable[[Before], None],
        prefer: Callable[[Sequence[Value]], Value],
    ) -> None:
        self._read, self._write, self._restore, self._prefer = read, write, restore, prefer
        self._lock = threading.RLock()
        self._wanted: list[Value] = []
        self._before: list[Before] = []

    @contextmanager
    def set_to(self, value: Value) -> Iterator[None]:
        """Want a value while the context lasts."""
        with self._lock:
            if not self._wanted:
                self._before = [self._read()]
            self._wanted.append(value)
            self._write(self._prefer(self._wanted))
        try:
            yield
        finally:
            with self._lock:
                self._wanted.remove(value)
                if self._wanted:
                    self._write(self._prefer(self._wanted))
                else:
                    self._restore(self._before.pop())
