"""How far the values of a network move where channels are set to zero, measured on examples."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from slimnet.errors import CertificateError
from slimnet.graph.channel_graph import ChannelGraph, Reader
from slimnet.modules.copying import eval_copy
from slimnet.modules.example_inputs import Inputs
from slimnet.surgery.equivalence import relative_difference
from slimnet.surgery.watched_forward import outputs
from slimnet.torch_state.devices import uncompiled
from slimnet.torch_state.random_state import random_numbers_kept


@dataclass(frozen=True)
class Change:
    """What setting channels to zero changes, measured in evaluation mode; None where a number is not finite.

    `received` is the largest absolute value of these channels that a convolution or linear layer received before,
    over the largest of all that this layer received; the worst of all layers. `outputs` is the largest difference of
    the network's outputs over the largest output.
    """

    received: float | None
    outputs: float | None


class ChangeMeter:
    """Runs a network before and after channels are set to zero; the network is not touched.

    `zeros` says of every label of `graph` whether it will be 0.

    Raises:
        CertificateError: the forward raises in evaluation mode.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, graph: ChannelGraph, zeros: np.ndarray) -> None:
        self._inputs, self._model = inputs, eval_copy(model)
        self._received = 0.0
        with self._watched(graph, zeros):
            self._before = self._outputs()

    def change(self) -> Change:
        """What has changed; called once the parameters of the network hold zeros, at the shapes that they had."""
        return Change(_finite(self._received), _finite(relative_difference(self._before, self._outputs())))

    def _outputs(self) -> list[torch.Tensor]:
        with torch.no_grad(), uncompiled(), random_numbers_kept(self._model):
            return outputs(self._model, self._inputs)

    @contextlib.contextmanager
    def _watched(self, graph: ChannelGraph, zeros: np.ndarray) -> Iterator[None]:
        """Look at what each layer receives that is not 0 yet."""
        modules = dict(self._model.named_modules())
        with contextlib.ExitStack() as stack:
            for step in graph.steps:
                if isinstance(step, Reader) and zeros[step.inputs].any():
                    module = modules.get(step.module)
                    # A layer may also be a function in the forward of what is around it.
                    if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
                        hook = module.register_forward_pre_hook(self._look(zeros[step.inputs]))
                        stack.callback(hook.remove)
            yield

    def _look(self, zeros: np.ndarray) -> Callable[[nn.Module, Any], None]:
        channels = torch.from_numpy(zeros)

        def look(module: Any, arguments: tuple[Any, ...]) -> None:
            if not arguments:
                return
            received = arguments[0].detach().abs()
            axis = received.ndim - (module.weight.ndim - 1)
            if received.shape[axis] != len(channels):
                return
            largest = received.movedim(axis, 0).flatten(1).amax(1).double().cpu()
            whole = float(largest.max())
            if whole:
                # NaN wins, so that it is seen.
                share = float(largest[channels].max()) / whole
                self._received = share if math.isnan(share) else max(self._received, share)

        return look


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def try_meter(model: nn.Module, inputs: Inputs, graph: ChannelGraph, zeros: np.ndarray) -> ChangeMeter | None:
    """A meter; None where the forward does not run in evaluation mode, where nothing can be measured."""
    try:
        return ChangeMeter(model, inputs, graph, zeros)
    except CertificateError:
        return None
