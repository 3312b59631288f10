"""Addresses of repositories on the Hugging Face Hub: hf://owner/name, or hf://owner/name@revision."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from slimnet.errors import UsageError

SCHEME = "hf://"

PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
FORM = re.compile(rf"({PART})/({PART})(?:@([A-Za-z0-9][A-Za-z0-9._/-]{{0,254}}))?")


@dataclass(frozen=True)
class Address:
    """A repository of models, and a branch, a tag or a commit of it; None for its default branch."""

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read an address, with or without `hf://`.

        Raises:
            UsageError: it is none.
        """
        found = FORM.fullmatch(text.removeprefix(SCHEME))
        # The client makes paths of its cache from both.
        if found is None or ".." in text or "--" in text or "//" in text.removeprefix(SCHEME):
            raise UsageError(f"{text} names no repository of a hub; write {SCHEME}owner/name or owner/name@revision")
        owner, name, revision = found.groups()
        return cls(f"{owner}/{name}", revision)

    def at(self, revision: str) -> "Address":
        """The same repository at another revision."""
        return replace(self, revision=revision)

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}" + (f"@{self.revision}" if self.revision else "")


def is_address(place: object) -> bool:
    """Whether a place is an address and no path."""
    return isinstance(place, str | Path) and str(place).startswith(SCHEME)
