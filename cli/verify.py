"""slimnet verify: check a bundle again, on this machine."""

from __future__ import annotations

import click


@click.command()
def verify() -> None:
    """."""
