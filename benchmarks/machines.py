"""Machines in words, for tables: what a result was measured on."""

from collections.abc import Mapping


def describe_machine(environment: Mapping[str, str], *more: str) -> str:
    """The processor or GPU of a measurement, as `slimnet.benchmark.Environment.rows` names them, and further entries.

    Entries that a measurement lacks are left out.
    """
    names = ("GPU", "Processor", "Vector instructions", *more)
    return ", ".join(environment[name] for name in names if name in environment)
