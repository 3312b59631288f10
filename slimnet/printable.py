"""Text from files made printable, without control characters, changes of direction or line breaks; and results."""

import html
import re
from abc import ABC, abstractmethod
from unicodedata import category

LONGEST = 2000
"""How many characters of a message are shown; an honest one has a quarter of that."""

ENDING = 400
"""How many of these are the last ones, which say what to do."""


def printable(text: str, kept: str = "") -> str:
    """Text with every control character, mark of direction and half character as its escape, such as `\\x1b`.

    Those in `kept` stay, as do spaces of any width.
    """
    if text.isprintable():
        return text
    return "".join(letter if _is_harmless(letter) or letter in kept else _escaped(letter) for letter in text)


def message(text: str) -> str:
    """Text as one printable line of at most `LONGEST` characters."""
    line = printable(re.sub(r"\s*[\r\n]\s*", " ", text.strip()))
    if len(line) <= LONGEST:
        return line
    return f"{line[: LONGEST - ENDING - 3]} … {line[-ENDING:]}"


def _is_harmless(letter: str) -> bool:
    return letter.isprintable() or category(letter) == "Zs"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


class Summarised(ABC):
    """A result that is one line where Python shows a value, and its whole text in a notebook."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """The result in a few words."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {message(self.summary)}>"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(printable(str(self), kept=chr(10)))}</pre>"
