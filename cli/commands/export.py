"""slimnet export: a bundle, a run or a checkpoint as an ONNX model, an exported program, or for another runtime."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.data import Labelled, data_options
from slimnet_cli.options.export_form import SINGLE, ExportForm, export_form_options
from slimnet_cli.options.groups import GroupedCommand
from slimnet_cli.options.network import Network
from slimnet_cli.options.paths import existing_source
from slimnet_cli.options.quantisation import Quantisation, quantisation_options
from slimnet_cli.options.shared import json_option, network_options
from slimnet_cli.options.sources import Source, find_source
from slimnet_cli.output import int8_table, terminal
from slimnet_cli.output.destinations import refuse_missing_folder, refuse_parts_of_others, refuse_taken_files
from slimnet_cli.output.export_phases import export_phases, int8_phases
from slimnet_cli.output.next_step import say_next
from slimnet_cli.output.phases import Phase, PhaseProgress, progress_of
from slimnet_cli.output.slimming_phases import READING

if TYPE_CHECKING:
    from torch import nn

    from slimnet.data import ImageData
    from slimnet.data.image_spec import ImageSpec
    from slimnet.export.executorch import ExecutorchExport
    from slimnet.export.int8.export import Int8Export
    from slimnet.export.ncnn import NcnnExport
    from slimnet.export.onnx import OnnxExport
    from slimnet.export.openvino import OpenVinoExport
    from slimnet.export.pt2.export import Pt2Export
    from slimnet.modules.example_inputs import Inputs

EXAMPLES = """\b
Examples:
  slimnet export slim/ -o net.onnx
  slimnet export slim/ -o images.onnx --with-preprocessing --dynamic-size
  slimnet export slim/ -o net.pt2 --with-preprocessing --layout nchw --normalise imagenet
  slimnet export slim/ -o openvino.xml
  slimnet export slim/ -o ncnn.param
  slimnet export slim/ -o net.pte
  slimnet export slim/ -o net.int8.onnx --int8 --data cifar10 --dense resnet56.th
  slimnet export slim/ -o net.int8.xml --int8 --data cifar10 --dense resnet56.th
  slimnet export resnet56.th --arch resnet56 -o dense.onnx --opset 18 --json
"""

BESIDE = {".xml": ".bin", ".param": ".bin"}
"""The extensions of files with a second one beside them, and of that one."""

NEXT = {
    "onnx": "onnxruntime.InferenceSession({0!r}) runs it; docs/onnx.md says what its inputs are",
    "pt2": "torch.export.load({0!r}).module() is the network, without slimnet",
    "openvino": "openvino.Core().compile_model({0!r}) is the network, without slimnet",
    "executorch": "executorch.runtime.Runtime.get().load_program({0!r}) is the network, without slimnet",
    "ncnn": "in ncnn.Net call load_param({0!r}) and load_model({1!r}), without slimnet",
}


@click.command(cls=GroupedCommand, epilog=EXAMPLES, short_help="Write a network as an ONNX model, also in int8.")
@click.argument("network_path", metavar="BUNDLE|RUN|CKPT", callback=existing_source)
@click.option("-o", "--out", required=True, metavar="F.onnx|F.pt2|F.xml|F.param|F.pte", help="The file to write.")
@click.option("--force", is_flag=True, help="Replace the files of an earlier export, never a .bin of another one.")
@export_form_options
@quantisation_options
@network_options(required=False, references=True)
@data_options
@json_option
def export(
    network_path: str,
    out: str,
    force: bool,
    form: ExportForm,
    quantisation: Quantisation,
    network: Network,
    data: Labelled,
    as_json: bool,
) -> None:
    """Write the network of a bundle as an ONNX model, an exported program for torch (.pt2), or for another runtime.

    The command also takes a run, or a checkpoint, which needs --arch. The file is run, and its outputs are compared
    with the network's, before it is written. An ONNX model (with BatchNorm folded) and a .pt2 are one self-contained
    file for any batch size. For OpenVINO there are two files: the graph (.xml), and the weights in float32 next to it
    (.bin); for ncnn too (.param and .bin), so the two need different names. ncnn and ExecuTorch (.pte, with XNNPACK's
    kernels) take one input at a time.

    With --with-preprocessing the file takes images as bytes, and is compared with the network after slimnet's own
    preprocessing. With --dynamic-size it takes images of any height and width. The normalisation is that of the bundle
    or the run, or --normalise. For a bundle --arch is needed only if the bundle names no architecture, or if that is
    your own code (package.module:factory).

    With --int8 the ONNX model is quantised by onnxruntime, and the file for OpenVINO by NNCF. The certificate next to
    the file (F.onnx.json, F.xml.json) states the accuracy of the network in float32 and in int8 on the test images of
    --data, and how often the two agree; with --dense those of the dense network too.
    """
    kind = form.kind(out)
    form.check(out)
    quantisation.check(kind)
    refuse_missing_folder(out)
    _refuse_taken(Path(out), int8=quantisation.int8, force=force)
    source = find_source(network_path, network)
    images = _images(source, data, form, quantisation)
    with progress_of("Exporting", _phases(source, quantisation, images)) as progress:
        progress.begin(READING)
        model = source.load()
        inputs = _inputs(source, model, images)
        known, normalise = _known(source, data, images)
        options = {} if kind in SINGLE else form.options(known, normalise, inputs.tensors[0])
        options |= {"metadata": _metadata(source)} if kind in ("onnx", "openvino") else {}
        options |= {"opset": form.opset} if kind == "onnx" else {}
        if quantisation.int8:
            assert images is not None, "it was checked"
            result: Int8Export | OnnxExport | Pt2Export | OpenVinoExport | NcnnExport | ExecutorchExport = _in_int8(
                source, model, inputs, out, images, quantisation, options, progress
            )
        else:
            result = _in_float32(kind)(model, inputs, out, **options, progress=progress.step)
    if as_json:
        terminal.emit(dataclasses.asdict(result))
        return
    _show(result, kind, out)


def _refuse_taken(out: Path, *, int8: bool, force: bool) -> None:
    """Refuse files that are there already; with `force` earlier ones of the same export may be.

    Raises:
        click.UsageError: naming the first.
    """
    parts = [out.with_suffix(BESIDE[out.suffix])] if out.suffix in BESIDE else []
    if int8:
        from slimnet.export.int8.file import certificate_path

        parts.append(certificate_path(out))
    owners = [out.with_suffix(each) for each in BESIDE if each != out.suffix]
    for part in parts:
        refuse_parts_of_others(out, part, owners if part.suffix in BESIDE.values() else ())
    refuse_taken_files([str(each) for each in (out, *parts)], force=force)


def _phases(source: Source, quantisation: Quantisation, images: ImageData | None) -> list[Phase]:
    if not quantisation.int8 or images is None:
        return export_phases()
    measured = min(len(images.x_test), quantisation.certificate_images or len(images.x_test))
    return int8_phases([*(["dense"] if quantisation.dense else []), _name(source)], measured)


def _name(source: Source) -> str:
    """What the certificate of a file in int8 calls the network."""
    return "dense" if source.blueprint is None else "slim"


def _show(result: Any, kind: str, out: str) -> None:
    console = terminal.result()
    if certificate := getattr(result, "certificate", None):
        console.print(int8_table.table(certificate))
        console.print("\n" + "\n".join(int8_table.lines(certificate)) + "\n", soft_wrap=True)
    console.print(str(result), soft_wrap=True)
    say_next(NEXT[kind].format(out, str(Path(out).with_suffix(".bin"))))


def _images(source: Source, data: Labelled, form: ExportForm, quantisation: Quantisation) -> ImageData | None:
    """The images to calibrate and measure on, or those whose normalisation becomes part of the file.

    Raises:
        click.UsageError: there are none for --int8.
    """
    needed = quantisation.int8 or data.source is not None
    unknown = form.with_preprocessing and source.images is None
    found = source.labelled(data).load(alone=True) if needed or unknown else None
    if quantisation.int8 and found is None:
        raise click.UsageError("--int8 is calibrated on training images; name them with --data")
    return found


def _inputs(source: Source, model: nn.Module, images: ImageData | None) -> Inputs:
    from slimnet.bundle.input_spec import random_inputs
    from slimnet.modules.example_inputs import Inputs

    if source.blueprint is not None:
        return random_inputs(source.blueprint.inputs, seed=0)
    return Inputs.of(source.example(model, images))


def _known(source: Source, data: Labelled, images: ImageData | None) -> tuple[ImageSpec | None, str | None]:
    """What is known of the network's images, and the normalisation that the command line gives without images."""
    if images is None:
        return source.images, data.normalise
    stored = None if source.blueprint is None else source.blueprint.images
    return (stored if stored is not None and data.normalise is None else images.spec), None


