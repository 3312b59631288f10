"""DenseShape: what a network computes after cuts of zeros, in the shapes that it had before them."""

import math
from collections.abc import Mapping

import torch
from torch import nn

from slimnet.modules.network import Network
from slimnet.shrinking.optimizer_state import TensorCutter
from slimnet.surgery.plan import SurgeryPlan


class DenseShape:
    """Puts tensors of a network that a plan has cut back into the dense network's shapes, with zeros for the rest.

    `plan` only cuts, as a shrinker's does: what it removed was zero where it mattered, so that the dense network with
    these tensors computes what the narrow one does. Running variances of removed channels become 1.
    """

    def __init__(self, plan: SurgeryPlan) -> None:
        self._cutter = TensorCutter(plan)
        self._shapes = plan.shapes

    def widen(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of the narrow network as the dense one has it; itself where nothing was cut."""
        if name not in self._cutter.names:
            return tensor
        shape = tuple(self._shapes[name])
        # Where each element was, from 1; between old groups of a convolution there was none, and a cut writes 0.
        numbers = torch.arange(1, math.prod(shape) + 1, device="cpu").reshape(shape)
        places = self._cutter.cut(name, numbers).reshape(-1).to(tensor.device)
        dense = torch.full((math.prod(shape) + 1,), float(name.endswith("running_var")))
        dense = dense.to(tensor.device, tensor.dtype)
        dense[places] = tensor.detach().reshape(-1)
        return dense[1:].reshape(shape)

    def weights(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """The state dict of the dense network: contiguous tensors on the CPU."""
        named = Network.of(model).named
        cut = {id(named[name]): name for name in self._cutter.names}
        state: Mapping[str, torch.Tensor] = model.state_dict(keep_vars=True)
        tensors = {name: value for name, value in state.items() if torch.is_tensor(value)}
        wide = {name: self.widen(cut.get(id(value), name), value) for name, value in tensors.items()}
        return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in wide.items()}
