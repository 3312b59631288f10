"""The path of the module whose forward is running, for messages that say where an error was raised."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from slimnet.modules.example_inputs import tensors_in

Returned = tuple[str, list[torch.Tensor]]
"""The path of a module, and the tensors that a call of it returned."""

Forward = Callable[..., Any]


@contextmanager
def module_paths(
    modules: Mapping[str, nn.Module], path: list[str], returned: list[Returned] | None = None
) -> Iterator[None]:
    """While the context lasts, keep the path of the module whose forward is running at the end of `path`.

    The tensors that each forward returns are appended to `returned`, if given, with the module's path.

    `modules` are all of a network's, as `modules_of` gives them. Their forwards are wrapped meanwhile, so they must be
    copies of one's own; hooks would cost ten times as much.
    """
    with forwards_wrapped(modules, lambda forward, name: announced(forward, name, path, returned)):
        yield


@contextmanager
def forwards_wrapped(modules: Mapping[str, nn.Module], wrap: Callable[[Forward, str], Forward]) -> Iterator[None]:
    """While the context lasts, each module has the forward that `wrap` makes of its own and its path."""
    own = {name: vars(module)["forward"] for name, module in modules.items() if "forward" in vars(module)}
    for name, module in modules.items():
        vars(module)["forward"] = wrap(module.forward, name)
    try:
        yield
    finally:
        for name, module in modules.items():
            if name in own:
                vars(module)["forward"] = own[name]
            else:
                del vars(module)["forward"]


def announced(forward: Forward, name: str, path: list[str], returned: list[Returned] | None) -> Forward:
    """A module's forward that puts the module's name at the end of `path` while it runs; see `module_paths`."""

    def run(*args: Any, **kwargs: Any) -> Any:
        path.append(name)
        try:
            output = forward(*args, **kwargs)
        finally:
            path.pop()
        if returned is not None:
            returned.append((name, [output] if isinstance(output, torch.Tensor) else tensors_in(output)))
        return output

    run.__wrapped__ = forward  # type: ignore[attr-defined]
    return run


def place_of(error: BaseException) -> str:
    """The path of the innermost module whose announced forward raised; "" where that is the network itself."""
    place, step = "", error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_qualname == "announced.<locals>.run":
            place = step.tb_frame.f_locals["name"]
        step = step.tb_next
    return place
