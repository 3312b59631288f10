"""The command line of slimnet: one command in a file, the work in the library.

Nothing here imports torch before a command needs it, so that `slimnet --help` answers at once.
"""

import sys
from collections.abc import Sequence

import click
from slimnet_cli.commands.analyse import analyse
from slimnet_cli.commands.benchmark import benchmark
from slimnet_cli.commands.census import census
from slimnet_cli.commands.checks import checks
from slimnet_cli.commands.compare import compare
from slimnet_cli.commands.demo import demo
from slimnet_cli.commands.export import export
from slimnet_cli.commands.finetune import finetune
from slimnet_cli.commands.inspect import inspect
from slimnet_cli.commands.ladder import ladder
from slimnet_cli.commands.push import push
from slimnet_cli.commands.report import report
from slimnet_cli.commands.reproduce import reproduce
from slimnet_cli.commands.slim import slim
from slimnet_cli.commands.sweep import sweep
from slimnet_cli.commands.train import train
from slimnet_cli.commands.verify import verify
from slimnet_cli.options.machine import launched_with_others
from slimnet_cli.output import terminal
from slimnet_cli.output.exit_codes import INTERRUPTED as INTERRUPTED
from slimnet_cli.output.exit_codes import run_command
from slimnet_cli.progress.signals import Terminated, end_on_signals

EXAMPLES = """\b
Examples:
  slimnet demo --out runs/demo
  slimnet inspect resnet56.th --arch resnet56
  slimnet slim resnet56.th --arch resnet56 -o slim/
"""


@click.group(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="slimnet", message="%(package)s %(version)s")
def commands() -> None:
    """Make trained convolutional networks smaller without changing what they compute."""


for command in (
    slim,
    ladder,
    inspect,
    census,
    export,
    finetune,
    verify,
    push,
    benchmark,
    report,
    compare,
    train,
    analyse,
    sweep,
    reproduce,
    demo,
    checks,
):
    commands.add_command(command)


def main() -> None:
    """Run the command line and exit with its exit code; signals that end it raise an exception, for clean-up."""
    end_on_signals()
    try:
        code = run(sys.argv[1:])
    except Terminated as ended:
        # torchrun reports itself why it ended its processes.
        code = ended.exit_code if launched_with_others() else terminal.failed(str(ended), ended.exit_code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns 0, 1 if the work failed, or 2 if the request was wrong."""
    return run_command(commands, arguments or ["--help"])
