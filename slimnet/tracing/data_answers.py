"""What a forward learns from data: ops whose result depends on values, and what they returned in a run on data."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from slimnet.graph.data_run import Answer, CallAnswer, DataRun, TensorForm
from slimnet.modules.copying import eval_copy
from slimnet.modules.example_inputs import Inputs
from slimnet.modules.forward_path import Forward, forwards_wrapped, module_paths
from slimnet.modules.network import Network
from slimnet.torch_state.devices import uncompiled
from slimnet.torch_state.eager_mode import EagerMode
from slimnet.torch_state.random_state import random_numbers_kept
from slimnet.tracing.op_call import is_composite, tensors_among
from slimnet.tracing.ops.registry import spec_of

TAGS = frozenset([torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output])
"""torch's tags of ops whose result depends on values."""

OF_TORCH = ("aten", "prims", "prim")
"""The namespaces of ops whose tags are complete."""

PLAIN = (int, float, bool, complex, str, type(None), TensorForm)
"""What the leaves of a result may be, so that it can be made again."""

AS_ARRAY = frozenset({"numpy", "__array__"})
"""The functions by which a tensor becomes an array of NumPy."""

READS = AS_ARRAY | {"tolist"}
"""The functions by which values leave torch."""

MASKS = (torch.bool, torch.uint8)


def depends_on_data(func: Any, error: Exception) -> bool:
    """Whether an op raised on meta tensors since its result, or the shape of it, depends on values."""
    if not TAGS.isdisjoint(func.tags):
        return isinstance(error, NotImplementedError) or "meta" in str(error)
    return "meta Tensors (as opposed to FakeTensors)" in str(error) or "data-dependent" in str(error)


def may_ask(func: Any, args: tuple) -> bool:
    """Whether the result of an op may depend on values: by its tags, or it is no op of torch's own."""
    if func.namespace not in OF_TORCH:
        return True
    if TAGS.isdisjoint(func.tags):
        return False
    # By integers as many elements are picked as there are integers.
    return func.overloadpacket is not torch.ops.aten.index or any(
        index is not None and index.dtype in MASKS for index in args[1]
    )


def has_meta_rule(func: Any, args: tuple, kwargs: dict) -> bool:
    """Whether an op can do without data: it runs on meta tensors."""
    try:
        func(*meta(args), **meta(kwargs))
    except Exception:  # whatever its rule raises
        return False
    return True


def meta(given: Any) -> Any:
    """The same with meta tensors in the place of others."""
    return pytree.tree_map_only(torch.Tensor, lambda tensor: torch.empty_like(tensor, device="meta"), given)


def form_of(result: Any) -> Any:
    """A result with a `TensorForm` for each tensor."""
    return pytree.tree_map_only(torch.Tensor, lambda tensor: TensorForm(tuple(tensor.shape), tensor.dtype), result)


def is_form(value: Any) -> bool:
    """Whether a value is the form of a tensor, which is a tuple itself."""
    return isinstance(value, TensorForm)


def can_restore(form: Any) -> bool:
    """Whether a result can be made again from its form: it holds tensors and numbers alone."""
    return all(isinstance(leaf, PLAIN) for leaf in pytree.tree_leaves(form, is_leaf=is_form))


def restored(form: Any) -> Any:
    """A result on meta tensors."""
    return pytree.tree_map_only(
        TensorForm, lambda each: torch.empty(each.shape, dtype=each.dtype, device="meta"), form, is_leaf=is_form
    )


class AnswerLog(EagerMode):
    """Writes down what a forward on data learns from it, and which parameters its ops take; see `DataRun`."""

    def __init__(self, network: Network):
        super().__init__()
        self.names = {id(tensor): name for name, tensor in reversed(network.named.items())}
        self.path: list[str] = []
        self.answers: list[Answer] = []
        self.calls: dict[str, dict[int, CallAnswer]] = {}
        self.reading: set[str] = set()
        self.uses: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if torch.is_inference_mode_enabled() and is_composite(func) and spec_of(name).handler is None:
            # As in the trace.
            with self:
                return func.decompose(*args, **kwargs)
        self.uses += [self.names[id(tensor)] for tensor in tensors_among(args, kwargs) if id(tensor) in self.names]
        out = func(*args, **kwargs)
        if may_ask(func, args):
            self.answers.append(Answer(name, form_of(out)))
            if func.namespace in OF_TORCH or not has_meta_rule(func, args, kwargs):
                self.reading.update(self.path)
        return out

    def wrapped(self, forward: Forward, name: str) -> Forward:
        """A module's forward that writes down what it returns."""

        def run(*args: Any, **kwargs: Any) -> Any:
            first, calls = len(self.answers), self.calls.setdefault(name, {})
            output = forward(*args, **kwargs)
            if len(self.answers) > first:
                calls[first] = CallAnswer(form_of(output), len(self.answers))
            return output

        run.__wrapped__ = forward  # type: ignore[attr-defined]
        return run


class ReadsLog(TorchFunctionMode):
    """Writes down what a forward takes out of torch, which no op does."""

    def __init__(self, log: AnswerLog):
        super().__init__()
        self.log = log

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.__name__ in READS:
            self.log.reading.update(self.log.path)
        if func.__name__ == "tolist":
            # On meta tensors it asks for one number after the other.
            self.log.answers += [Answer("_local_scalar_dense", number) for number in pytree.tree_leaves(result)]
        return result


def run_on_data(network: Network, inputs: Inputs) -> DataRun:
    """Run a forward on data, and write down what it learns from it; the network is not touched.

    Whatever the forward raises is raised.
    """
    copy, given = Network.of(eval_copy(network)), inputs.map(torch.clone)
    log = AnswerLog(copy)
    before = own_numbers(copy.modules)
    with (
        torch.no_grad(),
        uncompiled(),
        random_numbers_kept(copy.module),
        module_paths(copy.modules, log.path),
        forwards_wrapped(copy.modules, log.wrapped),
        log,
        ReadsLog(log),
    ):
        given.call_directly(copy.module)
    after = own_numbers(copy.modules)
    changed = {path for path, numbers in before.items() if numbers != after[path]}
    return DataRun(tuple(log.answers), log.calls, frozenset(log.reading | changed), tuple(log.uses))


def own_numbers(modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """The numbers in the attributes of each module, as text."""
    return {
        path: repr([(name, value) for name, value in vars(module).items() if is_plain(value)])
        for path, module in modules.items()
    }


def is_plain(value: Any) -> bool:
    """Whether a value is a number, or consists of numbers and text."""
    if isinstance(value, dict):
        return all(map(is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return isinstance(value, int | float | str)
