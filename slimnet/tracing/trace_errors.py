"""Why a forward cannot be traced, as an error in one line."""

from slimnet.errors import InputError, SlimnetError, TraceError
from slimnet.modules.example_inputs import Inputs
from slimnet.modules.forward_path import place_of


def refusal(error: Exception, inputs: Inputs) -> SlimnetError:
    """Say in one line why a forward could not be traced."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    where = place_of(error) or "the network itself"
    op = text.partition(": ")[0]
    if isinstance(error, NotImplementedError) and "::" in op:
        return TraceError(
            f"the forward uses {op} in {where}, which torch cannot follow without data; slim the network without it "
            "(before it is quantised, say)"
        )
    if isinstance(error, NotImplementedError) and "nonzero" in text:
        return TraceError(
            f"the forward depends on data in {where}: how many elements a mask or nonzero picks; "
            "slimnet needs a forward whose ops do not depend on values: slim the part before it (a detector's "
            "backbone) by itself"
        )
    if isinstance(error, NotImplementedError) or any(
        sign in text for sign in ("meta", "data-dependent", "unallocated")
    ):
        return TraceError(
            f"the forward depends on data in {where} ({type(error).__name__}: {text}); "
            "slimnet needs a forward whose ops do not depend on values"
        )
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs.tensors)
    return InputError(f"the network's forward raised on example inputs of shape {shapes}, in {where}: {text}")