def _metadata(source: Source) -> dict[str, str]:
    return {} if source.blueprint is None else {"plan_digest": source.blueprint.plan.digest}


def _in_float32(kind: str) -> Any:
    """The function of the library that writes a kind of file."""
    if kind == "executorch":
        from slimnet.export.executorch import export_executorch

        return export_executorch
    if kind == "ncnn":
        from slimnet.export.ncnn import export_ncnn

        return export_ncnn
    if kind == "pt2":
        from slimnet.export.pt2.export import export_pt2

        return export_pt2
    if kind == "openvino":
        from slimnet.export.openvino import export_openvino

        return export_openvino
    from slimnet.export.onnx import export_onnx

    return export_onnx


def _in_int8(
    source: Source,
    model: nn.Module,
    inputs: Inputs,
    out: str,
    images: ImageData,
    quantisation: Quantisation,
    options: dict[str, Any],
    progress: PhaseProgress,
) -> Int8Export:
    from slimnet.export.int8.export import export_int8
    from slimnet.training.analysis.metrics import check_fits

    check_fits(model, images, trained=True)
    if quantisation.certificate_images is not None:
        images = images.with_fewer_tests(quantisation.certificate_images)
    return export_int8(
        model,
        inputs,
        out,
        images,
        dense=_dense(source, quantisation.dense),
        name=_name(source),
        calibration_images=quantisation.calibration_images,
        seed=quantisation.calibration_seed or 0,
        progress=progress.step,
        **options,
    )


def _dense(source: Source, checkpoint: str | None) -> nn.Module | None:
    """The network that a bundle was made from.

    Raises:
        click.UsageError: the network is no bundle's, or the architecture is not known.
    """
    if checkpoint is None:
        return None
    if source.blueprint is None:
        raise click.UsageError(f"--dense is for a bundle, and {source.path} is not a bundle; leave it out")
    from slimnet.bundle.stored_certificate import read_certificate
    from slimnet.modules.digest import weights_digest
    from slimnet.surgery.certificate_data import DENSE

    dense = source.network.or_else(source.blueprint.architecture).load(checkpoint)
    certificate = read_certificate(source.path)
    if certificate.reference == DENSE and weights_digest(dense) != certificate.reference_weights:
        terminal.note(f"{checkpoint} is not the network of the certificate in {source.path}: its weights differ")
    return dense
