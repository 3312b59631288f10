"""find_operator: the operators that a captured network may call.

These are operators that compute on tensors and numbers. Refused are those that read or write files, change the storage
of a tensor, or are internal to others, which call them with checked arguments only.
"""

import functools
import re

import torch

from slimnet.compat import torchvision
from slimnet.errors import BundleError

TARGETS = re.compile(r"torch\.ops\.(?P<family>aten|torchvision)\.(?P<name>[a-z_]\w*)\.(?P<overload>\w+)", re.ASCII)

INNER = re.compile(
    r"__i?(and|or|xor|lshift|rshift)__|_(adaptive_avg_pool[23]d|assert_scalar|assert_tensor_metadata|conj|convolution"
    r"|fft_c2[cr]|fft_r2c|log_softmax|native_batch_norm_legit(_no_training)?|prelu_kernel|reshape_alias|safe_softmax"
    r"|softmax|stack|to_copy|trilinear|unsafe_view|upsample_\w+|weight_norm(_interface)?|local_scalar_dense)"
)
"""Permitted operators whose names begin with an underscore."""

REFUSED = re.compile(
    r"from_file|save|load|set|set_|set_data|data|resize\w*|rename\w*|record_stream|retain_grad|requires_grad_|pin_memory"
    r"|is_pinned|\w*(backward|sparse|mkldnn|cudnn|miopen|fbgemm|quantize_per|quantized|nested|jagged|coalesce)\w*"
    r"|bincount|histogramdd|combinations|cartesian_prod|unique\w*"
)
"""Operators that do more than compute, or whose results may be of any size."""

REFUSED_OVERLOADS = {"repeat_interleave.Tensor", "repeat_interleave.self_Tensor", "one_hot.default", "where.default"}
"""Operators whose output size depends on the values in a tensor, or that return one output for each of its axes."""

VISION = {"nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d"}
"""Permitted operators of torchvision."""


@functools.cache
def find_operator(target: str) -> torch._ops.OpOverload:
    """The operator with a name such as `torch.ops.aten.conv2d.default`.

    Raises:
        BundleError: there is none, or it does more than compute.
    """
    parts = TARGETS.fullmatch(target)
    if parts is None or not is_allowed(parts["family"], parts["name"], parts["overload"]):
        raise BundleError(f"it calls {target!r:.60}, which is not an operator on tensors that is run")
    if parts["family"] == "torchvision":
        torchvision()
    packet = getattr(getattr(torch.ops, parts["family"]), parts["name"], None)
    operator = getattr(packet, parts["overload"], None)
    # What only TorchScript registers (aten::manual_seed, aten::warn) has no kernel of the dispatcher's.
    if not (isinstance(operator, torch._ops.OpOverload) and torch._C._dispatch_has_kernel(operator.name())):
        raise BundleError(f"it calls {target!r:.60}, which this torch does not have")
    if any(argument.is_out for argument in operator._schema.arguments):
        raise BundleError(f"it calls {target!r:.60}, which writes into a tensor that it is given")
    return operator


def is_allowed(family: str, name: str, overload: str) -> bool:
    """Whether an operator may be called."""
    if family == "torchvision":
        return name in VISION
    whole = f"{name}.{overload}"
    if name.startswith("_"):
        return INNER.fullmatch(name) is not None
    return not REFUSED.fullmatch(name) and whole not in REFUSED_OVERLOADS
