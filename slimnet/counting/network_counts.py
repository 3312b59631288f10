"""count_network: the multiply-accumulates of a network, by fvcore, or by torch's counter where fvcore cannot trace."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from slimnet.compat import fvcore
from slimnet.counting.operators import LAYERS, OUTPUTS, WITHOUT_MACS, handles, with_outputs
from slimnet.counting.torch_counter import counted
from slimnet.errors import TraceError, short_reason
from slimnet.modules.copying import copy_with
from slimnet.modules.example_inputs import ExampleInputs, Inputs, batched
from slimnet.torch_state.silence import silenced


@dataclass(frozen=True)
class NetworkCounts:
    """What one forward of one example costs.

    Attributes:
        macs: multiply-accumulates of convolutions and linear layers.
        counted_by: the counter with its version; where it is not fvcore, the reason.
        by_operator: what the counter counts, by operator. fvcore's "batch_norm", "layer_norm" and the like are
            floating-point operations, the others multiply-accumulates; products of activations are not in `macs`.
        by_layer: for every module with MACs of its own, without those of its submodules, the kind ("conv" or "linear",
            whichever has more) and the MACs, by path; None if only torch counted.
        activations: elements of the outputs of convolutions, linear layers and products; None if only torch counted.
        parameters: those of every module with its submodules, by path, shared ones once; "" is the whole network.
    """

    macs: int
    counted_by: str
    by_operator: Mapping[str, int]
    by_layer: Mapping[str, tuple[str, int]] | None = None
    activations: int | None = None
    parameters: Mapping[str, int] = field(default_factory=dict)


@torch.inference_mode(False)
def count_network(model: nn.Module, example: ExampleInputs | Inputs) -> NetworkCounts:
    """Count a network in evaluation mode on one example; the network is run, and not changed.

    fvcore counts, which traces the network with torch.jit, once for everything. Where it cannot trace it, or does not
    know an operator, torch's counter counts, and the result has the reason.

    Raises:
        InputError: the example inputs hold no example.
        TraceError: the network cannot be copied, or does not run on the example inputs.
    """
    inputs = batched(example, 1)
    with torch.no_grad():
        try:
            return by_fvcore(model, inputs)
        except Exception as error:  # of the network's own code, of torch.jit, of fvcore
            reason = short_reason(error)
        return by_torch(model, inputs, reason)


def count_or_take(model: nn.Module, example: ExampleInputs | Inputs, planned: int) -> NetworkCounts:
    """Count a network as `count_network` does, or take the MACs of its plan where it does not run here."""
    try:
        return count_network(model, example)
    except TraceError as error:
        return NetworkCounts(planned, f"the planner: {error}", {}, parameters={"": count_parameters(model)})


def by_fvcore(model: nn.Module, inputs: Inputs) -> NetworkCounts:
    """Count by fvcore.

    Raises:
        TraceError: it lacks an operator, or the network takes inputs by name.
        Exception: whatever the network, torch.jit and fvcore raise where it cannot be traced.
    """
    if inputs.kwargs:
        raise TraceError("inputs by name")
    counter = fvcore()
    with silenced():
        flops = quiet(counter.FlopCountAnalysis(counted_copy(model), inputs.args))
        flops.set_op_handle(**with_outputs(counter.jit_handles, handles(len(inputs.tensors))))
        by_operator = {name: int(count) for name, count in flops.by_operator().items()}
        outputs = by_operator.pop(OUTPUTS, 0)
        if unknown := sorted(set(flops.unsupported_ops()) - WITHOUT_MACS):
            raise TraceError(f"it does not know {', '.join(unknown)}")
        return NetworkCounts(
            sum(by_operator.get(name, 0) for name in LAYERS),
            f"fvcore {version('fvcore')}",
            by_operator,
            own_layers(flops.by_module_and_operator()),
            outputs,
            {name: int(count) for name, count in counter.parameter_count(model).items()},
        )


def counted_copy(model: nn.Module) -> nn.Module:
    """A copy with the same tensors in evaluation mode: fvcore puts hooks on it, and leaves them where a trace fails."""
    return copy_with(model, lambda _, tensor: tensor).eval()


def quiet(analysis: Any) -> Any:
    """An analysis of fvcore that logs nothing."""
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)


def own_layers(counts: Mapping[str, Mapping[str, float]]) -> dict[str, tuple[str, int]]:
    """The kind and the MACs of every module with MACs of its own, from counts that include those of submodules."""
    own = {path: kinds_of(operators) for path, operators in counts.items()}
    whole = {path: Counter(kinds) for path, kinds in own.items()}
    for path in whole:
        if path:
            parent = path.rpartition(".")[0]
            while parent not in own:
                parent = parent.rpartition(".")[0]
            own[parent].subtract(whole[path])
    return {path: (max(kinds, key=lambda kind: kinds[kind]), kinds.total()) for path, kinds in own.items() if +kinds}


def kinds_of(operators: Mapping[str, float]) -> "Counter[str]":
    """The MACs by kind of layer."""
    found: Counter[str] = Counter()
    for name, count in operators.items():
        if name in LAYERS:
            found[LAYERS[name]] += int(count)
    return found


def by_torch(model: nn.Module, inputs: Inputs, reason: str) -> NetworkCounts:
    """Count by torch's counter; `reason` is why fvcore did not.

    Raises:
        TraceError: the network does not run on these inputs, or cannot be copied.
    """
    quiet = counted_copy(model)
    try:
        with FlopCounterMode(display=False) as counter:
            inputs.call(quiet)
    except Exception as error:  # of the network's own code
        raise TraceError(f"{type(model).__name__} does not run on the example inputs: {short_reason(error)}") from error
    found = counted(counter)
    by = f"torch's counter; fvcore could not trace: {reason}"
    return NetworkCounts(sum(found.values()), by, found, parameters={"": count_parameters(model)})


def count_parameters(model: nn.Module) -> int:
    """The number of elements of a module's parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
