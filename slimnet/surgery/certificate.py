"""certify: measure the differences between the outputs of the slim and the dense network."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from slimnet.accuracy import Accuracy, Hits
from slimnet.errors import CertificateError, SlimnetError, UsageError
from slimnet.modules.copying import check_filled, copy_with, shared_copy
from slimnet.modules.digest import weights_digest
from slimnet.modules.example_inputs import ExampleInputs, Inputs, tensors_in
from slimnet.modules.network import Network
from slimnet.storage.field_types import Amount, Count, Share
from slimnet.storage.records import build, parse_json
from slimnet.surgery.equivalence import TOLERANCE, TOLERANCES, Distance, distance, same_shapes
from slimnet.surgery.measured_latency import MeasuredLatency
from slimnet.surgery.plan import SurgeryPlan
from slimnet.torch_state.devices import device_of, uncompiled
from slimnet.torch_state.precision import float32_products
from slimnet.torch_state.random_state import RandomState, loader_draws_kept, random_numbers_kept

DENSE, SILENCED = "the dense network", "the silenced network"
"""What a certificate is relative to: the network as it came, or with the channels that a method chose set to zero."""

BEFORE = "the network before its last slimming"
"""What the certificate of a network that was slimmed several times is relative to."""


@dataclass(frozen=True)
class Certificate:
    """How far the slim network's outputs are from the dense network's, measured on `samples` inputs.

    Relative differences are the largest absolute difference over the largest absolute dense output. The *masked*
    network is the dense one with every γ that the plan takes for zero set to exactly zero: against it only rounding
    may differ.
    `top1_agreement` is the fraction of samples with the same largest logit, None where outputs are not logits.
    `reference` names the network that is used as the dense one. With labelled inputs `accuracies` are that network's on
    them, and the slim one's.

    It belongs to the weights it was measured on: `slim_weights` and `reference_weights` are their digests (see
    `weights_digest`), and `trained_since` says that the slim network's were changed after that. Of the dense network's
    `values` output values, `infinities` were infinite, and had to be so in the slim one, and `nans` were NaN, as in the
    slim one, and were not compared. `random` says that the forward drew random numbers, the same in all networks.
    `latency` was measured where the network was made to a budget of latency.
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
    trained_since: bool = False
    latency: MeasuredLatency | None = None

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
        return all(difference <= self.tolerance for difference in measured)

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
        return build(cls, data, where, failure)

    def __str__(self) -> str:
        if self.trained_since:
            return f"{self.verdict}; as it was before that, {self._measured}"
        return f"{self.verdict}: {self._measured}"

    @property
    def verdict(self) -> str:
        """Whether it holds, in a few words."""
        if self.trained_since:
            return f"trained since: not certified against {self.reference}"
        return "certificate holds" if self.holds else "certificate does NOT hold"

    @property
    def _measured(self) -> str:
        """The measurements in words."""
        agreement = "" if self.top1_agreement is None else f", top-1 agreement {self.top1_agreement:.2%}"
        if self.accuracies is not None:
            before, after = self.accuracies
            agreement += f", accuracy {before.top1:.2%} → {after.top1:.2%}"
        drawn = ", with the same random numbers in all networks" if self.random else ""
        return (
            f"largest relative output difference {self.max_rel_difference:.1e} to "
            f"{self.reference} and {self.masked_max_rel_difference:.1e} to the masked one on {self.samples} samples in "
            f"{self.dtype} (tolerance {self.tolerance:g}){drawn}{agreement}{self.not_finite}; parameters "
            f"{self.params_before:,} → {self.params_after:,}, MACs {self.macs_before:,} → {self.macs_after:,}"
        )

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


