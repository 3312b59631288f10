"""save, load, verify_bundle: a slim network as a folder without pickle, complete and checked before it appears."""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slimnet.accuracy import Accuracy
from slimnet.certify import DENSE, Certificate, certify
from slimnet.errors import BundleError, CertificateError, ChangedBundleError, ExportError, PlanError, UsageError
from slimnet.export import write_onnx
from slimnet.files import refuse_existing, whole_folder
from slimnet.formats.agreement import BATCHES, relative_difference, tolerance_for
from slimnet.formats.blueprint import Blueprint, weights_into, write_weights
from slimnet.formats.capture import capture, private_copy, run, with_batch
from slimnet.formats.input_spec import random_inputs
from slimnet.formats.manifest import CERTIFICATE, ONNX, PLAN, PROGRAM, WEIGHTS, read_manifest, write_manifest
from slimnet.formats.onnx_runner import OnnxRunner
from slimnet.formats.pt2 import ProgramRunner, program_bytes
from slimnet.inputs import Inputs, tensors_in
from slimnet.models.architecture import Architecture, reason
from slimnet.pipeline import Slimmed
from slimnet.places import device_of

Runner = Callable[[Inputs], list[torch.Tensor]]
"""Runs one form of a network."""


@dataclass(frozen=True)
class Verification:
    """What was found when a bundle was checked again.

    `differences` maps each form of the network but the first to the largest relative difference of its outputs to
    those of `reference`, the first: on random inputs of the recorded shapes, at every batch size in `batches`.
    `certificate` is the one in the bundle; `measured` is it measured again, where the dense network was given.
    """

    folder: str
    reference: str
    differences: Mapping[str, float]
    batches: tuple[int, ...]
    certificate: Certificate
    measured: Certificate | None

    def __str__(self) -> str:
        batches = " and ".join(map(str, self.batches))
        forms = [
            f"{name} agrees with {self.reference} within {difference:.1e} at batch {batches}"
            for name, difference in self.differences.items()
        ]
        proof = (
            f"as it was written: {self.certificate}" if self.measured is None else f"measured again: {self.measured}"
        )
        return "\n".join([f"{self.folder}: every file is as it was written", *forms, proof])


def save(slimmed: Slimmed, folder: str | os.PathLike[str], *, source: str | None = None) -> Path:
    """Write a slim network as a bundle: weights and plan, exported program, ONNX, certificate and manifest.

    All three forms are run and must agree with `slimmed.model` before the folder appears. `source` says where the
    dense network came from and is recorded. The network is not touched.

    Raises:
        BundleError: the folder exists or cannot be written, the network is not what its architecture builds, or its
            certificate does not hold.
        ExportError: the network cannot be exported, or a form does not agree.
    """
    target = Path(folder)
    with whole_folder(target, BundleError) as staging:
        write_parts(slimmed, staging)
        read_certificate(staging / CERTIFICATE)
        module = rebuilt(slimmed, staging)
        write_exports(slimmed, staging, source)
        everything = {"the network": module_runner(slimmed.model), **forms(staging, module)}
        compare(everything, slimmed.example_inputs.map(lambda tensor: tensor.detach().cpu()), target)
        write_manifest(staging, source, slimmed.plan.digest)
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


def load(folder: str | os.PathLike[str], model: nn.Module | None = None) -> nn.Module:
    """Build the slim network of a bundle again, on the CPU, in the mode it was saved in.

    `model` is a fresh dense network of the same architecture. It is needed where the bundle names none, or one that
    is made by code (`package.module:factory`): a file from elsewhere does not choose which code runs.

    Raises:
        BundleError: not a bundle, a file that was changed, or an architecture that is not built without `model`.
        PlanError: the plan is not one, or `model` is not the network it was made for.
        ArchitectureError: the architecture cannot be built here.
    """
    place = Path(folder)
    blueprint = read_blueprint(place)
    return blueprint.build(model or fresh_dense(blueprint.architecture, place), place / WEIGHTS)


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
) -> Verification:
    """Check a bundle on this machine: every file's hash, and that all forms of the network agree.

    `model` is as for `load`; a network that cannot be rebuilt is checked in its other two forms. `dense` is the
    trained network the bundle was made from: with it the certificate is measured again, on `loader` or on random
    inputs of the recorded shapes.

    Raises:
        BundleError: not a bundle, or a file that was changed.
        ExportError: the forms do not agree.
        CertificateError, PlanError: `dense` computes something else, or is another network.
    """
    place = Path(folder)
    manifest = read_manifest(place)
    blueprint, certificate = Blueprint.read(place / PLAN), read_certificate(place / CERTIFICATE)
    if not blueprint.plan.digest == certificate.plan_digest == manifest.plan_digest:
        raise ChangedBundleError(f"{place}: plan and certificate are of different networks; save the bundle again")
    inputs = random_inputs(blueprint.inputs, seed=0)
    slim = verifiable_module(blueprint, place, model or dense)
    found = forms(place, slim)
    differences = compare(found, inputs, place)
    measured = None
    if dense is not None:
        if certificate.reference != DENSE:
            raise UsageError(f"{place} is proven against {certificate.reference}, so verify it without the dense one")
        assert slim is not None, "it was built from the dense network"
        samples = inputs if loader is None else iter(loader)
        measured = certify(dense, slim.to(device_of(dense)), blueprint.plan, samples, tolerance=certificate.tolerance)
        if not measured.holds:
            raise CertificateError(f"{place} does not compute what the dense network does: {measured}")
    return Verification(str(place), next(iter(found)), differences, BATCHES, certificate, measured)


