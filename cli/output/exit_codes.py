"""The exit code of a command, with errors reported in one line."""

import os
import sys
from collections.abc import Sequence

import click
from slimnet_cli.output import terminal
from slimnet_cli.output.option_names import with_options

INTERRUPTED = 130

TOO_LARGE = ("DefaultCPUAllocator", "Storage size calculation overflowed", "integer multiplication overflow")
"""What torch says of a tensor for which there is not enough memory, or cannot be on any machine."""


def run_command(command: click.Command, arguments: Sequence[str]) -> int:
    """Run a command; returns 0, 1 if the work failed, or 2 if the request was wrong."""
    name = "slimnet" if isinstance(command, click.Group) else f"slimnet {command.name}"
    try:
        # A command that exits early, such as for `--help`, returns its exit code.
        code = command.main(list(arguments), prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        return terminal.misused(error)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe; the interpreter's final flush must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return terminal.failed(f"{error.filename or 'the system'}: {error.strerror or error}")
    except Exception as error:
        return _library_error(error)
    return code if isinstance(code, int) else 0


def _library_error(error: Exception) -> int:
    """Report an error of the library in one line; any other exception is a bug and keeps its traceback."""
    from slimnet.errors import SlimnetError, reason

    if isinstance(error, SlimnetError):
        return terminal.failed(with_options(str(error)), error.exit_code)
    if is_out_of_memory(error):
        return terminal.failed(f"not enough memory ({reason(error)}); take smaller batches, images or networks")
    raise error


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, a device or torch's allocator on the CPU, which has no class of its own for that, ran out.

    So did what asks for more bytes than 64 bits can count.
    """
    import torch

    too_large = isinstance(error, RuntimeError) and any(words in str(error) for words in TOO_LARGE)
    return too_large or isinstance(error, MemoryError | torch.OutOfMemoryError)
