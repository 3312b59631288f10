"""save, load, verify_bundle: a slim network as a folder without pickle, complete and checked before it appears."""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slimnet.bundle.activations import check_activations
from slimnet.bundle.blueprint import Blueprint, weights_into, write_weights
from slimnet.bundle.forms import compare, forms, module_runner
from slimnet.bundle.further_training import trained_further
from slimnet.bundle.input_spec import random_inputs
from slimnet.bundle.manifest import CERTIFICATE, ONNX, PLAN, PROGRAM, WEIGHTS, read_manifest, write_manifest
from slimnet.bundle.projections import PROJECTIONS, read_projections, write_projections
from slimnet.bundle.stored_certificate import read_certificate
from slimnet.errors import BundleError, CertificateError, ChangedBundleError, PlanError, UsageError
from slimnet.export.capture import capture
from slimnet.export.onnx import write_onnx
from slimnet.export.pt2.runner import TorchRunner, program_bytes
from slimnet.export.random_forward import Runner
from slimnet.models.architecture import Architecture
from slimnet.models.bounded_build import Shapes, bounded_by
from slimnet.modules.loaders import batches_once
from slimnet.shrinking.projection_record import ProjectionRecord
from slimnet.slimmed import Slimmed
from slimnet.storage.files import refuse_existing, whole_folder
from slimnet.surgery.certificate import DENSE, Certificate, certify
from slimnet.surgery.equivalence import BATCHES
from slimnet.surgery.plan import SurgeryPlan
from slimnet.torch_state.devices import device_of
from slimnet.torch_state.random_state import random_numbers_kept

DENSE_AT_LEAST, DENSE_TO_SLIM = 1 << 26, 256
"""The dense network of a bundle from elsewhere may have so many numbers, or so many for each that its weights hold."""

ANOTHER_DENSE = "not the one of the bundle's certificate: its weights differ"
"""What is said of a dense network that a bundle was not made from."""


