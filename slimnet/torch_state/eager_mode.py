"""Dispatch modes that are never compiled, and so do not make torch import its compiler."""

from torch.utils._python_dispatch import TorchDispatchMode


class EagerMode(TorchDispatchMode):
    """A dispatch mode without torch's guard against being compiled.

    With the guard, the first op imports `torch._dynamo`, which takes three seconds, and each op is dispatched half as
    fast. Nothing here runs under `torch.compile` (`torch_state.devices.uncompiled`).
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
