"""Messages of the library name arguments of Python; on the command line they name the options instead."""

import re

OPTIONS = {
    "overwrite=True": "--force",
    "tolerance=": "--tolerance",
}
"""The arguments in messages of the library, and the options that give them."""

_ARGUMENT = re.compile("|".join(rf"(?<![\w/.=-]){re.escape(name)}(?![\w/'\"{{\[(])" for name in OPTIONS))


def with_options(text: str) -> str:
    """A message with each argument of Python replaced by its option."""
    return _ARGUMENT.sub(lambda found: OPTIONS[found[0]], text)
