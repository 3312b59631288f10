"""Errors with one-line messages: what was wrong, where, and what to do about it."""

import difflib
from collections.abc import Iterable

from slimnet.printable import message


class SlimnetError(Exception):
    """Anything slimnet refuses or fails to do; the message is one line meant for people.

    `exit_code` is what the command line returns: 2 where the request was wrong, 1 where the work failed. Names in the
    message may come from any file: what cannot be printed is shown as its escape.
    """

    exit_code = 1

    def __init__(self, text: object = "") -> None:
        super().__init__(message(str(text)))


class UsageError(SlimnetError):
    """The request itself is wrong: a bad threshold, an unknown option value, inputs that do not fit."""

    exit_code = 2


class ArchitectureError(UsageError):
    """An architecture reference that names nothing, or whose factory raises."""


class CheckpointError(UsageError):
    """A checkpoint that cannot be read, is not safe to read, or belongs to another architecture."""


class DataError(UsageError):
    """A data set that is missing, malformed, or does not fit the network."""


class InputError(UsageError):
    """Example inputs that the network cannot take: shape, dtype, device or number."""


class TraceError(SlimnetError):
    """A network whose forward cannot be followed without real data."""


class PlanError(UsageError):
    """A plan that is malformed or belongs to another network."""


class CertificateError(SlimnetError):
    """The slim network's outputs differ from the dense one's by more than the tolerance."""


class BundleError(UsageError):
    """A bundle that is incomplete, was changed after it was written, or cannot be written."""


class ChangedBundleError(BundleError):
    """A bundle of which a file is missing, damaged, or no longer what was written."""

    exit_code = 1


class ExportError(SlimnetError):
    """An exported model that could not be made or does not agree with the module."""


class HubError(SlimnetError):
    """A hub of models that cannot be reached, or that refuses a request."""


LONGEST_SHOWN = 80
"""How many characters of a value are shown in an error."""


def shown(value: object) -> str:
    """A value that a caller gave, in a line: arrays by their shape, and by its type what Python writes at length."""
    kind = type(value).__name__
    article = "an" if kind[0] in "AEIOUaeiou" else "a"
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{article} {kind} of shape {tuple(shape)}"
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN and "\n" not in text else f"{article} {kind}"


def near_names(given: str, names: Iterable[str], most: int) -> list[str]:
    """At most so many of the names that an unknown one may have been meant for, the nearest first."""
    lower = {name.lower(): name for name in names}
    return [lower[near] for near in difflib.get_close_matches(str(given).lower(), lower, n=most, cutoff=0.5)]


def nearest_name(given: str, names: Iterable[str]) -> str:
    """A suggestion for an unknown name, and the list of valid ones."""
    known = list(names)
    nearest = near_names(given, known, 1)
    hint = f"did you mean {nearest[0]}?" if nearest else "choose one"
    return f"{hint} ({', '.join(known)})"


def check_name(kind: str, name: object, known: Iterable[str]) -> None:
    """Refuse a name that is none of those that there are of a kind.

    Raises:
        UsageError: with the nearest name.
    """
    names = list(known)
    if not isinstance(name, str) or name not in names:
        raise UsageError(f"there is no {kind} {shown(name)}; {nearest_name(str(name), names)}")


def reason(error: BaseException) -> str:
    """The kind of an exception and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def short_reason(error: BaseException) -> str:
    """The first line of an error, up to 200 characters, behind its kind unless it is one of slimnet's."""
    lines = str(error).strip().splitlines()
    line = lines[0][:200] if lines else type(error).__name__
    return line if isinstance(error, SlimnetError) else f"{type(error).__name__}: {line}"


def whole_reason(error: BaseException) -> str:
    """The kind of an exception and everything that it says, in one line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
