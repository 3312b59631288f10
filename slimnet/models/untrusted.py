"""Architecture references that were read from a file, which must neither run code nor cause downloads.

`package.module:factory` would import and call arbitrary code, and arguments such as timm's `checkpoint_path` or
torchvision's `weights` open files or connect to a server. A name that is read from a file is an `UntrustedName`, and
`slimnet.build` refuses it if it would do either.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from slimnet.errors import ArchitectureError

LIBRARIES = ("torchvision", "timm")
"""The packages whose networks a file may name, besides the built-in ones."""

LARGEST_NUMBER = 1 << 16
"""The largest number in an argument from a file: a width, a depth, a number of classes."""

NESTING = 8
"""The largest nesting depth of lists and objects in the arguments."""

TEXT = re.compile(r"[\w.+-]{0,64}")
"""The permitted texts in the arguments: names of activations or variants, but no paths and no addresses."""

SOURCES = re.compile(r"(^|_)(pretrained|weights|checkpoint|state|url|path|file|dir|hub|cache|source|cfg|overlay|token)")
"""Arguments with one of these words in their name give the source of weights; only None and False are permitted."""

HARMLESS = ("drop_path", "drop_path_rate", "init_weights")
"""Arguments with such a word that have another meaning."""

TRUST = "if you trust it, say so with trust=True, or Recipe.trusted()"


class UntrustedName(str):
    """The name of an architecture that was read from a file; equal to the same trusted name."""

    __slots__ = ()


def imports_code(name: str) -> bool:
    """Whether building an architecture of this name imports and calls code, `package.module:factory`."""
    return ":" in name and name.partition(":")[0] not in LIBRARIES


def needs_trust(name: str, args: Mapping[str, Any]) -> bool:
    """Whether a reference that is read from a file is built only if the caller trusts it."""
    try:
        check_reference(name, args)
    except ArchitectureError:
        return True
    return False


def check_reference(name: str, args: Mapping[str, Any]) -> None:
    """Refuse a reference from a file that would run code or open other files.

    Raises:
        ArchitectureError: naming the code, or the argument.
    """
    if imports_code(name):
        raise ArchitectureError(f"{name} was read from a file and would import and call {name}; {TRUST}")
    check_arguments(name, args)


def check_arguments(name: str, args: Mapping[str, Any]) -> None:
    """Refuse arguments from a file that would cause downloads, open files, or build a network of any size.

    Raises:
        ArchitectureError: naming the argument.
    """
    for key, value in args.items():
        problem = _problem(key, value, NESTING)
        if problem is not None:
            raise ArchitectureError(f"the argument {key!r} of {name} was read from a file and {problem}; {TRUST}")


def _problem(key: str, value: Any, depth: int) -> str | None:
    """Why an argument is refused, or None."""
    if value is None or value is False:
        return None
    if SOURCES.search(key) and key not in HARMLESS:
        return "says where weights come from"
    if isinstance(value, bool | int | float | str):
        return _problem_of_plain(value)
    if depth == 0 or not isinstance(value, list | tuple | Mapping):
        return "is neither a number, a name, nor a list or object of them"
    pairs = value.items() if isinstance(value, Mapping) else ((key, item) for item in value)
    return next(filter(None, (_problem(str(inner), item, depth - 1) for inner, item in pairs)), None)


def _problem_of_plain(value: bool | int | float | str) -> str | None:
    """Why a number or a text is refused, or None."""
    if isinstance(value, str):
        return None if TEXT.fullmatch(value) else "is a text that may be a path or an address"
    within = math.isfinite(value) and abs(value) <= LARGEST_NUMBER
    return None if within else f"is over {LARGEST_NUMBER:,}"
