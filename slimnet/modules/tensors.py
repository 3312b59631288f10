"""The tensors of a module by path, and the types of what is none."""

from collections import OrderedDict
from typing import NamedTuple

import torch

FROZEN = frozenset([str, int, float, bool, type(None), torch.device, torch.dtype, torch.Size])


CONTAINERS = frozenset([dict, OrderedDict, set, list])


SEQUENCES = frozenset([tuple, list, set])


NO_TENSORS = FROZEN | CONTAINERS | SEQUENCES
"""Types of attributes that are no tensors themselves."""


Named = dict[str, torch.Tensor]


class Tensors(NamedTuple):
    """A module's tensors by path; shared parameters and buffers stand under each of their names."""

    parameters: Named
    buffers: Named
    plain: Named

    @property
    def state(self) -> Named:
        """The parameters, then the buffers."""
        return {**self.parameters, **self.buffers}

    @property
    def named(self) -> Named:
        """The parameters, then the buffers, then the plain tensor attributes."""
        return {**self.parameters, **self.buffers, **self.plain}
