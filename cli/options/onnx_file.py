"""An ONNX file in the place of a checkpoint: what of a command line applies to it."""

from __future__ import annotations

from pathlib import Path

import click
from slimnet_cli.options.paths import PathOrText, new_bundle
from slimnet_cli.output.destinations import refuse_missing_folder, refuse_taken_files

ENDING = ".onnx"

APPLY = {
    "checkpoint", "out", "force", "dry_run", "threshold", "tolerance", "round_to", "keep", "input_shape", "as_json",
}  # fmt: skip
"""The parameters of `slimnet slim` that apply to an ONNX file."""


def is_onnx(path: str | Path) -> bool:
    """Whether a path names an ONNX file by its ending."""
    return Path(path).suffix.lower() == ENDING and not Path(path).is_dir()


def new_bundle_or_onnx(context: click.Context, parameter: click.Parameter, path: PathOrText) -> PathOrText:
    """Refuse a folder or an ONNX file that could not be written; with --force an earlier one may be there.

    Raises:
        click.UsageError: naming the obstacle.
    """
    if path is None or not is_onnx(path):
        return new_bundle(context, parameter, path)
    refuse_missing_folder(str(path))
    refuse_taken_files([str(path)], force=bool(context.params.get("force")))
    return path


def check_pair(checkpoint: str, out: str | None) -> None:
    """Refuse an ONNX file that is to become a bundle, and a checkpoint that is to become an ONNX file.

    Raises:
        click.UsageError: saying what to do.
    """
    if out is None or is_onnx(checkpoint) == is_onnx(out):
        return
    if is_onnx(checkpoint):
        raise click.UsageError(f"{checkpoint} is an ONNX file, and so is the result; name it with -o SLIM.onnx")
    raise click.UsageError(f"-o is the folder of a bundle, not {out}; slimnet export writes the bundle as an ONNX file")


def refuse_other_options(context: click.Context, checkpoint: str, *, measures_widths: bool) -> None:
    """Refuse options that do not apply to an ONNX file: it has no code, and comes without labels.

    `measures_widths` is whether widths are to be chosen by measuring whole networks.

    Raises:
        click.UsageError: naming the first.
    """
    given = {click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT}
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in APPLY and context.get_parameter_source(name) in given:
            raise click.UsageError(
                f"{parameter.opts[0]} does not apply to {checkpoint}: an ONNX file has neither code nor "
                "labels; leave it out"
            )
    if measures_widths:
        raise click.UsageError("--round auto measures whole networks in torch; for an ONNX file give --round fast")
