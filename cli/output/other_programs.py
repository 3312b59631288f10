"""A note that other programs are at work, which makes times unreliable."""

from slimnet_cli.output import terminal


def note_other_programs(consequence: str) -> None:
    """Note on stderr how many cores other programs keep busy, and the consequence, if they use a large part of one."""
    from slimnet.benchmark import environment

    where = environment()
    if where.busy:
        terminal.note(f"other programs keep {where.other_work} cores busy: {consequence}")
