"""save, load, verify_bundle: a slim network as a folder without pickle, written atomically after it was checked."""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from torch import nn

from slimnet.arguments import check_type
from slimnet.bundle.activations import check_activations
from slimnet.bundle.blueprint import Blueprint, weights_into, write_weights
from slimnet.bundle.compared_sizes import image_sizes, sizes
from slimnet.bundle.forms import batches_for, check_exports, compare, forms, joined, module_runner
from slimnet.bundle.further_training import trained_further
from slimnet.bundle.input_spec import random_inputs
from slimnet.bundle.manifest import CERTIFICATE, ONNX, PLAN, PROGRAM, WEIGHTS, read_manifest, write_manifest
from slimnet.bundle.projections import PROJECTIONS, read_projections, write_projections
from slimnet.bundle.remote import local_folder
from slimnet.bundle.stored_certificate import read_certificate
from slimnet.data.image_spec import ImageSpec, images_of
from slimnet.errors import BundleError, CertificateError, ChangedBundleError, PlanError, UsageError
from slimnet.export.form import Form, capture_form, conditions, metadata_of
from slimnet.export.onnx import write_onnx
from slimnet.export.preprocessing import check_images
from slimnet.export.pt2.runner import TorchRunner, program_bytes
from slimnet.export.random_forward import Runner
from slimnet.models.architecture import Architecture
from slimnet.models.bounded_build import Shapes, bounded_by
from slimnet.modules.loaders import batches_once
from slimnet.shrinking.projection_record import ProjectionRecord
from slimnet.slimmed import Slimmed
from slimnet.steps import StepCallback, Steps, log_result
from slimnet.storage.folder_names import REMAKE
from slimnet.storage.written_folders import BUNDLE
from slimnet.surgery.certificate import certify
from slimnet.surgery.certificate_data import DENSE, Certificate
from slimnet.torch_state.devices import device_of
from slimnet.torch_state.precision import autocast_off
from slimnet.torch_state.random_state import random_numbers_kept

SAVING = WRITING, EXPORTING, COMPARING = "writing weights and plan", "exporting", "comparing all forms"
"""The steps of `save`."""

READING, MEASURING = "reading the bundle", "measuring the certificate again"
VERIFYING = READING, COMPARING, MEASURING
"""The steps of `verify_bundle`; the last one only with the dense network."""

DENSE_AT_LEAST, DENSE_TO_SLIM = 1 << 26, 256
"""The elements that the dense network of an untrusted bundle may have: in all, or for each element of its weights."""

ANOTHER_DENSE = "not the one of the bundle's certificate: its weights differ"
"""The message about a dense network from which the bundle was not made."""


@dataclass(frozen=True)
class Verification:
    """The result of the verification of a bundle.

    `differences` are, for each form of the network except the first, the largest relative difference between its
    outputs and those of `reference`, the first form: on random inputs of the recorded shapes, at every batch size in
    `batches`. `only_shapes` are forms that draw their own random numbers, of which only output shapes were compared.
    `certificate` is the stored one; if the weights differ from the certified ones, its `trained_since` is true and it
    does not hold. `measured` is the certificate that was measured again if the dense network was given; `other_dense`
    is whether that network differs from the certified one. `projections` records the channels that a `Shrinker` set to
    zero during training. `images` is the preprocessing of images, if that was recorded, and `sizes` are height and
    width of the images on which forms with dynamic sizes were run.
    """

    folder: str
    reference: str
    differences: Mapping[str, float]
    batches: tuple[int, ...]
    certificate: Certificate
    measured: Certificate | None
    only_shapes: tuple[str, ...] = ()
    other_dense: bool | None = None
    projections: ProjectionRecord | None = None
    images: ImageSpec | None = None
    sizes: tuple[tuple[int, int], ...] = ()

    @property
    def certified(self) -> bool:
        """Whether a certificate holds for the weights in the bundle: the stored one, or the one measured again."""
        return self.certificate.holds or (self.measured is not None and self.measured.holds)

    def __str__(self) -> str:
        where = conditions(self.batches, self.sizes)
        forms = [
            f"{name} agrees with {self.reference} within {difference:.1e} {where}"
            for name, difference in self.differences.items()
        ]
        forms += [
            f"{name} draws random numbers of its own: only the shapes of its outputs were compared, {where}"
            for name in self.only_shapes
        ]
        images = [] if self.images is None else [f"made for {self.images}"]
        return "\n".join([f"{self.folder}: every file is as it was written", *forms, *self._proof(), *images])

    def _proof(self) -> list[str]:
        """The certificates as lines of text."""
        found = []
        if self.measured is None or self.certificate.trained_since:
            stored = str(self.certificate)
            # Of weights that were trained since, the text begins with that.
            if not self.certificate.trained_since:
                stored = f"stored certificate: {stored.removeprefix('certificate ')}"
            found.append(stored)
        if self.measured is not None:
            found.append(f"measured again: {self.measured}")
        if self.other_dense:
            found.append(f"the dense network given is {ANOTHER_DENSE}")
        return [*found, *([] if self.projections is None else [str(self.projections)])]


