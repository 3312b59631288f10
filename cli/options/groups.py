"""Options in groups, for commands with many options."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import click


class GroupedOption(click.Option):
    """An option that `--help` lists under a heading."""

    def __init__(self, *names: Any, group: str, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose `--help` lists its options by group, options without a group last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group in the order in which they were declared."""
        groups: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        others = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None or isinstance(parameter, click.Argument):
                continue
            if isinstance(parameter, GroupedOption):
                groups[parameter.group].append(record)
            else:
                others.append(record)
        for heading, records in [*groups.items(), ("Options", others)]:
            with formatter.section(heading):
                formatter.write_dl(records)


def in_group(group: str) -> Callable[..., Any]:
    """`click.option` for the options of one group."""
    return partial(click.option, cls=GroupedOption, group=group)
