"""certify: measure the differences between the outputs of the slim and the dense network."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from slimnet.accuracy import Accuracy, Hits
from slimnet.errors import CertificateError, UsageError
from slimnet.modules.copying import check_filled, copy_with, eval_copy
from slimnet.modules.digest import weights_digest
from slimnet.modules.example_inputs import ExampleInputs, Inputs
from slimnet.modules.network import Network
from slimnet.surgery.certificate_data import BEFORE as BEFORE
from slimnet.surgery.certificate_data import CHOSEN_AT_ZERO as CHOSEN_AT_ZERO
from slimnet.surgery.certificate_data import DENSE as DENSE
from slimnet.surgery.certificate_data import Certificate as Certificate
from slimnet.surgery.equivalence import (
    TOLERANCE,
    TOLERANCES,
    Distance,
    distance,
    relative_difference,
    same_shapes,
    worse,
)
from slimnet.surgery.plan import SurgeryPlan
from slimnet.surgery.plan_data import DataStop
from slimnet.surgery.selection_order import RecordedSelections, run_in_order
from slimnet.surgery.watched_forward import Ran, Returned, run_watched
from slimnet.torch_state.devices import device_of, uncompiled
from slimnet.torch_state.precision import float32_products
from slimnet.torch_state.random_state import RandomState, loader_draws_kept, random_numbers_kept


@dataclass
class Difference:
    """A running largest difference between two networks' outputs, and the accuracy of each."""

    measured: Distance = field(default_factory=Distance)
    agreeing: int = 0
    samples: int = 0
    logits: bool = True
    results: Distance = field(default_factory=Distance)
    results_unlike: int = 0
    hits: tuple[Hits, Hits] = field(default_factory=lambda: (Hits(), Hits()))

    def add(self, expected: Ran, actual: Ran, labels: torch.Tensor | None = None) -> None:
        """Compare what two networks computed on one batch: `add_outputs`, and their results, which may differ.

        Raises:
            CertificateError: the networks return different numbers or shapes of tensors.
        """
        self.add_outputs(expected.outputs, actual.outputs, None if expected.results else labels)
        self.logits = self.logits and not expected.results
        if not same_shapes(expected.results, actual.results):
            self.results_unlike += 1
            return
        for left, right in zip(expected.results, actual.results, strict=True):
            if left.numel():
                self.results = self.results.joined(distance(left, right))

    def add_outputs(
        self, expected: list[torch.Tensor], actual: list[torch.Tensor], labels: torch.Tensor | None = None
    ) -> None:
        """Compare the outputs of one batch; with `labels` `(N,)`, logits with the right classes as well.

        Raises:
            CertificateError: they differ in number or shape.
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

    def results_within(self, tolerance: float) -> bool:
        """Whether the results of all batches have the same shapes and values."""
        return not self.results_unlike and self.results.relative <= tolerance

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
    networks are compared in double precision as well (twice the memory). `tolerance` is the largest allowed change of
    an output, relative to the largest one (default: 1e-4; 1e-2 in float16, 5e-2 in bfloat16). The networks and the
    random state are not changed; a forward that draws random numbers draws the same ones in every network. Where an
    output of the dense network is infinite or NaN, that of the slim one must be so too.

    Inputs are moved to the networks' device, and TF32 is turned off for float32 products.

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
    found = Comparison(tolerance, plan.stop)
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
        masked_max_rel_difference=worse(to_masked.relative, found.behind_masked.relative),
        top1_agreement=found.to_dense.agreement,
        float64_max_rel_difference=found.in_double if float64 else None,
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
        reordered=found.reordered,
        stop="" if plan.stop is None else plan.stop.place,
        results_max_rel_difference=found.to_dense.results.relative if found.to_dense.results.values else None,
        results_unlike=found.to_dense.results_unlike,
        results_follow=found.replayed.results_within(tolerance) if found.watches else None,
        behind_max_rel_difference=found.behind.relative if found.behind.values else None,
    )
    if found.unequal_draws and not certificate.was_within_tolerance:
        raise CertificateError(
            "the forward draws random numbers for channels that are removed, so that the slim network draws others and "
            "cannot be compared; draw them for the inputs, or keep those channels"
        )
    return certificate


@dataclass
class Comparison:
    """Dense, masked and slim network on the same batches and random numbers: how far they are apart so far.

    With a `stop`, outputs are those of the watched modules in front of it. Then the slim network runs once more, with
    what the dense one's modules returned in the place of what its own do: `replayed` are the results of that, and
    `behind` is how far modules behind the stop are apart where they are given the same.

    `reordered` is whether the slim network sorts scores that are equal but for rounding in another order than the other
    ones, which then are compared with it in its order (see `selection_order`).
    """

    tolerance: float
    stop: DataStop | None = None
    to_dense: Difference = field(default_factory=Difference)
    to_masked: Difference = field(default_factory=Difference)
    replayed: Difference = field(default_factory=Difference)
    wider: Difference = field(default_factory=Difference)
    behind: Distance = field(default_factory=Distance)
    behind_masked: Distance = field(default_factory=Distance)
    behind_wider: Distance = field(default_factory=Distance)
    samples: int = 0
    random: bool = False
    reordered: bool = False
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

        def run(
            network: Network, changed: Mapping[str, torch.Tensor], replayed: Sequence[Returned] | None = None
        ) -> Ran:
            # Each copy is gone before the next is made, which is less than the slim network takes itself.
            start.restore()
            return self.run(eval_copy(network, changed), batch, replayed)

        run_slim = partial(run, slim, {})
        actual = run_slim()
        self.random |= start.moved()
        end = self.next_draws = RandomState.now(start.devices)
        expected = run(dense, {})
        self.unequal_draws |= end.moved()
        expected = self.in_slim_order(expected, actual, partial(run, dense, {}), run_slim)
        self.to_dense.add(expected, actual, batch.labels)
        masked = self.in_slim_order(run(dense, scales), actual, partial(run, dense, scales), run_slim)
        self.to_masked.add(masked, actual)
        self.samples += batch.batch
        if self.watches:
            again = run(slim, {}, expected.returned)
            self.replayed.add(expected, again)
            self.behind = self.behind.joined(distance_behind(expected, again))
        if self.watches_behind and scales:
            again = run(slim, {}, masked.returned)
            self.behind_masked = self.behind_masked.joined(distance_behind(masked, again))
        if doubled:
            narrow, whole = doubled
            wide = batch.to(device_of(narrow)).map(doubled_floats)
            start.restore()
            wide_expected = self.run(eval_copy(whole), wide)
            start.restore()
            self.wider.add(wide_expected, self.run(eval_copy(narrow), wide))
            if self.watches_behind:
                start.restore()
                again = self.run(eval_copy(narrow), wide, wide_expected.returned)
                self.behind_wider = self.behind_wider.joined(distance_behind(wide_expected, again))

    def in_slim_order(self, expected: Ran, actual: Ran, run: Callable[[], Ran], run_slim: Callable[[], Ran]) -> Ran:
        """What a network returns that selects what the slim one does, if that alone tells them apart; else `expected`.

        Networks that are alike, which is usual, are not run again, nor slowed down by a record of what they sort.
        """
        if relative_difference(expected.outputs, actual.outputs) <= self.tolerance:
            return expected
        with RecordedSelections() as recorded:
            run_slim()
        again = run_in_order(run, recorded.indices, self.tolerance)
        if again is None or relative_difference(again.outputs, actual.outputs) > self.tolerance:
            return expected
        self.reordered = True
        return again

    def run(self, model: nn.Module, inputs: Inputs, replayed: Sequence[Returned] | None = None) -> Ran:
        """One forward of a network, in which the watched modules return what is `replayed`, if anything."""
        return run_watched(model, inputs, self.stop, replayed)

    @property
    def watches(self) -> bool:
        """Whether outputs of modules are compared."""
        return self.stop is not None and bool(self.stop.watched or self.stop.behind)

    @property
    def watches_behind(self) -> bool:
        """Whether outputs of modules behind the stop are."""
        return self.stop is not None and bool(self.stop.behind)

    @property
    def in_double(self) -> float:
        """The largest relative difference in double precision."""
        return worse(self.wider.measured.relative, self.behind_wider.relative)


def distance_behind(expected: Ran, actual: Ran) -> Distance:
    """How far the outputs of modules behind a stop are apart; infinitely where they are not as many, or as large."""
    if not same_shapes(expected.behind, actual.behind):
        return Distance(largest=math.inf, values=sum(tensor.numel() for tensor in expected.behind))
    found = Distance()
    for left, right in zip(expected.behind, actual.behind, strict=True):
        found = found.joined(distance(left, right))
    return found


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


def batches_of(inputs: Any) -> Iterable[Inputs]:
    """Example inputs once, or every batch of a loader; a list is inputs, so that of batches its iterator is passed."""
    if isinstance(inputs, torch.Tensor | list | tuple | dict | Inputs):
        return [Inputs.of(inputs)]
    return (Inputs.of_batch(batch) for batch in inputs)


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
