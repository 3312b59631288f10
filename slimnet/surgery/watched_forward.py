"""One forward of a network whose modules are watched: what they return, and what follows from other returns."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from slimnet.errors import CertificateError
from slimnet.modules.example_inputs import Inputs, tensors_in
from slimnet.surgery.plan_data import DataStop

Returned = tuple[str, Any]
"""The path of a module, and what a call of it returned."""


class Ran(NamedTuple):
    """What one forward computed: the outputs to be compared, and the results that depend on them through data.

    Usually outputs are what the network returns, and there are no other results; else they are the tensors that the
    watched modules in front of a `DataStop` return, and `behind` are those of the modules behind it. `returned` is what
    all of them returned, in order.
    """

    outputs: list[torch.Tensor]
    results: list[torch.Tensor]
    behind: list[torch.Tensor]
    returned: list[Returned]


def run_watched(
    model: nn.Module, inputs: Inputs, stop: DataStop | None, replayed: Sequence[Returned] | None = None
) -> Ran:
    """One forward of a network, behind whose watched modules it goes on with what is `replayed`, if anything.

    Raises:
        CertificateError: the network lacks one of the modules, returns no tensor, or its forward raises.
    """
    if stop is None or not (stop.watched or stop.behind):
        return Ran(outputs(model, inputs), [], [], [])
    with returns_of(model, (*stop.watched, *stop.behind), replayed) as returned:
        results = outputs(model, inputs)
    behind = [tensor for path, each in returned if path in stop.behind for tensor in tensors_in(each)]
    if not stop.watched:
        return Ran(results, [], behind, returned)
    front = [tensor for path, each in returned if path in stop.watched for tensor in tensors_in(each)]
    return Ran(front, results, behind, returned)


@contextmanager
def returns_of(
    model: nn.Module, paths: Sequence[str], replayed: Sequence[Returned] | None = None
) -> Iterator[list[Returned]]:
    """While the context lasts, copies of what these modules compute, in order; they return what is `replayed` instead.

    Raises:
        CertificateError: the network has no such module.
    """
    returned: list[Returned] = []
    modules = dict(model.named_modules())
    missing = next((path for path in paths if path not in modules), None)
    if missing is not None:
        raise CertificateError(f"the plan compares outputs of {missing}, which the network does not have")

    def keep(path: str, output: Any) -> Any:
        # Copies, since what follows may write into them.
        place = len(returned)
        returned.append((path, copy.deepcopy(output)))
        if replayed is not None and place < len(replayed) and replayed[place][0] == path:
            return copy.deepcopy(replayed[place][1])
        return output

    def hook(path: str) -> Any:
        return lambda module, given, output: keep(path, output)

    handles = [modules[path].register_forward_hook(hook(path)) for path in paths]
    try:
        yield returned
    finally:
        for handle in handles:
            handle.remove()


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
