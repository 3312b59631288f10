"""The surgery plan: data that can be printed, written as JSON, read back, checked and composed."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from slimnet.errors import PlanError
from slimnet.modules.tensors import Tensors
from slimnet.printable import Summarised
from slimnet.storage.records import build, parse_json
from slimnet.surgery.composition import compose
from slimnet.surgery.kept_shares import DeadShares
from slimnet.surgery.plan_checks import check_indices
from slimnet.surgery.plan_data import FORMAT, PlanData
from slimnet.surgery.plan_text import describe, totals

LATER = ("attributes", "stop", "compensations", "live")
"""Fields that plans did not have at first: empty ones are not written, so that digests stay what they were."""

SHARES = "shares"
"""The name under which a printed plan has its shares; they are no part of it, and not in its digest."""


@dataclass(frozen=True, repr=False)
class SurgeryPlan(Summarised, PlanData):
    """All cuts and folds that make a dense network slim, as data that does not contain its weights.

    `shapes` are those of the dense network's tensors; the plan can be applied to networks with exactly these. MACs are
    those of one example. `rounding` says how widths were rounded up, `trials` are other roundings that were measured.
    """

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        found = hashlib.sha256()
        for piece in self.pieces():
            found.update(piece.encode())
        return found.hexdigest()

    def to_json(self) -> str:
        """Canonical JSON: keys sorted, floats exact."""
        return "".join(self.pieces())

    def pieces(self) -> Iterator[str]:
        """The canonical JSON, a cut or a fold at a time; all at once would take ten times the memory of the text."""
        opening = "{"
        for name, value in sorted(fields_of(self).items()):
            if name in LATER and not value:
                continue
            yield f'{opening}"{name}":'
            if isinstance(value, tuple) and value:
                yield from ("[,"[number > 0] + encode(item) for number, item in enumerate(value))
                yield "]"
            else:
                yield encode(value)
            opening = ","
        yield "}"

    @classmethod
    def from_json(cls, text: str) -> "SurgeryPlan":
        """Read a plan back; the text may come from anywhere.

        Raises:
            PlanError: it is not JSON, or not a plan of this version, or a field has another type.
        """
        return cls.from_data(parse_json(text, "the plan", PlanError))

    @classmethod
    def from_data(cls, data: Any) -> "SurgeryPlan":
        """What `to_json` writes, parsed; `SHARES`, which `slimnet slim --dry-run --json` adds, follow from the rest.

        Raises:
            PlanError: as `from_json`.
        """
        if not isinstance(data, dict) or data.get("version") != FORMAT:
            raise PlanError(f"the plan is not a slimnet plan of version {FORMAT}; make it again with this slimnet")
        stored = {name: value for name, value in data.items() if name != SHARES}
        return build(cls, stored, "the plan", PlanError)

    def check_fits(self, network: str, tensors: Tensors) -> None:
        """Refuse a network whose parameters and buffers are not those the plan was made for.

        Raises:
            PlanError: naming the first tensor that differs.
        """
        present = tensors.named
        for name, shape in self.shapes.items():
            if name not in present or present[name].shape != tuple(shape):
                found = f"has {tuple(present[name].shape)}" if name in present else "has no such tensor"
                raise PlanError(
                    f"the plan was made for another network: it expects {name} of shape {tuple(shape)}, "
                    f"{network} {found}"
                )
        extra = next((name for name in tensors.state if name not in self.shapes), None)
        if extra is not None:
            raise PlanError(f"the plan was made for another network: it does not know {extra}")
        check_indices(self)

    def then(self, other: "SurgeryPlan") -> "SurgeryPlan":
        """This plan and then `other`, made for the network that this one leaves, as one plan for the dense network.

        Applied to the dense network, it gives what the two give one after the other. What is kept, and why, is what
        `other` says, in dense channels.

        Raises:
            PlanError: they do not compose, naming the first tensor that differs.
        """
        return compose(self, other)

    @property
    def shares(self) -> DeadShares:
        """What becomes of the dead channels: how many are removed, and how many are kept for which cause."""
        return DeadShares.of(self)

    @property
    def summary(self) -> str:
        """What is removed, in a few words."""
        return f"{self.network}, {totals(self)}"

    def __str__(self) -> str:
        return describe(self)


def fields_of(part: Any) -> dict[str, Any]:
    """The fields of a plan, or of a part of it, by name."""
    return {each.name: getattr(part, each.name) for each in dataclasses.fields(part)}


encode = json.JSONEncoder(default=fields_of, sort_keys=True, separators=(",", ":"), allow_nan=False).encode
"""The JSON of one value of a plan."""
