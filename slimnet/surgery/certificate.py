"""certify: measure the differences between the outputs of the slim and the dense network."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from slimnet.arguments import check_limit, check_type
from slimnet.errors import CertificateError
from slimnet.modules.copying import check_filled
from slimnet.modules.digest import weights_digest
from slimnet.modules.example_inputs import ExampleInputs, Inputs
from slimnet.modules.network import Network
from slimnet.surgery.certificate_data import Certificate
from slimnet.surgery.equivalence import TOLERANCE, TOLERANCES, Distance, worse
from slimnet.surgery.network_comparison import Comparison, Networks
from slimnet.surgery.plan import SurgeryPlan
from slimnet.torch_state.devices import device_of, uncompiled
from slimnet.torch_state.precision import float32_products
from slimnet.torch_state.random_state import loader_draws_kept, random_numbers_kept


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
    an output, relative to its own largest value (default: 1e-4; 1e-2 in float16, 5e-2 in bfloat16). The networks and
    the random state are not changed; a forward that draws random numbers draws the same ones in every network. Where
    an output of the dense network is infinite or NaN, that of the slim one must be so too.

    Inputs are moved to the networks' device, and TF32 is turned off for float32 products.

    Raises:
        CertificateError: the outputs cannot be compared, or those of the dense network are nowhere finite.
        PlanError: the plan was made for another network.
        UsageError: an argument is something else than a module, a plan, inputs or a number ≥ 0.
    """
    dense, slim = Network.of(dense), Network.of(slim)
    check_type("plan", plan, SurgeryPlan, "pass the plan by which the network was slimmed")
    for network in (dense, slim):
        check_filled(network)
    plan.check_fits(dense.name, dense.tensors)
    if tolerance is None:
        tolerance = TOLERANCES.get(floating_type(dense), TOLERANCE)
    tolerance = check_tolerance(tolerance)
    networks = Networks.of(dense, slim, plan, float64=float64)
    found = compared(networks, inputs, Comparison(tolerance, plan.stop))
    check_finite(found.to_dense.measured.together)
    certificate = certificate_of(networks, plan, found)
    if found.unequal_draws and not certificate.was_within_tolerance:
        raise CertificateError(
            "the forward draws random numbers for channels that are removed, so that the slim network draws others and "
            "cannot be compared; draw them for the inputs, or keep those channels"
        )
    return certificate


def check_tolerance(tolerance: float) -> float:
    """A tolerance of a certificate as a float; an infinite one allows any change.

    Raises:
        UsageError: it is no number ≥ 0.
    """
    return check_limit("tolerance", tolerance, "1e-4", finite=False)


def compared(networks: Networks, inputs: Any, comparison: Comparison) -> Comparison:
    """Run the networks on all inputs.

    Raises:
        CertificateError: there are none, or the outputs cannot be compared.
    """
    place = device_of(networks.dense.module)
    with torch.no_grad(), uncompiled(), loader_draws_kept, float32_products(tf32=False):
        for batch in batches_of(inputs):
            with random_numbers_kept(networks.dense.module) as before:
                comparison.add(networks, batch.to(place), before)
    if not comparison.samples:
        raise CertificateError("no inputs to certify with: the loader gave none")
    return comparison


def certificate_of(networks: Networks, plan: SurgeryPlan, found: Comparison) -> Certificate:
    """What was found, as a certificate for the weights of these networks."""
    dense, slim = networks.dense, networks.slim
    measured, masked, results = found.to_dense.measured, found.to_masked.measured, found.to_dense.results
    values = measured.together
    return Certificate(
        samples=found.samples,
        dtype=dtype_name(dense),
        max_abs_difference=values.largest,
        max_rel_difference=measured.relative,
        masked_max_abs_difference=masked.together.largest,
        masked_max_rel_difference=worse(masked.relative, found.behind_masked.relative),
        top1_agreement=found.to_dense.agreement,
        float64_max_rel_difference=found.in_double if networks.in_double else None,
        tolerance=float(found.tolerance),
        params_before=parameter_count(dense),
        params_after=parameter_count(slim),
        macs_before=plan.macs_before,
        macs_after=plan.macs_after,
        plan_digest=plan.digest,
        slim_weights=weights_digest(slim),
        reference_weights=weights_digest(dense),
        accuracies=found.to_dense.accuracies,
        values=values.values,
        infinities=values.infinities,
        nans=values.nans,
        random=found.random,
        reordered=found.reordered,
        stateful=found.stateful,
        stop="" if plan.stop is None else plan.stop.place,
        results_max_rel_difference=results.relative if results.together.values else None,
        results_unlike=found.to_dense.results_unlike,
        results_follow=found.replayed.results_within(found.tolerance) if found.watches else None,
        behind_max_rel_difference=found.behind.relative if found.behind.together.values else None,
    )


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
    check_type("inputs", inputs, Iterable, "pass example inputs, or a loader that yields them")
    return (Inputs.of_batch(batch) for batch in inputs)


def parameter_count(network: Network) -> int:
    """The number of all parameters, each once."""
    return sum(parameter.numel() for parameter in network.module.parameters())


def dtype_name(network: Network) -> str:
    """The floating type of a network's parameters, such as "float32"."""
    return str(floating_type(network)).removeprefix("torch.")


def floating_type(network: Network) -> torch.dtype:
    """The floating type of a network's parameters."""
    return next(
        (p.dtype for p in network.tensors.parameters.values() if p.is_floating_point()), torch.get_default_dtype()
    )
