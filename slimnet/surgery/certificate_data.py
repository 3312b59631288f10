"""Certificate: what was measured of a slim network, as data that a bundle keeps."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from slimnet.accuracy import Accuracy
from slimnet.errors import SlimnetError, UsageError
from slimnet.printable import Summarised
from slimnet.storage.field_types import Amount, Count, Share
from slimnet.storage.records import build, parse_json
from slimnet.surgery.measured_latency import MeasuredLatency
from slimnet.surgery.plan import SurgeryPlan

DENSE, CHOSEN_AT_ZERO = "the dense network", "the dense network with the chosen channels at zero"
"""What a certificate is relative to: the network as it came, or with the channels that a method chose set to zero."""

FITTED = f"{CHOSEN_AT_ZERO} and the remaining weights fitted"
RE_ESTIMATED = f"{CHOSEN_AT_ZERO} and BatchNorm statistics re-estimated"
REBIASED = f"{CHOSEN_AT_ZERO} and biases corrected"
"""The same, where what remains was corrected after that: the slim network is made from the corrected one."""

_FORMER_REFERENCES = {"the silenced network": CHOSEN_AT_ZERO}
"""References as certificates named them before."""

BEFORE = "the network before its last slimming"
"""What the certificate of a network that was slimmed several times is relative to."""


@dataclass(frozen=True, repr=False)
class Certificate(Summarised):
    """How far the slim network's outputs are from the dense network's, measured on `samples` inputs.

    Relative differences are the largest absolute difference over the largest absolute dense output. The *masked*
    network is the dense one with every γ that the plan takes for zero set to exactly zero: against it only rounding
    may differ.
    `top1_agreement` is the fraction of samples with the same largest logit, None where outputs are not logits.
    `reference` names the network that is used as the dense one. With labelled inputs `accuracies` are that network's on
    them, and the slim one's; `dense_accuracy` is that of the network as it came, where `reference` is another one and
    it was measured.

    It belongs to the weights it was measured on: `slim_weights` and `reference_weights` are their digests (see
    `weights_digest`), and `trained_since` says that the slim network's were changed after that. Of the dense network's
    `values` output values, `infinities` were infinite, and had to be so in the slim one, and `nans` were NaN, as in the
    slim one, and were not compared. `random` says that the forward drew random numbers, the same in all networks.
    `stateful` says that the networks keep values from one call to the next, so that second calls were compared as well.
    `reordered` says that the slim network sorts scores that are equal but for rounding in another order, and that the
    other networks were compared with it in that order. `latency` was measured where the network was made to a budget of
    latency.

    Where the forward begins to depend on data at `stop` (a detector that selects boxes), outputs are those of the
    modules in front of it. What the network returns is compared as well, but a rounding error may select another box:
    `results_max_rel_difference` where shapes are equal, and `results_unlike`, the number of batches where they are not,
    do not count. What counts is `results_follow`: whether the slim network returns what the dense one does if these
    modules return what the dense network's do. `behind_max_rel_difference` is how far modules behind `stop` are apart
    that are given the same; it counts too.
    """

    samples: Count
    dtype: str
    max_abs_difference: Amount
    max_rel_difference: Amount
    masked_max_abs_difference: Amount
    masked_max_rel_difference: Amount
    top1_agreement: Share | None
    float64_max_rel_difference: Amount | None
    tolerance: Amount
    params_before: Count
    params_after: Count
    macs_before: Count
    macs_after: Count
    plan_digest: str
    slim_weights: str
    reference_weights: str
    reference: str = DENSE
    accuracies: tuple[Accuracy, Accuracy] | None = None
    values: Count = 0
    infinities: Count = 0
    nans: Count = 0
    random: bool = False
    reordered: bool = False
    trained_since: bool = False
    latency: MeasuredLatency | None = None
    stop: str = ""
    results_max_rel_difference: Amount | None = None
    results_unlike: Count = 0
    results_follow: bool | None = None
    behind_max_rel_difference: Amount | None = None
    dense_accuracy: Accuracy | None = None
    stateful: bool = False

    @property
    def is_of_masked(self) -> bool:
        """Whether `reference` is a network in which a method set live channels to zero, and not the dense one."""
        return self.reference.startswith(CHOSEN_AT_ZERO)

    @property
    def accuracy_before(self) -> Accuracy | None:
        """The accuracy before the slimming; None where it was not measured, or only that of the masked network."""
        if self.is_of_masked or self.accuracies is None:
            return self.dense_accuracy
        return self.accuracies[0]

    @property
    def holds(self) -> bool:
        """Whether the weights are those that were measured, and every difference was within the tolerance."""
        return self.was_within_tolerance and not self.trained_since

    @property
    def was_within_tolerance(self) -> bool:
        """Whether every relative difference was within the tolerance (NaN is not), when it was measured."""
        measured = [self.max_rel_difference, self.masked_max_rel_difference]
        if self.float64_max_rel_difference is not None:
            measured.append(self.float64_max_rel_difference)
        if self.behind_max_rel_difference is not None:
            measured.append(self.behind_max_rel_difference)
        return self.results_follow is not False and all(difference <= self.tolerance for difference in measured)

    def for_weights(self, digest: str) -> "Certificate":
        """The certificate as it is for a slim network with these weights."""
        return dataclasses.replace(self, trained_since=digest != self.slim_weights)

    def of_several_cuts(self, whole_plan: SurgeryPlan) -> "Certificate":
        """The certificate of a network's last slimming, for the plan of all of them."""
        if whole_plan.digest == self.plan_digest:
            return self
        reference = BEFORE if self.reference == DENSE else self.reference
        return dataclasses.replace(self, plan_digest=whole_plan.digest, reference=reference)

    def to_json(self) -> str:
        """JSON with `holds` and the measurements."""
        return json.dumps(dataclasses.asdict(self) | {"holds": self.holds}, sort_keys=True, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Certificate":
        """Read a certificate back.

        Raises:
            UsageError: it is not one.
        """
        return cls.from_data(parse_json(text, "the certificate", UsageError), "the certificate", UsageError)

    @classmethod
    def from_data(cls, data: Any, where: str, failure: type[SlimnetError]) -> "Certificate":
        """What `to_json` writes, parsed; `where` begins the message of a failure.

        Raises:
            failure: it is something else.
        """
        if isinstance(data, dict):
            data = {name: value for name, value in data.items() if name != "holds"}
            reference = data.get("reference")
            if isinstance(reference, str):
                data["reference"] = _FORMER_REFERENCES.get(reference, reference)
        return build(cls, data, where, failure)

    def __str__(self) -> str:
        if self.trained_since:
            return f"{self.verdict}; as it was before that, {self._measured}"
        return f"{self.verdict}: {self._measured}"

    @property
    def summary(self) -> str:
        """The verdict, and the largest difference."""
        verdict = self.verdict.removeprefix("certificate ")
        return f"{verdict}, {self.max_rel_difference:.1e} to {self.reference} on {self.samples:,} samples"

    @property
    def verdict(self) -> str:
        """Whether it holds, in a few words."""
        if self.trained_since:
            return f"trained since: not certified against {self.reference}"
        return "certificate holds" if self.holds else "certificate does NOT hold"

    @property
    def _measured(self) -> str:
        """The measurements in words."""
        agreement = "" if self.top1_agreement is None else f", top-1 agreement {100 * self.top1_agreement:.2f} %"
        if self.accuracies is not None:
            agreement += f", {self._accuracy(*self.accuracies)}"
        alike = ", with the same random numbers in all networks" if self.random else ""
        if self.reordered:
            alike += ", with scores that are equal but for rounding in the slim network's order"
        if self.stateful:
            alike += ", in first and second calls, since the network keeps values between calls"
        return (
            f"largest relative output difference {self.max_rel_difference:.1e} to "
            f"{self.reference} and {self.masked_max_rel_difference:.1e} to the masked one on {self.samples} samples in "
            f"{self.dtype} (tolerance {self.tolerance:g}){alike}{agreement}{self.not_finite}{self._results}; "
            f"parameters {self.params_before:,} → {self.params_after:,}, "
            f"MACs {self.macs_before:,} → {self.macs_after:,}"
        )

    def _accuracy(self, reference: Accuracy, slim: Accuracy) -> str:
        """The accuracies in words, that of the network before the slimming first where it is known."""
        if self.accuracy_before is None:
            compared = f"that of the network it is compared with {100 * reference.top1:.2f} %"
            return f"accuracy {100 * slim.top1:.2f} %, {compared}"
        return f"accuracy {100 * self.accuracy_before.top1:.2f} % → {100 * slim.top1:.2f} %"

    @property
    def _results(self) -> str:
        """How far the results are apart that follow from the compared outputs by ops that depend on data."""
        if not self.stop:
            return ""
        found = f"; compared up to {self.stop}"
        if self.behind_max_rel_difference is not None:
            found += f", layers behind it differ by {self.behind_max_rel_difference:.1e} on the same inputs"
        if self.results_max_rel_difference is not None:
            found += f", results behind it differ by {self.results_max_rel_difference:.1e}"
        if self.results_unlike:
            found += f", results of another shape for {self.results_unlike:,} batches"
        if self.results_follow is not None:
            found += (
                f", {'the same' if self.results_follow else 'OTHER'} results from the dense network's outputs there"
            )
        return found

    @property
    def not_finite(self) -> str:
        """A note for outputs of the dense network that are not finite; "" where all are."""
        found = []
        if self.infinities:
            found.append(f"{self.infinities:,} are infinite")
        if self.nans:
            found.append(f"{self.nans:,} are NaN, which were not compared")
        if not found:
            return ""
        return f"; of {self.values:,} output values of {self.reference} itself, {' and '.join(found)}"