@autocast_off()
def save(
    slimmed: Slimmed | nn.Module,
    folder: str | os.PathLike[str],
    *,
    source: str | None = None,
    like: str | os.PathLike[str] | None = None,
    projections: ProjectionRecord | None = None,
    images: ImageSpec | None = None,
    dynamic_size: bool = False,
    overwrite: bool = False,
    progress: StepCallback | None = None,
) -> Path:
    """Write a slim network as a bundle: weights and plan, exported program, ONNX, certificate and manifest.

    A network whose forward depends on data, such as a detector, is written without exported program and ONNX.

    A folder that exists is refused; with `overwrite` a bundle there is replaced, in one step when the new one is
    complete. A folder that holds anything else is never replaced. `progress` is as for `slim`.

    `slimmed` is the result of `slim`, or the network of the bundle `like` after further training in the caller's loop.
    All three forms are run and must agree with the network before the folder is created. Three things are recorded with
    it: `source`, the origin of the dense network; `projections`, the channels that a `Shrinker` set to zero; and
    `images`, the preprocessing and the classes (default: those of `like`; `images` also those of the bundle that the
    network was loaded from). With `dynamic_size`, or if those of `like` do, the exported program and the ONNX file take
    images of any height and width. The network is not changed. If it was trained further, the saved certificate records
    this and does not hold. The plan of a network that was slimmed several times contains all cuts, from the network as
    it was built.

    Raises:
        BundleError: the folder exists, is no bundle that can be replaced, or cannot be written, the network is not what
            its architecture builds or not that of `like`, its certificate did not hold when it was measured, or
            `projections` are of another network.
        ExportError: the network cannot be exported, or a form does not agree.
        UsageError: a module without `like`, or `images` that are not what the network takes.
    """
    check_type("slimmed", slimmed, (Slimmed, nn.Module), "pass what slimnet.slim returns, or a network made from it")
    target, steps = Path(folder), Steps(len(SAVING), progress)
    BUNDLE.refuse_occupied(target, BundleError, overwrite=overwrite)
    if isinstance(slimmed, nn.Module):
        slimmed, record = trained_further(slimmed, like)
        source, projections = source or record.source, projections or record.projections
        images = images or images_of(slimmed.model) or record.images
        dynamic_size = dynamic_size or record.dynamic_size
    with BUNDLE.whole(target, BundleError, overwrite=overwrite) as staging:
        with steps.step(0, WRITING):
            blueprint = write_parts(slimmed, staging, images, dynamic_size=dynamic_size)
            plan = blueprint.plan
            certificate = read_certificate(staging)
            if projections is not None:
                write_projections(projections, staging, plan, certificate)
            module = rebuilt(slimmed, staging)
        exported = plan.stop is None
        with steps.step(1, EXPORTING):
            if exported:
                write_exports(slimmed, staging, source, blueprint)
        everything: dict[str, Runner] = {"the network": module_runner(slimmed.model)}
        everything |= forms(staging, module, exported=exported)
        if exported:
            everything[f"{PROGRAM} as torch loads it"] = TorchRunner(staging / PROGRAM)
        with steps.step(2, COMPARING):
            for inputs in sizes(slimmed.example_inputs.map(lambda tensor: tensor.detach().cpu()), blueprint, target):
                compare(everything, inputs, target, batches_for(plan))
        write_manifest(staging, source, plan.digest)
    log_result(f"bundle written to {target}")
    return target


