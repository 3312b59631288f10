"""What is taken for a data loader: anything that gives its batches again, or once where once is enough."""

from collections.abc import Iterable, Iterator
from typing import Any

from slimnet.errors import UsageError


def batches_once(loader: Iterable[Any]) -> Iterator[Any]:
    """The batches of a loader that is gone through once; it begins when the first one is asked for.

    Raises:
        UsageError: it is no loader.
    """
    check_iterable(loader)
    return _begun_when_asked(loader)


def _begun_when_asked(loader: Iterable[Any]) -> Iterator[Any]:
    yield from loader


def check_iterable(loader: object) -> None:
    """Refuse what gives no batches at all.

    Raises:
        UsageError: naming its type.
    """
    if not isinstance(loader, Iterable) and not hasattr(loader, "__getitem__"):
        raise UsageError(f"loader is a {type(loader).__name__}; pass a data loader, or a list of batches")


class RepeatedLoader:
    """A loader that is gone through more than once, each time from its beginning.

    Raises:
        UsageError: it is no loader, or one that gives its batches once.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        check_iterable(loader)
        if isinstance(loader, Iterator):
            raise UsageError(
                f"loader is a {type(loader).__name__}, which gives its batches once, but they are needed more than "
                "once; pass what can be gone through again, such as a DataLoader or a list of batches"
            )
        self._loader = loader
        self._gave = False

    def __iter__(self) -> Iterator[Any]:
        """Go through it from the beginning.

        Raises:
            UsageError: it gave batches before, and gives none now.
        """
        gives = False
        for batch in self._loader:
            gives = self._gave = True
            yield batch
        if self._gave and not gives:
            raise UsageError(
                "the loader gave batches once and now gives none, but they are needed more than once; let its "
                "__iter__ begin again"
            )
