"""Pages of the command line, made from each command's own `--help`; mkdocs calls this file as a hook."""

import re
import textwrap
from collections.abc import Sequence
from typing import Any

import click
import slimnet_cli

SECTION = "Commands"
"""The part of the navigation to which the pages are added."""
CODE = re.compile(r"`([^`]+)`|'(slimnet [^']+)'|(?<![\w-])(--[a-z][\w-]*)")
"""What is set as code in a help text: text in backticks, a quoted command, an option."""


class MarkdownFormatter(click.HelpFormatter):
    """Takes the help that a command writes, and writes it as Markdown."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write the usage as a block of code."""
        self.write(f"```text\n{prog} {args}\n```\n\n")

    def write_heading(self, heading: str) -> None:
        """Write the heading of a group of options."""
        self.write(f"## {heading}\n\n")

    def write_text(self, text: str) -> None:
        """Write paragraphs; one that begins with a backspace is kept line by line, as click does."""
        for paragraph in re.split(r"\n\s*\n", textwrap.dedent(text).strip()):
            if paragraph.startswith("\b"):
                self.write(block(paragraph.removeprefix("\b").strip("\n")))
            else:
                self.write(f"{prose(' '.join(paragraph.split()))}\n\n")

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write options as a list of definitions, which fits narrow screens."""
        for option, text in rows:
            self.write(f"`{option}`\n:   {prose(' '.join(text.split()))}\n\n")


def prose(text: str) -> str:
    """A help text in which Markdown has no meaning, options and commands are code."""
    parts, end = [], 0
    for match in CODE.finditer(text):
        parts += [plain(text[end : match.start()]), f"`{next(filter(None, match.groups()))}`"]
        end = match.end()
    return "".join([*parts, plain(text[end:])])


def plain(text: str) -> str:
    """Text without a meaning in Markdown or HTML."""
    return re.sub(r"([\\*_\[\]])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))


def block(text: str) -> str:
    """A heading, `Examples:`, and the indented lines below it as code."""
    heading, _, lines = text.partition("\n")
    code = textwrap.dedent(lines).strip("\n")
    language = "toml" if code.startswith("[") else "sh"
    return f"## {heading.strip().removesuffix(':')}\n\n```{language}\n{code}\n```\n\n"


def command_page(name: str, command: click.Command) -> str:
    """The page of one command, as Markdown."""
    context = click.Context(command, info_name=f"slimnet {name}")
    formatter = MarkdownFormatter()
    command.format_help(context, formatter)
    return f"# slimnet {name}\n\n{formatter.getvalue()}"


def pages() -> dict[str, str]:
    """The page of each command, by its path in the site."""
    return {f"commands/{name}.md": command_page(name, each) for name, each in slimnet_cli.commands.commands.items()}


def on_config(config: Any) -> None:
    """Add the pages to the navigation."""
    (section,) = (entry[SECTION] for entry in config.nav if SECTION in entry)
    listed = {path for entry in section if isinstance(entry, dict) for path in entry.values()}
    section += [{path.split("/")[1].removesuffix(".md"): path} for path in pages() if path not in listed]


def on_files(files: Any, *, config: Any) -> None:
    """Add the pages to the files of the site."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
