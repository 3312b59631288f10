"""The network of a bundle after further training, with the other content of the bundle."""

import os
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from slimnet.bundle.blueprint import Blueprint, read_weights
from slimnet.bundle.input_spec import random_inputs
from slimnet.bundle.manifest import PLAN, PROJECTIONS, WEIGHTS, read_manifest
from slimnet.bundle.projections import read_projections
from slimnet.bundle.stored_certificate import read_certificate
from slimnet.data.image_spec import ImageSpec
from slimnet.errors import BundleError, UsageError
from slimnet.models.architecture import architecture_of
from slimnet.modules.digest import owned_tensors
from slimnet.shrinking.projection_record import ProjectionRecord
from slimnet.slimmed import Slimmed
from slimnet.surgery.cut_history import cuts_of


@dataclass(frozen=True)
class Record:
    """The record of a bundle: the origin of the dense network, what was set to zero in training, and its inputs."""

    source: str | None
    projections: ProjectionRecord | None
    images: ImageSpec | None
    dynamic_size: bool


def trained_further(model: nn.Module, bundle: str | os.PathLike[str] | None) -> tuple[Slimmed, Record]:
    """The network of a bundle after further training, with the other content of the bundle.

    Raises:
        BundleError: the folder is no bundle, or that of another network.
        UsageError: no bundle is given.
    """
    if bundle is None:
        raise UsageError(
            f"save takes what slim returned, got {type(model).__name__}; for the network of a bundle that was trained "
            "further, name that bundle with like="
        )
    place = Path(bundle)
    manifest = read_manifest(place)
    blueprint, certificate = Blueprint.read(place / PLAN), read_certificate(place)
    plan = (cuts_of(model) or (blueprint.plan,))[-1]
    inputs = random_inputs(blueprint.inputs, seed=0)
    slimmed = Slimmed(model, plan, certificate, inputs, architecture_of(model) or blueprint.architecture)
    if slimmed.whole_plan.shapes != blueprint.plan.shapes:
        raise BundleError(f"{type(model).__name__} was not made from the dense network of {place}; name its own bundle")
    if plan == blueprint.plan:
        check_shapes(model, place)
    shrunk = manifest.lists(PROJECTIONS)
    projections = read_projections(place, blueprint.plan, certificate) if shrunk else None
    return slimmed, Record(manifest.source, projections, blueprint.images, blueprint.dynamic_size)


def check_shapes(model: nn.Module, bundle: Path) -> None:
    """Refuse a network whose tensors have other names or shapes than those in a bundle.

    Raises:
        BundleError: naming the first one.
    """
    stored, own = read_weights(bundle / WEIGHTS), owned_tensors(model)
    name, another = type(model).__name__, f"this is not the network of {bundle}"
    for each in sorted(stored.keys() & own.keys()):
        shapes = tuple(own[each].shape), tuple(stored[each].shape)
        if shapes[0] != shapes[1]:
            raise BundleError(f"{another}: {each} has shape {shapes[0]}, not {shapes[1]}; slim it and save the result")
    for each in sorted(stored.keys() ^ own.keys()):
        where = f"{name} has {each}, {bundle} does not" if each in own else f"{bundle} has {each}, {name} does not"
        raise BundleError(f"{another}: {where}; pass the module itself, without a wrapper")