@dataclass
class Difference:
    """A running largest difference between two networks' outputs, and the accuracy of each."""

    measured: Distance = field(default_factory=Distance)
    agreeing: int = 0
    samples: int = 0
    logits: bool = True
    hits: tuple[Hits, Hits] = field(default_factory=lambda: (Hits(), Hits()))

    def add(self, expected: list[torch.Tensor], actual: list[torch.Tensor], labels: torch.Tensor | None = None) -> None:
        """Compare one batch of outputs; with `labels` `(N,)`, logits with the right classes as well.

        Raises:
            CertificateError: the networks return different numbers or shapes of tensors.
        """
        if not same_shapes(expected, actual):
            shapes = [tuple(tensor.shape) for tensor in expected]
            raise CertificateError(f"the slim network returns other shapes than the dense one, which returns {shapes}")
        for left, right in zip(expected, actual, strict=True):
            self.measured = self.measured.joined(distance(left, right))
        first, second = expected[0], actual[0]
        self.logits = self.logits and first.is_floating_point() and first.ndim == 2 and first.shape[1] > 1
        if self.logits:
            self.agreeing += int((first.argmax(1) == second.argmax(1)).sum())
            self.samples += first.shape[0]
            if labels is not None and len(labels) == first.shape[0]:
                for hits, scores in zip(self.hits, (first, second), strict=True):
                    hits.add(scores, labels)

    @property
    def agreement(self) -> float | None:
        """The fraction of samples with the same prediction."""
        return self.agreeing / self.samples if self.logits and self.samples else None

    @property
    def accuracies(self) -> tuple[Accuracy, Accuracy] | None:
        """The accuracy of each network, if labels were given."""
        expected, actual = (hits.accuracy for hits in self.hits)
        return (expected, actual) if self.logits and expected and actual else None


def certify(
    dense: nn.Module | Network,
    slim: nn.Module | Network,
    plan: SurgeryPlan,
    inputs: ExampleInputs | Inputs | Iterable[ExampleInputs | Inputs],
    *,
    tolerance: float | None = None,
    float64: bool = False,
) -> Certificate:
    """Run dense, masked and slim networks in evaluation mode on the same inputs and compare.

    `inputs` are example inputs, or an iterable of them such as a data loader; where it yields `(inputs, labels)` pairs
    with integer labels `(N,)`, the accuracy of both networks is measured as well. With `float64` the masked and slim
    networks are compared in double precision as well (twice the memory). Without a `tolerance` it is that of the
    networks' type, 1e-4 but for short ones. Nothing is changed, no random number is drawn; a forward that draws some
    gets the same in every network. Where the dense network itself is infinite or NaN, the slim one must be so too.

    Inputs are brought to the networks' device, and float32 is multiplied as float32 there.

    Raises:
        CertificateError: the outputs cannot be compared, or those of the dense network are nowhere finite.
    """
    dense, slim = Network.of(dense), Network.of(slim)
    for network in (dense, slim):
        check_filled(network)
    if tolerance is None:
        tolerance = TOLERANCES.get(floating_type(dense), TOLERANCE)
    if not tolerance >= 0:
        raise UsageError(f"tolerance is {tolerance}; it must be a number ≥ 0, such as 1e-4")
    scales = masked_scales(dense, plan)
    doubled = (as_double(slim), as_double(eval_copy(dense, scales))) if float64 else None
    found = Comparison()
    place = device_of(dense.module)
    with torch.no_grad(), uncompiled(), loader_draws_kept, float32_products(tf32=False):
        for batch in (each.to(place) for each in batches_of(inputs)):
            with random_numbers_kept(dense.module) as before:
                found.add(dense, slim, scales, batch, doubled, before)
    if not found.samples:
        raise CertificateError("no inputs to certify with: the loader gave none")
    to_dense, to_masked = found.to_dense.measured, found.to_masked.measured
    check_finite(to_dense)
    certificate = Certificate(
        samples=found.samples,
        dtype=dtype_name(dense),
        max_abs_difference=to_dense.largest,
        max_rel_difference=to_dense.relative,
        masked_max_abs_difference=to_masked.largest,
        masked_max_rel_difference=to_masked.relative,
        top1_agreement=found.to_dense.agreement,
        float64_max_rel_difference=found.wider.measured.relative if float64 else None,
        tolerance=float(tolerance),
        params_before=sum(parameter.numel() for parameter in dense.module.parameters()),
        params_after=sum(parameter.numel() for parameter in slim.module.parameters()),
        macs_before=plan.macs_before,
        macs_after=plan.macs_after,
        plan_digest=plan.digest,
        slim_weights=weights_digest(slim),
        reference_weights=weights_digest(dense),
        accuracies=found.to_dense.accuracies,
        values=to_dense.values,
        infinities=to_dense.infinities,
        nans=to_dense.nans,
        random=found.random,
    )
    if found.unequal_draws and not certificate.was_within_tolerance:
        raise CertificateError(
            "the forward draws random numbers for channels that are removed, so that the slim network draws others and "
            "cannot be compared; draw them for the inputs, or keep those channels"
        )
    return certificate