@torch.inference_mode(False)
def load(folder: str | os.PathLike[str], model: nn.Module | None = None, *, trust: bool = False) -> nn.Module:
    """Load the slim network of a bundle, on the CPU, in the mode in which it was saved.

    `folder` may also be an address on the Hugging Face Hub: `hf://owner/name` or `hf://owner/name@revision`.
    `model` is a newly built dense network of the same architecture; it is needed if the bundle names no architecture.
    An architecture from other code (`package.module:factory`), or with arguments that open files or connect to servers,
    is built only with `trust`: an untrusted file must not choose the code that runs.

    Raises:
        BundleError: the folder is no bundle, a file was changed, or the architecture needs `model` or `trust`.
        PlanError: the plan is invalid, or `model` is not the network for which it was made.
        ArchitectureError: the architecture cannot be built here.
        UsageError, HubError: there is no such repository, or the hub cannot be reached.
        UsageError: `model` is no module.
    """
    check_network("model", model)
    place = local_folder(folder)
    blueprint = read_blueprint(place)
    return blueprint.build(model or fresh_dense(blueprint, place, trust=trust), place / WEIGHTS)


def check_network(name: str, network: object) -> None:
    """Refuse an argument that is no dense network, where there may be one.

    Raises:
        UsageError: naming the argument.
    """
    check_type(name, network, (nn.Module, NoneType), "pass the dense network, or leave it out")


def read_blueprint(folder: str | os.PathLike[str]) -> Blueprint:
    """The blueprint of a bundle, read after the hash of every file was checked.

    Raises:
        BundleError: the folder is no bundle, or a file was changed.
        PlanError: the plan is invalid.
    """
    place = local_folder(folder)
    read_manifest(place)
    return Blueprint.read(place / PLAN)


@autocast_off()
def verify_bundle(
    folder: str | os.PathLike[str],
    model: nn.Module | None = None,
    *,
    dense: nn.Module | None = None,
    loader: Iterable[Any] | None = None,
    trust: bool = False,
    progress: StepCallback | None = None,
) -> Verification:
    """Check a bundle on this machine: every file's hash, and that all forms of the network agree.

    `folder`, `model` and `trust` are as for `load`; if the network cannot be built, the other two forms are checked.
    `dense` is the trained network from which the bundle was made: if given, the certificate is measured again, on
    `loader` or on random inputs of the recorded shapes. `progress` is as for `slim`.

    Raises:
        BundleError: the folder is no bundle, or a file was changed.
        ExportError: the forms do not agree.
        CertificateError, PlanError: the outputs of `dense` differ, or it is another network.
        UsageError: `model` or `dense` is no module, or there is a loader but no dense network.
    """
    check_network("model", model)
    check_network("dense", dense)
    if loader is not None and dense is None:
        raise UsageError("the batches are for the comparison with the dense network; pass it with dense=")
    steps = Steps(len(VERIFYING) - (dense is None), progress)
    with steps.step(0, READING):
        place = local_folder(folder)
        manifest = read_manifest(place)
        blueprint, certificate = Blueprint.read(place / PLAN), read_certificate(place)
        if not blueprint.plan.digest == certificate.plan_digest == manifest.plan_digest:
            raise ChangedBundleError(f"{place}: plan and certificate are of different networks; {REMAKE}")
        projections = read_projections(place, blueprint.plan, certificate) if manifest.lists(PROJECTIONS) else None
        slim = verifiable_module(blueprint, place, model or dense, trust=trust)
    exported = manifest.lists(ONNX)
    check_exports(blueprint.plan, slim, place, exported=exported)
    batches = batches_for(blueprint.plan)
    inputs = random_inputs(blueprint.inputs, seed=0)
    for each in sizes(inputs.to(torch.device("meta")), blueprint, place):
        check_activations(slim, each, max(batches, default=inputs.batch), str(place))
    compared = sizes(inputs, blueprint, place)
    with steps.step(1, COMPARING):
        found = forms(place, slim, exported=exported)
        agreement = joined([compare(found, each, place, batches) for each in compared])
    reference, shapes = next(iter(found)), agreement.only_shapes
    checked = Verification(str(place), reference, agreement.differences, batches, certificate, None, shapes)
    checked = replace(checked, projections=projections, images=blueprint.images, sizes=image_sizes(compared))
    if dense is None:
        return checked
    if certificate.reference != DENSE:
        raise UsageError(f"{place} is certified against {certificate.reference}; verify it without the dense one")
    assert slim is not None, "it was built from the dense network"
    samples = inputs if loader is None else steps.counted(batches_once(loader), 2, MEASURING)
    with steps.step(2, MEASURING):
        placed = slim.to(device_of(dense))
        measured = certify(dense, placed, blueprint.plan, samples, tolerance=certificate.tolerance)
    other = measured.reference_weights != certificate.reference_weights
    if not measured.holds:
        since = ", for it was trained since its certificate was measured" if certificate.trained_since else ""
        strange = f"; the dense network given is {ANOTHER_DENSE}" if other else ""
        raise CertificateError(f"{place} does not compute what the dense network does{since}: {measured}{strange}")
    return replace(checked, measured=measured, other_dense=other)


