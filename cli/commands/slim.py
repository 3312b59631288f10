"""slimnet slim: from a checkpoint to a bundle with its certificate."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.budget import Target, target_options
from slimnet_cli.options.data import Labelled, criterion_images, data_options, spec_without_images
from slimnet_cli.options.groups import GroupedCommand
from slimnet_cli.options.machine import on_device
from slimnet_cli.options.network import Network
from slimnet_cli.options.onnx_file import check_pair, is_onnx, new_bundle_or_onnx, refuse_other_options
from slimnet_cli.options.paths import FORCE, existing_source
from slimnet_cli.options.removal import Removing, removing_options
from slimnet_cli.options.shared import as_one, json_option, network_options
from slimnet_cli.options.sources import Source, bundle_arguments, find_source
from slimnet_cli.output import before_after, terminal
from slimnet_cli.output.phases import Phase, PhaseProgress, progress_of
from slimnet_cli.output.slim_result import Budgeted, SlimResult, show_file, show_plan
from slimnet_cli.output.slimming_phases import CHOICE, DENSE_ACCURACY, READING, REMOVAL, slimming_phases

if TYPE_CHECKING:
    from torch import nn

    from slimnet import Certificate, Slimmed
    from slimnet.counting import NetworkCounts
    from slimnet.data import ImageData
    from slimnet.graph.channel_graph import ChannelGraph
    from slimnet.methods import Selection
    from slimnet.pipeline import RoundTo
    from slimnet.planning.dead_channels import DeadChannels
    from slimnet.training import Accuracy

EXAMPLES = """\b
Examples:
  slimnet slim runs/digits -o slim/
  slimnet slim resnet56.th --arch resnet56 -o slim/
  slimnet slim resnet56.th --arch resnet56 --dry-run
  slimnet slim vgg.pt --arch vgg16 --criterion activation --data cifar10 -o slim/
  slimnet slim resnet56.th --arch resnet56 --target-macs 0.5 --data cifar10 -o half/
  slimnet slim mobilenet.pt --arch torchvision:mobilenet_v2 --round auto -o slim/
  slimnet slim net.pt --arch basicnet --arch-args '{"in_channels": 1}' --data digits -o slim/
  slimnet slim net.onnx -o slim.onnx