@dataclass(frozen=True)
class Verification:
    """What was found when a bundle was checked again.

    `differences` maps each form of the network but the first to the largest relative difference of its outputs to
    those of `reference`, the first: on random inputs of the recorded shapes, at every batch size in `batches`.
    `only_shapes` are forms that draw random numbers of their own, so that no more could be compared.
    `certificate` is the one in the bundle; where its weights are not those that were measured, it says `trained_since`
    and does not hold. `measured` is it measured again, where the dense network was given, and `other_dense` says
    whether that was another than the certificate's. `projections` says what a training set to zero that shrank it.
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

    @property
    def certified(self) -> bool:
        """Whether a certificate holds for the weights in the bundle: the one in it, or the one measured again."""
        return self.certificate.holds or (self.measured is not None and self.measured.holds)

    def __str__(self) -> str:
        batches = " and ".join(map(str, self.batches))
        forms = [
            f"{name} agrees with {self.reference} within {difference:.1e} at batch {batches}"
            for name, difference in self.differences.items()
        ]
        forms += [
            f"{name} draws random numbers of its own: only the shapes of its outputs were compared, at batch {batches}"
            for name in self.only_shapes
        ]
        return "\n".join([f"{self.folder}: every file is as it was written", *forms, *self._proof()])

    def _proof(self) -> list[str]:
        """What the certificates say, in lines."""
        found = []
        if self.measured is None or self.certificate.trained_since:
            found.append(f"{'' if self.certificate.trained_since else 'as it was written: '}{self.certificate}")
        if self.measured is not None:
            found.append(f"measured again: {self.measured}")
        if self.other_dense:
            found.append(f"the dense network given is {ANOTHER_DENSE}")
        return [*found, *([] if self.projections is None else [str(self.projections)])]


def save(
    slimmed: Slimmed | nn.Module,
    folder: str | os.PathLike[str],
    *,
    source: str | None = None,
    like: str | os.PathLike[str] | None = None,
    projections: ProjectionRecord | None = None,
) -> Path:
    """Write a slim network as a bundle: weights and plan, exported program, ONNX, certificate and manifest.

    `slimmed` is what `slim` returned, or with `like` the network of that bundle after further training in a loop of
    one's own. All three forms are run and must agree with the network before the folder appears. `source` says where
    the dense network came from, and `projections` what a training that shrank it set to zero; both are recorded, and
    are those of `like` by default. The network is not touched. One that was trained further is saved with a certificate
    that says so and does not hold. The plan of a network that was slimmed several times holds all cuts, from the
    network as it was built.

    Raises:
        BundleError: the folder exists or cannot be written, the network is not what its architecture builds or not
            that of `like`, its certificate did not hold when it was measured, or `projections` are of another network.
        ExportError: the network cannot be exported, or a form does not agree.
        UsageError: a module without `like`.
    """
    target = Path(folder)
    refuse_existing(target, BundleError)
    if isinstance(slimmed, nn.Module):
        slimmed, record = trained_further(slimmed, like)
        source, projections = source or record.source, projections or record.projections
    with whole_folder(target, BundleError) as staging:
        plan = write_parts(slimmed, staging)
        certificate = read_certificate(staging)
        if projections is not None:
            write_projections(projections, staging, plan, certificate)
        module = rebuilt(slimmed, staging)
        write_exports(slimmed, staging, source, plan.digest)
        everything: dict[str, Runner] = {"the network": module_runner(slimmed.model), **forms(staging, module)}
        everything[f"{PROGRAM} as torch loads it"] = TorchRunner(staging / PROGRAM)
        compare(everything, slimmed.example_inputs.map(lambda tensor: tensor.detach().cpu()), target)
        write_manifest(staging, source, plan.digest)
    return target


def check_free(folder: str | os.PathLike[str]) -> None:
    """Refuse a place where `save` could not write, before the work begins.

    Raises:
        BundleError: naming what is in the way.
    """
    target = Path(folder)
    refuse_existing(target, BundleError)
    if not target.parent.is_dir():
        raise BundleError(f"cannot write {target}: there is no folder {target.parent}; make it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise BundleError(f"cannot write {target}: {target.parent} is not writable; name another place")


def load(folder: str | os.PathLike[str], model: nn.Module | None = None, *, trust: bool = False) -> nn.Module:
    """Build the slim network of a bundle again, on the CPU, in the mode it was saved in.

    `model` is a fresh dense network of the same architecture. It is needed where the bundle names none. One that is
    made by code (`package.module:factory`), or with arguments that reach for files or servers, is built with `trust`
    alone: a file from elsewhere does not choose what runs.

    Raises:
        BundleError: not a bundle, a file that was changed, or an architecture that is not built without `model`.
        PlanError: the plan is not one, or `model` is not the network it was made for.
        ArchitectureError: the architecture cannot be built here.
    """
    place = Path(folder)
    blueprint = read_blueprint(place)
    return blueprint.build(model or fresh_dense(blueprint, place, trust=trust), place / WEIGHTS)


def read_blueprint(folder: str | os.PathLike[str]) -> Blueprint:
    """What a bundle says of how its network is built and what it takes, after every file's hash was checked.

    Raises:
        BundleError: not a bundle, or a file that was changed.
        PlanError: the plan is not one.
    """
    read_manifest(Path(folder))
    return Blueprint.read(Path(folder) / PLAN)


def verify_bundle(
    folder: str | os.PathLike[str],
    model: nn.Module | None = None,
    *,
    dense: nn.Module | None = None,
    loader: Iterable[Any] | None = None,
    trust: bool = False,
) -> Verification:
    """Check a bundle on this machine: every file's hash, and that all forms of the network agree.

    `model` and `trust` are as for `load`; a network that cannot be rebuilt is checked in its other two forms. `dense`
    is the trained network the bundle was made from: with it the certificate is measured again, on `loader` or on
    random inputs of the recorded shapes.

    Raises:
        BundleError: not a bundle, or a file that was changed.
        ExportError: the forms do not agree.
        CertificateError, PlanError: `dense` computes something else, or is another network.
    """
    place = Path(folder)
    manifest = read_manifest(place)
    blueprint, certificate = Blueprint.read(place / PLAN), read_certificate(place)
    if not blueprint.plan.digest == certificate.plan_digest == manifest.plan_digest:
        raise ChangedBundleError(f"{place}: plan and certificate are of different networks; save the bundle again")
    projections = read_projections(place, blueprint.plan, certificate) if manifest.lists(PROJECTIONS) else None
    inputs = random_inputs(blueprint.inputs, seed=0)
    slim = verifiable_module(blueprint, place, model or dense, trust=trust)
    check_activations(slim, inputs, max(BATCHES), str(place))
    found = forms(place, slim)
    agreement = compare(found, inputs, place)
    reference, shapes = next(iter(found)), agreement.only_shapes
    checked = Verification(str(place), reference, agreement.differences, BATCHES, certificate, None, shapes)
    checked = replace(checked, projections=projections)
    if dense is None:
        return checked
    if certificate.reference != DENSE:
        raise UsageError(f"{place} is proven against {certificate.reference}, so verify it without the dense one")
    assert slim is not None, "it was built from the dense network"
    samples = inputs if loader is None else batches_once(loader)
    measured = certify(dense, slim.to(device_of(dense)), blueprint.plan, samples, tolerance=certificate.tolerance)
    other = measured.reference_weights != certificate.reference_weights
    if not measured.holds:
        since = ", for it was trained since its certificate was measured" if certificate.trained_since else ""
        strange = f"; the dense network given is {ANOTHER_DENSE}" if other else ""
        raise CertificateError(f"{place} does not compute what the dense network does{since}: {measured}{strange}")
    return replace(checked, measured=measured, other_dense=other)


def write_parts(slimmed: Slimmed, folder: Path) -> SurgeryPlan:
    """Write what the network is built again from, and its certificate; returns the plan that is written."""
    blueprint = Blueprint.of(slimmed)
    write_weights(slimmed.model, folder / WEIGHTS)
    blueprint.write(folder / PLAN)
    certificate = slimmed.current_certificate.of_several_cuts(blueprint.plan)
    (folder / CERTIFICATE).write_text(certificate.to_json() + "\n", encoding="utf-8")
    return blueprint.plan


def write_exports(slimmed: Slimmed, folder: Path, source: str | None, digest: str) -> None:
    """Write the forms that run without the network's own code; `digest` is the plan's."""
    metadata = {"plan_digest": digest, "certificate": slimmed.current_certificate.verdict}
    metadata |= {} if source is None else {"source": source}
    captured = capture(slimmed.model, slimmed.example_inputs)
    (folder / PROGRAM).write_bytes(program_bytes(captured.program))
    write_onnx(captured, folder / ONNX, metadata)


def rebuilt(slimmed: Slimmed, folder: Path) -> nn.Module:
    """The network as `load` will build it; a copy with the weights as written where that needs code from elsewhere.

    Raises:
        BundleError: the network was changed after its architecture was built.
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
        BundleError: it names none, or code that is not trusted, or claims a size out of all proportion to its weights.
        ArchitectureError: it cannot be built, or becomes larger than the plan says.
    """
    architecture = blueprint.architecture
    if architecture is None:
        raise BundleError(
            f"{folder} does not say how its network is built; say it with model= (--arch on the command line), "
            f"or run {PROGRAM} or {ONNX}, which need nothing else"
        )
    if trust:
        return unseeded(architecture.trusted())
    if architecture.imports_code:
        raise BundleError(
            f"{folder} would import and call {architecture.name} to make its network, {architecture}, "
            "which is not run unasked; if you trust it, say so with trust=True or model= (or --trust, --arch)"
        )
    shapes = blueprint.plan.shapes
    check_proportion(shapes, folder)
    with bounded_by(shapes):
        return unseeded(architecture)


def check_proportion(shapes: Shapes, folder: Path) -> None:
    """Refuse a bundle whose dense network would be out of all proportion to the weights in it.

    Raises:
        BundleError: it would take gigabytes for nothing.
    """
    dense, held = sum(map(math.prod, shapes.values())), (folder / WEIGHTS).stat().st_size // 4
    limit = max(DENSE_AT_LEAST, DENSE_TO_SLIM * held)
    if dense > limit:
        raise BundleError(
            f"{folder} claims a dense network of {dense:,} numbers for {held:,} in its {WEIGHTS}, more than "
            f"{DENSE_TO_SLIM} times as many; if that is right, pass the dense network with model= (or --arch)"
        )


def unseeded(architecture: Architecture) -> nn.Module:
    """Build a network without drawing from the caller's random numbers."""
    with random_numbers_kept(), torch.device("cpu"):
        return architecture.build()


def verifiable_module(blueprint: Blueprint, folder: Path, dense: nn.Module | None, *, trust: bool) -> nn.Module | None:
    """The rebuilt network, or None where nothing says how."""
    known = blueprint.architecture is not None and (trust or not blueprint.architecture.imports_code)
    if dense is None and not known:
        return None
    return blueprint.build(dense or fresh_dense(blueprint, folder, trust=trust), folder / WEIGHTS)
