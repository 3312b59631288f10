"""Whether a module does something else for another number of rows, as code does that branches on how many there are."""

from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from slimnet.graph.data_run import TensorForm
from slimnet.torch_state.eager_mode import EagerMode
from slimnet.tracing.data_answers import is_form, restored
from slimnet.tracing.meta_autocast import as_with_data
from slimnet.tracing.ops.registry import spec_of

FEW = (1, 2)
"""Numbers of rows that are tried besides a large one. None is not: without rows there are no values."""


class OpNames(EagerMode):
    """Lists the names of all ops, without those that depend on the memory layout."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.overloadpacket.__name__
        if not spec_of(name).layout_dependent:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def depends_on_rows(module: nn.Module, given: Any) -> bool:
    """Whether a module on meta tensors calls other ops where there are more or fewer rows `(N, ...)`.

    `given` are the forms of what it was given, as `(args, kwargs)`. Where not all tensors have as many rows, nothing is
    tried.
    """
    forms = [leaf for leaf in pytree.tree_leaves(given, is_leaf=is_form) if is_form(leaf)]
    rows = {form.shape[:1] for form in forms}
    if len(rows) != 1 or () in rows:
        return False
    many = 2 * forms[0].shape[0] + 1
    found = [op_names(module, with_rows(given, count)) for count in (*FEW, many)]
    # What raises does so in the dense network too.
    ran = [names for names in found if names is not None]
    return any(names != ran[0] for names in ran[1:])


def with_rows(given: Any, count: int) -> Any:
    """Forms with another number of rows."""
    return pytree.tree_map_only(
        TensorForm, lambda form: TensorForm((count, *form.shape[1:]), form.dtype), given, is_leaf=is_form
    )


def op_names(module: nn.Module, given: Any) -> list[str] | None:
    """The names of the ops that a module calls; None where it raises."""
    args, kwargs = restored(given)
    try:
        with torch.no_grad(), as_with_data(), OpNames() as log:
            module(*args, **kwargs)
    except Exception:  # whatever its own code raises
        return None
    return log.names