"""


@dataclass(frozen=True)
class Output:
    """The bundle to write, whether its exported forms take images of any size, and on how many it is measured.

    With `dry_run` only the plan is printed.
    """

    out: str | None
    force: bool
    dry_run: bool
    dynamic_size: bool
    certificate_images: int | None


output_options = as_one(
    "output",
    Output,
    (
        click.option(
            "-o",
            "--out",
            metavar="DIR|F.onnx",
            callback=new_bundle_or_onnx,
            help="The folder of the new bundle, or for F.onnx the slim ONNX file; it must not exist without --force.",
        ),
        FORCE,
        click.option("--dry-run", is_flag=True, help="Print the plan and write nothing."),
        click.option(
            "--dynamic-size",
            is_flag=True,
            help="The bundle's ONNX model and exported program take images of any height and width.",
        ),
        click.option(
            "--certificate-images",
            type=click.IntRange(1),
            metavar="N",
            help="Measure certificate and accuracy on this many test images, evenly spaced.  [default: all]",
        ),
    ),
)


@click.command(cls=GroupedCommand, epilog=EXAMPLES, short_help="Remove the dead channels of a network.")
@click.argument("checkpoint", metavar="CKPT|RUN|BUNDLE|F.onnx", callback=existing_source)
@network_options(required=False, references=True)
@on_device
@output_options
@removing_options
@target_options
@data_options
@json_option
def slim(
    checkpoint: str,
    network: Network,
    output: Output,
    removing: Removing,
    target: Target | None,
    data: Labelled,
    as_json: bool,
) -> None:
    """Remove the dead channels of a trained network, and certify that its outputs do not change.

    CKPT is a checkpoint (.pt, .pth, .th, .safetensors), which needs --arch; RUN is the folder of a training run, which
    stores its architecture, the place of its data and what its images are; BUNDLE is a network that was slimmed before.
    The command writes a bundle: the slim weights, an ONNX model, the plan and the certificate. With --data the
    certificate is measured on the test images and the accuracy is shown; without --data, it is measured on random
    inputs. The bundle and its ONNX model state the normalisation, the image size and the classes of --data or of the
    run; without these, only the normalisation of --normalise.

    F.onnx is for a network whose code you do not have. A channel is dead if its BatchNorm has a small γ, or if its
    filter is zero. The command writes a slim ONNX file with the same nodes, names and outputs; the certificate compares
    both files under onnxruntime on random inputs. For dynamic sizes of the input give --input-shape; images are
    otherwise 224 × 224.

    Kernels work on blocks of channels, so removable channels are kept where the layers are as fast with them. This is
    decided by times of the kernels of onnxruntime, or of the --runtime of --target-latency. They are measured once on a
    machine, in about ten seconds, and stored in ~/.cache/slimnet. With --round none every removable channel is removed,
    and fewer MACs can take more time. With --round auto whole networks are measured, the dense one among them.

    With --criterion activation a channel is dead if its activation is zero on all training images of --data, on which
    the network runs once. Removing it is exact on these images; the certificate measures the effect on the test images.

    With a budget, live channels are removed as well, those with the lowest importance per cost first. That is no longer
    exact, and the accuracy shown is that before any fine-tuning. With --data the remaining weights are fitted to the
    dense network's activations on a few training images, without labels; with --refit and no data, on images that are
    synthesised from BatchNorm statistics. Without either, only the BatchNorm statistics are re-estimated.
    """
    check_pair(checkpoint, output.out)
    if output.out is None and not output.dry_run:
        raise click.UsageError("give the bundle's folder with -o DIR, or print only the plan with --dry-run")
    if is_onnx(checkpoint):
        refuse_other_options(click.get_current_context(), checkpoint, measures_widths=removing.measures_widths)
        _slim_file(checkpoint, network, output, removing, as_json)
        return
    source = find_source(checkpoint, network)
    data = source.labelled(data)
    removing.check(data, budget=target is not None)
    removing = removing.under(target and target.runtime)
    if output.out is None or output.dry_run:
        _show_plan(source, removing, target, data, as_json)
        return
    result = _write_bundle(source, removing, target, data, output)
    if as_json:
        terminal.emit(result.document())
    else:
        result.show()


def _slim_file(path: str, network: Network, output: Output, removing: Removing, as_json: bool) -> None:
    """Slim an ONNX file, or show the plan of it."""
    from slimnet.onnx_slimming.slim_onnx import plan_onnx, slim_onnx

    asked: dict[str, Any] = {"keep": removing.keep, "input_shape": network.input_shape}
    with removing.showing_progress("Slimming") as (round_to, say):
        asked["round_to"] = round_to
        if output.out is None or output.dry_run:
            plan = plan_onnx(path, removing.threshold, **asked)
        else:
            asked |= {"tolerance": removing.tolerance, "overwrite": output.force}
            slimmed = slim_onnx(path, output.out, removing.threshold, progress=lambda _, __, doing: say(doing), **asked)
            plan = slimmed.plan
    if output.out is None or output.dry_run:
        show_plan(plan, as_json=as_json)
    elif as_json:
        terminal.emit(before_after.onnx_document(slimmed))
    else:
        show_file(slimmed)


def _show_plan(source: Source, removing: Removing, target: Target | None, data: Labelled, as_json: bool) -> None:
    """Print the plan, and write nothing."""
    import slimnet
    from slimnet.methods import plan_for

    images = data.load() if target or removing.needs_data else None
    if target:
        target.check(images)
    selection = None
    with removing.showing_progress("Planning") as (round_to, say):
        model = source.load()
        example = source.example(model, images)
        if target:
            selection, widths = target.choose(model, example, images, removing, round_to)
            plan = plan_for(model, example, selection, round_to=widths)
        else:
            measured: dict[str, Any] = {"criterion": removing.criterion, "loader": criterion_images(images, say)}
            measured["keep"] = removing.keep
            plan = slimnet.inspect(model, example, removing.threshold, round_to=round_to, **measured).plan
    show_plan(plan, selection, as_json=as_json)


def _write_bundle(
    source: Source, removing: Removing, target: Target | None, data: Labelled, output: Output
) -> SlimResult:
    """Slim the network of a checkpoint, and write the bundle."""
    from slimnet.bundle.bundle import save
    from slimnet.training.analysis.metrics import check_fits

    assert output.out is not None, "it was checked"
    images = _certificate_images(data, output)
    if target:
        target.check(images)
    removing.note_load()
    with progress_of("Slimming", _phases(removing, target, images)) as progress:
        round_to = removing.rounding(progress.trying, progress.say)
        progress.begin(READING)
        dense = source.load()
        example = source.example(dense, images)
        if images:
            check_fits(dense, images)
        slimmed, selection = _slimmed(dense, example, removing, round_to, target, images, progress)
        if target:
            slimmed = target.timed(dense, slimmed, example, progress.begin)
        accuracies = _accuracies(dense, slimmed.certificate, images, progress) if images else None
        if accuracies and slimmed.certificate.is_of_masked:
            certificate = dataclasses.replace(slimmed.certificate, dense_accuracy=accuracies[0])
            slimmed = dataclasses.replace(slimmed, certificate=certificate)
        described = _description(source, data, images, example, output)
        folder = save(slimmed, output.out, overwrite=output.force, progress=progress.step, **described)
        counts = _counts(dense, slimmed, example)
    budgeted = None
    if target and selection is not None:
        budgeted = Budgeted(dataclasses.asdict(target), selection, target.correction_in_words(images))
    return SlimResult(slimmed, folder, counts, accuracies, data.source, budgeted, bundle_arguments(folder))


def _certificate_images(data: Labelled, output: Output) -> ImageData | None:
    """The images of --data, with as many test images as --certificate-images asks for."""
    images = data.load(alone=True)
    if output.certificate_images is None:
        return images
    if images is None:
        raise click.UsageError("--certificate-images are test images; name them with --data")
    return images.with_fewer_tests(output.certificate_images)


def _phases(removing: Removing, target: Target | None, images: ImageData | None) -> list[Phase]:
    """The phases that the command goes through."""
    return slimming_phases(
        widths=removing.measures_widths,
        budget=target is not None,
        refit=target is not None and target.fits(images),
        latency=target is not None and target.unit == "latency",
        images=0 if images is None else len(images.x_test),
    )


def _description(
    source: Source, data: Labelled, images: ImageData | None, example: Any, output: Output
) -> dict[str, Any]:
    """What a bundle says of its network: the file it comes from, its images, and whether they may have any size."""
    known = source.blueprint
    spec = images.spec if images else spec_without_images(data.normalise, example, source.stored_images)
    any_size = output.dynamic_size or (known is not None and known.dynamic_size)
    return {"source": source.path.name, "images": spec, "dynamic_size": any_size}


def _counts(dense: nn.Module, slimmed: Slimmed, example: Any) -> tuple[NetworkCounts, NetworkCounts]:
    """What both networks cost, by fvcore where it can trace them."""
    from slimnet.counting import count_or_take

    plan = slimmed.plan
    return (
        count_or_take(dense, example, plan.macs_before),
        count_or_take(slimmed.model, example, plan.macs_after),
    )


def _slimmed(
    dense: nn.Module,
    example: Any,
    removing: Removing,
    round_to: RoundTo,
    target: Target | None,
    images: ImageData | None,
    progress: PhaseProgress,
) -> tuple[Slimmed, Selection | None]:
    """The slim network, exact or to a budget, and the channels selected for the budget."""
    from slimnet.data import Batches
    from slimnet.methods import remove_selected
    from slimnet.pipeline import CERTIFYING, SEARCHING, slim_found
    from slimnet.planning.dead_channels import find_dead

    loader = Batches(images, progress=progress.counting(CERTIFYING)) if images else None
    limits: dict[str, Any] = {"loader": loader, "tolerance": removing.tolerance}
    if target is None:
        measured_on = Batches(images, "train", progress=progress.counting(SEARCHING)) if images else None

        def find(graph: ChannelGraph) -> DeadChannels:
            return find_dead(dense, graph, removing.threshold, removing.criterion, measured_on, removing.keep)

        return slim_found(dense, example, find, round_to=round_to, progress=progress.step, **limits), None
    progress.begin(CHOICE)
    selection, widths = target.choose(dense, example, images, removing, round_to)
    progress.begin(REMOVAL)
    limits |= target.correction(dense, example, images, progress)
    return remove_selected(dense, example, selection, round_to=widths, **limits), selection


def _accuracies(
    dense: nn.Module, certificate: Certificate, images: ImageData, progress: PhaseProgress
) -> tuple[Accuracy, Accuracy]:
    """The accuracy of both networks on the test images, from the certificate if it was measured there."""
    from slimnet.surgery.certificate_data import DENSE
    from slimnet.training import evaluate

    assert certificate.accuracies is not None, "the network scores these images"
    before, after = certificate.accuracies
    if certificate.reference != DENSE:
        before = evaluate(dense, images, progress=progress.counting(DENSE_ACCURACY))
    return before, after
