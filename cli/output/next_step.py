"""The last line of a command's result: what one does next, as a command where there is one."""

import shlex
from pathlib import Path

from slimnet_cli.output import terminal


def show_next(*words: str | Path) -> None:
    """Print the command of slimnet with these words."""
    say_next(shlex.join(["slimnet", *map(str, words)]))


def say_next(step: str) -> None:
    """Print a step that is no command of slimnet, or the same command in another way."""
    terminal.result().print(f"next: {step}", soft_wrap=True)
