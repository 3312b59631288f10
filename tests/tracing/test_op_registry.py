"""The registry of ops: every row is that of an op which torch has, no op has two, and torch does what the rows say."""

from typing import Any

import pytest
import torch

from slimnet.tracing import meta_shapes
from slimnet.tracing.op_call import OpSpec
from slimnet.tracing.op_rows import merge_rows, same_row
from slimnet.tracing.ops.elementwise import activation
from slimnet.tracing.ops.registry import OPS, UNKNOWN, spec_of


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


PLANES, ROWS, CHANNELS = meta(2, 4, 7, 9), meta(3, 4), meta(4)
NORM = (PLANES, CHANNELS, CHANNELS, CHANNELS, CHANNELS)

CALLS: dict[Any, list[tuple]] = {
    meta_shapes.same_shape: [(PLANES,)],
    meta_shapes.broadcast: [(PLANES, PLANES), (PLANES, meta(4, 1, 9)), (PLANES, 2.0)],
    meta_shapes.reduction: [(PLANES, [2, 3]), (PLANES, [-1], True)],
    meta_shapes.convolution: [
        (PLANES, meta(6, 2, 3, 3), None, [2, 1], [1], [1, 2], False, [0], 2),
        (PLANES, meta(4, 3, 3, 2), None, [2], [1], [1], True, [1], 2),
    ],
    meta_shapes.cat: [([PLANES, PLANES[:, :3].contiguous()], 1), ([ROWS, ROWS], -1)],
    meta_shapes.addmm: [(meta(5), ROWS, meta(4, 5))],
    meta_shapes.mm: [(ROWS, meta(4, 5))],
    meta_shapes.max_pool: [(PLANES, [3, 2], [2], [1], [1], True), (PLANES, [2, 2])],
    meta_shapes.average_pool: [(PLANES, [3], [2], [1], True, False), (PLANES, [2, 2])],
}  # fmt: skip
"""Calls for the ops of each shape rule, with the defaults of the others."""

BY_NAME: dict[str, list[tuple]] = {
    "native_batch_norm": [(*NORM, False, 0.1, 1e-5)],
    "_native_batch_norm_legit_no_training": [(*NORM, 0.1, 1e-5)],
    "upsample_bilinear2d": [(PLANES, [5, 20], False)],
    "upsample_nearest2d": [(PLANES, [5, 20])],
    "_adaptive_avg_pool2d": [(PLANES, [1, 3])],
}


def op_of(name: str) -> Any:
    return getattr(torch.ops.aten, name)


def described(out: Any) -> list[tuple]:
    """Of each output what a later op can ask for; of the statistics of a BatchNorm nothing, since nobody reads them."""
    tensors = [out] if isinstance(out, torch.Tensor) else [each for each in out if each.ndim > 1]
    return [(tuple(each.shape), each.stride(), each.dtype) for each in tensors]


def test_every_row_is_that_of_an_op_which_torch_has():
    assert [name for name in OPS if not hasattr(torch.ops.aten, name)] == []


def test_an_op_without_a_row_is_unknown():
    assert spec_of("no_such_op") is UNKNOWN
    assert UNKNOWN.handler is None


def test_no_op_may_have_two_rows():
    with pytest.raises(ValueError, match="two rows: relu"):
        merge_rows({"relu": OpSpec(), "tanh": OpSpec()}, {"relu": OpSpec()})
    with pytest.raises(ValueError, match="named twice among relu"):
        same_row(OpSpec(), "relu", "tanh", "relu")


@pytest.mark.parametrize("name", [name for name, spec in OPS.items() if spec.shape is not None])
def test_a_shape_rule_gives_what_torch_gives(name):
    """Oracle: torch's own rules for meta tensors, shapes, strides and types."""
    rule = OPS[name].shape
    for args in BY_NAME.get(name) or CALLS[rule]:
        assert described(rule(*args)) == described(op_of(name)(*args))


@pytest.mark.parametrize("name", [name for name, spec in OPS.items() if spec.flat_at_zero is not None])
def test_what_is_flat_at_zero_has_no_value_and_no_slope_there(name):
    """Oracle: autograd."""
    x = torch.zeros(3, requires_grad=True)
    out = op_of(name)(x, *OPS[name].flat_at_zero)
    out.sum().backward()
    assert not out.any()
    assert not x.grad.any()


def test_factories_take_no_tensors():
    """Oracle: torch's schemas."""
    for name in (name for name, spec in OPS.items() if spec.factory):
        takes = {str(argument.type) for argument in op_of(name).default._schema.arguments}
        assert "Tensor" not in takes, name


def test_ops_that_use_no_values_give_the_same_for_any():
    """Oracle: the ops themselves on two tensors; `empty` gives nothing to compare."""
    wanted = {"zeros_like": (), "ones_like": (), "new_zeros": ([2],), "new_ones": ([2],), "full_like": (3.0,)}
    wanted["new_full"] = ([2], 3.0)
    for name, spec in OPS.items():
        if spec.uses == "none" and not spec.factory and "empty" not in name:
            left, right = (op_of(name)(torch.randn(3), *wanted[name]) for _ in range(2))
            assert torch.equal(left, right)


def test_ops_that_overwrite_use_nothing_of_their_first_tensor():
    """Oracle: the ops themselves, on two tensors that differ."""
    given = {"copy": (torch.arange(3.0),), "fill": (2.0,), "zero": ()}
    for name in (name for name, spec in OPS.items() if spec.uses == "others"):
        assert torch.equal(op_of(name)(torch.randn(3), *given[name]), op_of(name)(torch.randn(3), *given[name]))


def test_activations_are_noted_in_a_trace_and_measured_on_data_alike():
    """A trace notes what has the handler `activation`; a measurement goes by the row's flag."""
    assert {name for name, spec in OPS.items() if spec.activation} == {
        name for name, spec in OPS.items() if spec.handler is activation
    }
