"""The results of a comparison: a row for every slim network, and the dense network."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from slimnet.benchmark import Environment, Interval, Latency
from slimnet.comparison.settings import ENGINE, labelled
from slimnet.errors import UsageError
from slimnet.methods import Budget
from slimnet.storage.field_types import Amount, Count, Share
from slimnet.storage.records import build
from slimnet.training import Recipe
from slimnet.training.finetune import Point


@dataclass(frozen=True)
class Size:
    """Channels of all convolutions and linear layers, parameters, and MACs of one image; `counted_by` counted these."""

    channels: Count
    params: Count
    macs: Count
    counted_by: str = ""


@dataclass(frozen=True)
class Dense:
    """The dense network, from which channels are removed; `error` is that on the test images, 0..1."""

    size: Size
    error: Share

    def __post_init__(self) -> None:
        if not self.size.macs:
            raise UsageError("the dense network has no MACs")


@dataclass(frozen=True)
class Outcome:
    """A slim network as evaluated; errors are those on the test images, 0..1.

    Attributes:
        method: the method that chose its channels.
        budget: its budget; None if only dead channels were removed.
        size: its size.
        error: the error after the removal, before any fine-tuning.
        difference: the largest difference of an output, relative to the largest output: without a budget to the dense
            network, where the threshold causes it; with a budget to the masked network. None if there is none to
            compare with.
        course: the errors during the fine-tuning, the last one at its end; empty without.
        latency: dense (first) and slim under onnxruntime, interleaved; None if it was not measured.
        seconds: the time of removing, testing, training and measuring, since it was last resumed.
        sparsified: the iterations of training with L1 on γ before its channels were chosen, and the error of the
            dense network after them; None without.
        engine: what removed the channels.
        flaw: what is wrong with the network that another engine than slimnet made, in one line; "" if nothing is.
    """

    method: str
    budget: Budget | None
    size: Size
    error: Share
    difference: Amount | None
    course: tuple[Point, ...] = ()
    latency: Latency | None = None
    seconds: Amount = 0.0
    sparsified: Point | None = None
    engine: str = ENGINE
    flaw: str = ""

    @property
    def label(self) -> str:
        """The method, and the engine if it is not slimnet."""
        return labelled(self.method, self.engine)

    @property
    def last(self) -> Point | None:
        """The error at the end of the fine-tuning."""
        return self.course[-1] if self.course else None

    @property
    def best(self) -> Point | None:
        """The lowest error during the fine-tuning; since it is selected on the test images, it is optimistic."""
        return min(self.course, key=lambda point: point.error, default=None)

    @property
    def speedup(self) -> Interval | None:
        """The speed-up over the dense network."""
        return self.latency.speedup() if self.latency else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, including raw samples and the values derived from them."""
        document = asdict(self)
        document["last"] = asdict(self.last) if self.last else None
        document["best"] = asdict(self.best) if self.best else None
        document["speedup"] = asdict(self.speedup) if self.speedup else None
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Outcome":
        """Read the output of `to_dict`.

        Raises:
            UsageError: it is not a row of a comparison.
        """
        return build(cls, document, "not a row of a comparison", UsageError, others_ignored=True)


@dataclass(frozen=True)
class Failure:
    """An engine that made no network of a method's choice at a budget, and why, in one line."""

    method: str
    budget: Budget
    engine: str
    reason: str

    @property
    def label(self) -> str:
        """The method and the engine."""
        return labelled(self.method, self.engine)


@dataclass(frozen=True)
class Results:
    """The results of a comparison, complete or not.

    Attributes:
        network: the name of the dense network.
        data: the name of the data.
        images: the number of test images on which errors are measured.
        dense: the dense network.
        outcomes: the slim ones.
        finetuning: the recipe of their fine-tuning; None without.
        sparsifying: the recipe of the training with L1 on γ before "liu2017" chooses; None without.
        recalibrated: whether BatchNorm statistics were re-estimated without the removed channels.
        measured_on: the number of training images, without labels, for that; 0 if they were estimated.
        refitted: whether the remaining weights were fitted on these images instead.
        failures: the networks that another engine than slimnet could not make.
        environment: the environment of the measurements.
    """

    network: str
    data: str
    images: Count
    dense: Dense
    outcomes: tuple[Outcome, ...]
    finetuning: Recipe | None
    environment: Environment
    sparsifying: Recipe | None = None
    recalibrated: bool = True
    measured_on: Count = 0
    refitted: bool = False
    failures: tuple[Failure, ...] = ()

    def left(self, outcome: Outcome) -> float:
        """The MACs of a slim network as a fraction of the dense one's, 0..1."""
        return outcome.size.macs / self.dense.size.macs

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "network": self.network,
            "data": self.data,
            "images": self.images,
            "dense": asdict(self.dense),
            "outcomes": [outcome.to_dict() | {"macs_left": self.left(outcome)} for outcome in self.outcomes],
            "failures": [asdict(failure) for failure in self.failures],
            "finetuning": json.loads(self.finetuning.to_json()) if self.finetuning else None,
            "sparsifying": json.loads(self.sparsifying.to_json()) if self.sparsifying else None,
            "recalibrated": self.recalibrated,
            "measured_on": self.measured_on,
            "refitted": self.refitted,
            "environment": asdict(self.environment),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Results":
        """Read what `to_dict` wrote.

        Raises:
            UsageError: it is something else.
        """
        if isinstance(document, dict):
            # Earlier versions did not re-estimate BatchNorm statistics.
            document = {"recalibrated": False} | document
        wrong, advice = "not the results of a comparison", "give what 'slimnet compare' wrote"
        return build(cls, document, wrong, UsageError, advice=advice, others_ignored=True)
