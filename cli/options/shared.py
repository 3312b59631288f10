"""Options that several commands share, and their parsers."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import click
from slimnet_cli.options.architectures import known_architecture
from slimnet_cli.options.names import CRITERIA, one_of
from slimnet_cli.options.network import Network

Command = Callable[..., Any]

json_option = click.option("--json", "as_json", is_flag=True, help="Write the result to stdout as JSON.")
THRESHOLD = 1e-3
threshold_option = click.option(
    "--threshold",
    type=float,
    default=THRESHOLD,
    show_default=True,
    help="A channel whose BatchNorm has |γ| below this is dead.",
)
criterion_option = click.option(
    "--criterion",
    callback=one_of("criterion", CRITERIA),
    default="gamma",
    show_default=True,
    help="What makes a channel dead: gamma (|γ| below --threshold), or activation (zero on all training images of "
    "--data).",
)


keep_option = click.option(
    "--keep",
    multiple=True,
    metavar="LAYER|GLOB",
    help="Keep the width of this layer, or of all layers of this module; may be given several times.",
)


def as_one(name: str, kind: Callable[..., Any], options: Sequence[Callable[[Command], Command]]) -> Any:
    """A decorator that adds options, in this order; the command gets the fields of `kind` as one argument, `name`."""
    fields = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_one(**given: Any) -> Any:
            own = {field: given.pop(field) for field in fields}
            return command(**{name: kind(**own)}, **given)

        added: Command = with_one
        for option in reversed(options):
            added = option(added)
        return added

    return decorate


def positive_numbers(_: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Turn "3,224,224" into (3, 224, 224); the example in the error is the option's default, or a shape."""
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        example = option.default if isinstance(option.default, str) else "3,224,224"
        raise click.BadParameter(f"{text!r} is not a list of positive whole numbers such as {example}")
    return tuple(int(part) for part in parts)


def json_object(_: click.Context, __: click.Parameter, text: str | None) -> dict[str, Any]:
    """Turn '{"width": 0.5}' into a dict."""
    try:
        value = json.loads(text) if text is not None else {}
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f'{text!r} is not JSON ({error}); write it like {{"width": 0.5}}') from error
    if not isinstance(value, dict):
        raise click.BadParameter(f'{text!r} is not a JSON object; write it like {{"width": 0.5}}')
    return value


TRUST = click.option(
    "--trust",
    is_flag=True,
    help="Build the network that a file names, or unpickle the one that it contains, even if that runs code "
    "(package.module:factory) or opens other files.",
)


def architecture_options(
    *, required: bool, checkpoints: bool = True, references: bool = False
) -> Callable[[Command], Command]:
    """Add `--arch` and `--arch-args`; `--weights` for commands that read checkpoints, `--trust` for untrusted files."""
    arch = click.option(
        "--arch",
        required=required,
        metavar="ARCH",
        callback=known_architecture,
        help="basicnet, vgg16, resnet56, ..., torchvision:NAME, timm:NAME, package.module:factory or file.py:Class.",
    )
    arch_args = click.option(
        "--arch-args",
        callback=json_object,
        metavar="JSON",
        help="Arguments of the architecture, as a JSON object.",
    )
    weights = click.option(
        "--weights",
        metavar="NAME",
        help="Which weights of a checkpoint: plain, ema (a moving average), or the name of an entry or a prefix "
        "of names, such as teacher.  [default: plain if the checkpoint has them]",
    )
    others = [option for option, wanted in ((weights, checkpoints), (TRUST, references)) if wanted]
    return lambda command: functools.reduce(lambda added, option: option(added), [*others, arch_args, arch], command)


def architecture_option(
    command: Command, *, required: bool = False, checkpoints: bool = True, references: bool = False
) -> Command:
    """Add the `architecture_options`; the command gets one `network`."""

    @functools.wraps(command)
    def with_network(
        arch: str | None, arch_args: dict[str, Any], weights: str | None = None, trust: bool = False, **others: Any
    ) -> Any:
        return command(network=Network(arch, arch_args, weights=weights, trust=trust), **others)

    return architecture_options(required=required, checkpoints=checkpoints, references=references)(with_network)


def network_options(*, required: bool = True, references: bool = False) -> Callable[[Command], Command]:
    """Add the `architecture_options` and `--input-shape`; the command gets them as one `network`."""
    shape = click.option(
        "--input-shape",
        callback=positive_numbers,
        metavar="C,H,W",
        help="Shape of one input, without the batch.  [default: the usual one of the architecture]",
    )

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_network(
            arch: str | None,
            arch_args: dict[str, Any],
            weights: str | None,
            input_shape: tuple[int, ...] | None,
            trust: bool = False,
            **others: Any,
        ) -> Any:
            return command(network=Network(arch, arch_args, input_shape, weights=weights, trust=trust), **others)

        return architecture_options(required=required, references=references)(shape(with_network))

    return decorate