@dataclass
class Comparison:
    """Dense, masked and slim network on the same batches and random numbers: how far they are apart so far."""

    to_dense: Difference = field(default_factory=Difference)
    to_masked: Difference = field(default_factory=Difference)
    wider: Difference = field(default_factory=Difference)
    samples: int = 0
    random: bool = False
    unequal_draws: bool = False
    next_draws: RandomState | None = None

    def add(
        self,
        dense: Network,
        slim: Network,
        scales: Mapping[str, torch.Tensor],
        batch: Inputs,
        doubled: tuple[nn.Module, nn.Module] | None,
        before: RandomState,
    ) -> None:
        """Run all networks on one batch from where the random numbers stand; the next batch goes on from there."""
        start = self.next_draws or before
        start.restore()
        # Each copy is gone before the next is made, which is less than the slim network takes itself.
        actual = outputs(eval_copy(slim), batch)
        self.random |= start.moved()
        end = self.next_draws = RandomState.now(start.devices)
        start.restore()
        expected = outputs(eval_copy(dense), batch)
        self.unequal_draws |= end.moved()
        self.to_dense.add(expected, actual, batch.labels)
        start.restore()
        self.to_masked.add(outputs(eval_copy(dense, scales), batch), actual)
        self.samples += batch.batch
        if doubled:
            narrow, masked = doubled
            wide = batch.to(device_of(narrow)).map(doubled_floats)
            start.restore()
            wide_expected = outputs(eval_copy(masked), wide)
            start.restore()
            self.wider.add(wide_expected, outputs(eval_copy(narrow), wide))


def check_finite(found: Distance) -> None:
    """Refuse outputs of a dense network of which none is a finite number.

    Raises:
        CertificateError: they are.
    """
    if found.nothing_finite:
        kind = "NaN" if not found.infinities else "NaN or infinite" if found.nans else "infinite"
        raise CertificateError(
            f"the dense network's own output is {kind} on these inputs, in all of {found.values:,} values, so nothing "
            "can be compared; pass inputs on which it computes finite numbers, or a network that does"
        )


def eval_copy(model: nn.Module | Network, replaced: Mapping[str, torch.Tensor] | None = None) -> nn.Module:
    """A copy in evaluation mode, some tensors replaced, whose forward may write into its buffers: they are its own."""
    network = Network.of(model)
    buffers = {name: buffer.detach().clone() for name, buffer in network.tensors.buffers.items()}
    return shared_copy(network, buffers | dict(replaced or {})).eval()


def batches_of(inputs: Any) -> Iterable[Inputs]:
    """Example inputs once, or every batch of a loader; a list is inputs, so that of batches its iterator is passed."""
    if isinstance(inputs, torch.Tensor | list | tuple | dict | Inputs):
        return [Inputs.of(inputs)]
    return (Inputs.of_batch(batch) for batch in inputs)


def outputs(model: nn.Module, inputs: Inputs) -> list[torch.Tensor]:
    """Every tensor the network returns.

    Raises:
        CertificateError: it returns none, or its forward raises.
    """
    name = type(model).__name__
    try:
        found = tensors_in(inputs.call(model))
    except (RuntimeError, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CertificateError(
            f"the forward of a copy of {name} raises: {reason}; what it takes from elsewhere must follow a copy"
        ) from error
    if not found:
        raise CertificateError(f"{name} returns no tensor to compare")
    return found


def masked_scales(dense: nn.Module | Network, plan: SurgeryPlan) -> dict[str, torch.Tensor]:
    """Every γ of which the plan takes channels for zero, with these set to exactly zero."""
    tensors = Network.of(dense).state
    masked = {}
    for zeroed in plan.zeroed:
        gamma = tensors[zeroed.tensor].detach().clone()
        gamma[list(zeroed.channels)] = 0
        masked[zeroed.tensor] = gamma
    return masked


def as_double(model: nn.Module | Network) -> nn.Module:
    """A double-precision copy: where the network is, or on the CPU where its device has no such numbers."""
    try:
        return copy_with(model, lambda _, tensor: doubled_floats(tensor.detach()))
    except TypeError:
        return copy_with(model, lambda _, tensor: doubled_floats(tensor.detach().cpu()))


def doubled_floats(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in double precision, if it holds floating-point numbers at all."""
    return tensor.double() if tensor.is_floating_point() else tensor


def dtype_name(network: Network) -> str:
    """The floating type of a network's parameters, such as "float32"."""
    return str(floating_type(network)).removeprefix("torch.")


def floating_type(network: Network) -> torch.dtype:
    """The floating type of a network's parameters."""
    return next(
        (p.dtype for p in network.tensors.parameters.values() if p.is_floating_point()), torch.get_default_dtype()
    )