def write_parts(slimmed: Slimmed, folder: Path, images: ImageSpec | None, *, dynamic_size: bool) -> Blueprint:
    """Write weights, blueprint and certificate; returns the blueprint.

    Raises:
        UsageError: `images` are not what the network takes.
    """
    blueprint = Blueprint.of(slimmed, images, dynamic_size=dynamic_size)
    if blueprint.images is not None:
        check_images(blueprint.images, slimmed.example_inputs)
    write_weights(slimmed.model, folder / WEIGHTS)
    blueprint.write(folder / PLAN)
    certificate = slimmed.current_certificate.of_several_cuts(blueprint.plan)
    (folder / CERTIFICATE).write_text(certificate.to_json() + "\n", encoding="utf-8")
    return blueprint


def write_exports(slimmed: Slimmed, folder: Path, source: str | None, blueprint: Blueprint) -> None:
    """Write the exported program and the ONNX file, which run without the network's code."""
    metadata = {"plan_digest": blueprint.plan.digest, "certificate": slimmed.current_certificate.verdict}
    metadata |= {} if source is None else {"source": source}
    form = Form(blueprint.images, dynamic_size=blueprint.dynamic_size)
    metadata |= metadata_of(form, slimmed.example_inputs)
    captured = capture_form(slimmed.model, slimmed.example_inputs, form)
    (folder / PROGRAM).write_bytes(program_bytes(captured.program))
    write_onnx(captured, folder / ONNX, metadata)


def rebuilt(slimmed: Slimmed, folder: Path) -> nn.Module:
    """The network as `load` will build it; a copy with the weights as written if that needs untrusted code.

    Raises:
        BundleError: the network differs from the one that its architecture builds.
    """
    architecture = slimmed.architecture
    if architecture is None or (architecture.imports_code and not architecture.is_trusted):
        return weights_into(slimmed.model, folder / WEIGHTS)
    try:
        return Blueprint.read(folder / PLAN).build(unseeded(architecture), folder / WEIGHTS)
    except (PlanError, BundleError) as error:
        raise BundleError(
            f"the network is not what {architecture} builds ({str(error).partition(';')[0]}); "
            "make it in a factory of your own, package.module:factory"
        ) from error


def fresh_dense(blueprint: Blueprint, folder: Path, *, trust: bool) -> nn.Module:
    """The dense network that a bundle names, with random weights.

    Raises:
        BundleError: it names none, or untrusted code, or states a size out of proportion to its weights.
        ArchitectureError: it cannot be built, or is larger than the plan states.
    """
    architecture = blueprint.architecture
    if architecture is None:
        raise BundleError(
            f"{folder} does not say how its network is built; say it with model=, "
            f"or run {PROGRAM} or {ONNX}, which need nothing else"
        )
    if trust:
        return unseeded(architecture.trusted())
    if architecture.imports_code:
        raise BundleError(
            f"{folder} would import and call {architecture.name} to make its network, {architecture}, "
            "which is not run unasked; if you trust it, say so with trust=True, or name the network with model="
        )
    shapes = blueprint.plan.shapes
    check_proportion(shapes, folder)
    with bounded_by(shapes):
        return unseeded(architecture)


def check_proportion(shapes: Shapes, folder: Path) -> None:
    """Refuse a bundle whose dense network would be out of proportion to its weights.

    Raises:
        BundleError: naming both sizes.
    """
    dense, held = sum(map(math.prod, shapes.values())), (folder / WEIGHTS).stat().st_size // 4
    limit = max(DENSE_AT_LEAST, DENSE_TO_SLIM * held)
    if dense > limit:
        raise BundleError(
            f"{folder} claims a dense network of {dense:,} numbers for {held:,} in its {WEIGHTS}, more than "
            f"{DENSE_TO_SLIM} times as many; if that is right, name the dense network with model="
        )


def unseeded(architecture: Architecture) -> nn.Module:
    """Build a network without advancing the caller's random state."""
    with random_numbers_kept(), torch.device("cpu"):
        return architecture.build()


def verifiable_module(blueprint: Blueprint, folder: Path, dense: nn.Module | None, *, trust: bool) -> nn.Module | None:
    """The rebuilt network, or None if its architecture is not known."""
    known = blueprint.architecture is not None and (trust or not blueprint.architecture.imports_code)
    if dense is None and not known:
        return None
    return blueprint.build(dense or fresh_dense(blueprint, folder, trust=trust), folder / WEIGHTS)
