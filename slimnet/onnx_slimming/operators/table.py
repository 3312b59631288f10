"""The table of operators: a function of settings and inputs for each operator of ONNX that is traced."""

from slimnet.onnx_slimming.operators.elementwise import ELEMENTWISE
from slimnet.onnx_slimming.operators.layout import LAYOUT
from slimnet.onnx_slimming.operators.normalisation import NORMALISATION
from slimnet.onnx_slimming.operators.pooling import PLANES

OPERATORS = {**ELEMENTWISE, **LAYOUT, **NORMALISATION, **PLANES}
"""Every operator by name; those with sizes of their own are classes, see `sized.py`."""

KNOWN_INPUTS = {
    "Reshape": {1}, "Resize": {1, 2, 3}, "Upsample": {1}, "Slice": {1, 2, 3, 4}, "Pad": {1, 2, 3}, "Clip": {1, 2},
    "Tile": {1}, "Expand": {1}, "Squeeze": {1}, "Unsqueeze": {1}, "Split": {1}, "ConstantOfShape": {0}, "TopK": {1},
    "Range": {0, 1, 2}, "OneHot": {1}, "Dropout": {1, 2},
    **{name: {1} for name in PLANES if name.startswith("Reduce")},
}  # fmt: skip
"""The inputs of an operator that have to be numbers known beforehand, by position."""
