"""The sessions of a run: one entry for each process that trained it."""

import dataclasses
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import torch

from slimnet.errors import UsageError
from slimnet.storage.field_types import Count, Size
from slimnet.storage.records import from_json
from slimnet.training.loop.training_run import TrainingRun


@dataclass(frozen=True)
class Session:
    """A process that trains a run, with its settings.

    `iteration` is its first iteration, `began` is in UTC, `device` is the GPU's name if there is one, and `processes`
    is the number of processes that train together. `evaluations` is how often the run is validated. The others are
    `every` and `tuning` of the run.
    """

    began: str
    iteration: Count
    device: str
    processes: Size
    every: Size
    threads: Size | None
    compiled: bool
    cuda_graph: bool | None
    tf32: bool
    torch: str
    slimnet: str
    evaluations: Count = 0

    @classmethod
    def of(cls, run: TrainingRun, evaluations: int = 0) -> "Session":
        """The current session of a run."""
        device = run.device
        return cls(
            began=datetime.now(UTC).isoformat(timespec="seconds"),
            iteration=run.iteration,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            processes=run.ranks.count,
            every=run.every,
            **dataclasses.asdict(run.tuning),
            torch=torch.__version__,
            slimnet=_version(),
            evaluations=evaluations,
        )

    def to_line(self) -> str:
        """The session as a line of JSON."""
        return json.dumps(dataclasses.asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> "Session | None":
        """Read the output of `to_line`; None for an incomplete line, or one of another version."""
        try:
            return from_json(cls, line, "the session", UsageError)
        except UsageError:
            return None


def _version() -> str:
    try:
        return version("slimnet")
    except PackageNotFoundError:
        return "not installed"