def write_parts(slimmed: Slimmed, folder: Path) -> None:
    """Write what the network is built again from, and its certificate."""
    write_weights(slimmed.model, folder / WEIGHTS)
    Blueprint.of(slimmed).write(folder / PLAN)
    (folder / CERTIFICATE).write_text(slimmed.certificate.to_json() + "\n", encoding="utf-8")


def write_exports(slimmed: Slimmed, folder: Path, source: str | None) -> None:
    """Write the forms that run without the network's own code."""
    metadata = {"plan_digest": slimmed.plan.digest} | ({} if source is None else {"source": source})
    captured = capture(slimmed.model, slimmed.example_inputs)
    (folder / PROGRAM).write_bytes(program_bytes(captured.program))
    write_onnx(captured, folder / ONNX, metadata)


def rebuilt(slimmed: Slimmed, folder: Path) -> nn.Module:
    """The network as `load` will build it; where it has no architecture, a copy with the weights as written.

    Raises:
        BundleError: the network was changed after its architecture was built.
    """
    if slimmed.architecture is None:
        return weights_into(slimmed.model, folder / WEIGHTS)
    try:
        return Blueprint.read(folder / PLAN).build(unseeded(slimmed.architecture), folder / WEIGHTS)
    except (PlanError, BundleError) as error:
        raise BundleError(
            f"the network is not what {slimmed.architecture} builds ({str(error).partition(';')[0]}); "
            "make it in a factory of your own, package.module:factory"
        ) from error


def fresh_dense(architecture: Architecture | None, folder: Path) -> nn.Module:
    """The dense network that a bundle names, with random weights.

    Raises:
        BundleError: it names none, or code.
    """
    if architecture is None:
        raise BundleError(
            f"{folder} does not say how its network is built; say it with model= (--arch on the command line), "
            f"or run {PROGRAM} or {ONNX}, which need nothing else"
        )
    if architecture.imports_code:
        raise BundleError(
            f"{folder} names code that makes its network, {architecture}, which is not run unasked; "
            "if you trust it, say so with model=slimnet.build(...) (--arch on the command line)"
        )
    return unseeded(architecture)


def unseeded(architecture: Architecture) -> nn.Module:
    """Build a network without drawing from the caller's random numbers."""
    with torch.random.fork_rng(devices=[]):
        return architecture.build()


def verifiable_module(blueprint: Blueprint, folder: Path, dense: nn.Module | None) -> nn.Module | None:
    """The rebuilt network, or None where nothing says how."""
    known = blueprint.architecture is not None and not blueprint.architecture.imports_code
    if dense is None and not known:
        return None
    return blueprint.build(dense or fresh_dense(blueprint.architecture, folder), folder / WEIGHTS)


def forms(folder: Path, module: nn.Module | None) -> dict[str, Runner]:
    """Every form of a bundle's network, ready to run."""
    first = {} if module is None else {WEIGHTS: module_runner(module)}
    return {**first, PROGRAM: ProgramRunner(folder / PROGRAM), ONNX: OnnxRunner(folder / ONNX)}


def module_runner(module: nn.Module) -> Runner:
    """Runs a copy of a module on the CPU in evaluation mode."""
    copy = private_copy(module)
    return lambda inputs: tensors_in(run(copy, inputs))


def compare(runners: Mapping[str, Runner], inputs: Inputs, place: Path) -> dict[str, float]:
    """Run all forms on the same inputs; returns the largest relative difference of each to the first.

    Raises:
        ExportError: one differs by more than the tolerance.
    """
    (reference, first), *others = runners.items()
    worst = dict.fromkeys(name for name, _ in others)
    for batch in BATCHES:
        given = with_batch(inputs, batch)
        expected = first(given)
        for name, runner in others:
            difference = relative_difference(expected, runner(given))
            if difference > tolerance_for(expected):
                raise ExportError(
                    f"{place}: {name} differs from {reference} by {difference:.1e} at batch {batch}, "
                    f"more than {tolerance_for(expected):.0e}"
                )
            worst[name] = max(worst[name] or 0.0, difference)
    return {name: difference or 0.0 for name, difference in worst.items()}


def read_certificate(path: Path) -> Certificate:
    """The certificate of a bundle.

    Raises:
        BundleError: the file holds something else, or a certificate with which nothing would have been saved.
    """
    try:
        certificate = Certificate.from_json(path.read_text(encoding="utf-8"))
    except (UsageError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} holds no certificate ({reason(error)}); save the bundle again") from error
    for part in (certificate, *(certificate.accuracies or ())):
        if field := unsound_field(part):
            value = getattr(part, field)
            raise BundleError(f"{path} holds no certificate: {field} is {value!r:.40}; save the bundle again")
    if not certificate.holds:
        raise BundleError(f"{path} says that the network is not right: {certificate}")
    return certificate


def unsound_field(record: Certificate | Accuracy) -> str | None:
    """The first field that is of another type than it must be, or no finite number; records in it are not looked at."""
    for field in fields(record):
        value: Any = getattr(record, field.name)
        if field.name == "accuracies":
            continue
        numeric = isinstance(value, int | float)
        if not isinstance(value, field.type) or isinstance(value, bool) or (numeric and not math.isfinite(value)):  # type: ignore[arg-type]
            return field.name
    return None
