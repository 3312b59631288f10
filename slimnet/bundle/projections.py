"""The projections of a bundle: the channels set to zero during training, checked against plan and weights."""

from pathlib import Path

import torch

from slimnet.bundle.blueprint import read_weights
from slimnet.bundle.manifest import PROJECTIONS, WEIGHTS
from slimnet.errors import BundleError, PlanError
from slimnet.shrinking.projection_record import ProjectionRecord
from slimnet.storage.folder_names import REMAKE
from slimnet.storage.records import read_json
from slimnet.surgery.certificate_data import Certificate
from slimnet.surgery.plan import SurgeryPlan


def write_projections(record: ProjectionRecord, folder: Path, plan: SurgeryPlan, certificate: Certificate) -> None:
    """Write the record of the projections, and check it as `read_projections` does.

    Raises:
        BundleError: it is not that of this network.
    """
    (folder / PROJECTIONS).write_text(record.to_json() + "\n", encoding="utf-8")
    read_projections(folder, plan, certificate)


def read_projections(folder: Path, plan: SurgeryPlan, certificate: Certificate) -> ProjectionRecord:
    """The record of the projections in a bundle whose network shrank during training.

    Every channel in it must belong to the plan's dense network, and be either removed by the plan or zero in the
    weights, provided that these are the certified ones.

    Raises:
        BundleError: it is no record, or that of another network.
    """
    path = folder / PROJECTIONS
    record = ProjectionRecord.from_data(read_json(path, BundleError, REMAKE), str(path), BundleError, REMAKE)
    try:
        record.check_against(plan)
    except PlanError as error:
        raise BundleError(f"{path}: {error}; {REMAKE}") from error
    if not certificate.trained_since:
        check_zero(record, plan, read_weights(folder / WEIGHTS), path)
    return record


def check_zero(record: ProjectionRecord, plan: SurgeryPlan, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Refuse a record with channels that the plan keeps and whose weights are not zero.

    Raises:
        BundleError: naming the γ.
    """
    keeps = {cut.tensor: cut.keep for cut in plan.cuts}
    for name, channels in record.channels().items():
        if name not in weights:
            continue
        keep = keeps.get(name, range(plan.shapes[name][0]))
        alive = [
            channel
            for channel, scale in zip(keep, weights[name].tolist(), strict=False)
            if channel in channels and scale != 0
        ]
        if alive:
            raise BundleError(
                f"{path} says that channel {alive[0]} of {name} was set to zero, but it is there and is not; {REMAKE}"
            )
