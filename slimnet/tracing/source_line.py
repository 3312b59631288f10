"""The line of the network's own code from which an op is called."""

import os
from functools import cache
from types import FrameType

from slimnet.modules.example_inputs import Inputs

STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep


@cache
def is_internal(module: str, file: str) -> bool:
    """Whether code is torch's, the trace's own or Python's; remembered, since few modules run for every op."""
    ours = module.startswith(("torch.", "slimnet.")) and not module.startswith("slimnet.models")
    return ours or file.startswith("<frozen ") or (file.startswith(STANDARD_LIBRARY) and "-packages" not in file)


def network_frame(caller: FrameType | None) -> FrameType | None:
    """The innermost frame of the network's own code, from a frame outwards: not torch's, Python's or the trace's.

    None where there is none: a network may be made of torch's modules alone. Further out is whoever had it traced.
    """
    while caller is not None:
        code = caller.f_code
        if not is_internal(caller.f_globals.get("__name__", ""), code.co_filename):
            return caller
        if code is Inputs.call_directly.__code__:
            return None
        caller = caller.f_back
    return None


def line_above(caller: FrameType | None) -> str:
    """The line of `network_frame`; empty where there is none."""
    frame = network_frame(caller)
    return "" if frame is None else f"{file_name(frame.f_code.co_filename)}:{frame.f_lineno}"


@cache
def file_name(path: str) -> str:
    """A file's name without its folder."""
    return path.rsplit("/", 1)[-1]
