"""A command run to its exit code, with what was refused in one line."""

import os
import sys
from collections.abc import Sequence

import click
from slimnet_cli.output import terminal

INTERRUPTED = 130


def run_command(command: click.Command, arguments: Sequence[str]) -> int:
    """Run a command; returns 0, or 1 where the work failed, or 2 where it was asked for wrongly."""
    name = "slimnet" if isinstance(command, click.Group) else f"slimnet {command.name}"
    try:
        # A command that leaves early, `--help` too, gives its exit code as the result.
        code = command.main(list(arguments), prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        return terminal.misused(error)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough of it; let the interpreter's last flush go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return terminal.failed(f"{error.filename or 'the system'}: {error.strerror or error}")
    except Exception as error:
        return _library_error(error)
    return code if isinstance(code, int) else 0


def _library_error(error: Exception) -> int:
    """Say what the library refused in one line; anything else is a bug and keeps its traceback."""
    from slimnet.errors import SlimnetError

    if not isinstance(error, SlimnetError):
        raise error
    return terminal.failed(str(error), error.exit_code)
