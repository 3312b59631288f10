"""Kinds of ONNX files: types, fixed and open sizes, several inputs and outputs, decoders, attention, older graphs."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_graphs import Graph, difference, outputs, plain_model, saved, stored_shapes

import slimnet
from slimnet.errors import SlimnetError, TraceError

EXACT = 2e-5


def as_type(model: onnx.ModelProto, dtype: type) -> onnx.ModelProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    del model.graph.value_info[:]
    return model


@pytest.mark.parametrize(("dtype", "limit"), [(np.float16, 1e-2)])
def test_half_precision(tmp_path, dtype, limit):
    path = saved(as_type(plain_model(), dtype), tmp_path)
    result = slimnet.slim_onnx(path, tmp_path / "slim.onnx")
    assert stored_shapes(result.path)["second.weight"] == (6, 6, 3, 3)
    assert result.certificate.max_rel_difference < limit
    images = np.random.default_rng(3).standard_normal((2, 3, 8, 8)).astype(dtype)
    before, after = outputs(path, images)[0], outputs(result.path, images)[0]
    assert after.dtype == dtype
    assert np.abs(before - after).max() < limit * np.abs(before).max()


def test_a_type_that_onnxruntime_does_not_run_is_refused(tmp_path):
    path = saved(as_type(plain_model(), np.float64), tmp_path)
    with pytest.raises(TraceError, match=r"onnxruntime does not run net.onnx: .*Conv"):
        slimnet.slim_onnx(path, tmp_path / "slim.onnx")


def test_a_fixed_batch_size_is_compared_on_several_draws(tmp_path):
    graph = Graph()
    x = graph.relu(graph.norm(graph.conv("x", "first", (8, 3, 3, 3)), "norm", 8, dead=(1, 6), beta=-1))
    flat = graph.node("Reshape", x, graph.store("shape", [1, 288], np.int64))
    weight = graph.store("fc.weight", graph.random.standard_normal((288, 5)))
    path = saved(graph.model(graph.node("MatMul", flat, weight), (1, 3, 8, 8)), tmp_path)
    result = slimnet.slim_onnx(path, tmp_path / "slim.onnx")
    assert result.certificate.samples == 4
    assert stored_shapes(result.path)["fc.weight"] == (216, 5)
    assert difference(path, result.path, (1, 3, 8, 8)) < EXACT


def test_open_heights_and_widths_are_tried_in_another_size(tmp_path):
    path = saved(with_sizes(plain_model(), ["n", 3, "h", "w"]), tmp_path)
    result = slimnet.slim_onnx(path, tmp_path / "slim.onnx", input_shape=(3, 16, 16))
    assert "x (4, 3, 16, 16) of seed 0" in result.inputs
    assert "x (4, 3, 48, 48) of seed 2" in result.inputs
    assert difference(path, result.path, (2, 3, 21, 33)) < EXACT


def with_sizes(model: onnx.ModelProto, sizes: list) -> onnx.ModelProto:
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, sizes))
    del model.graph.value_info[:]
    return model


def test_several_inputs_and_outputs(tmp_path):
    """Every output is compared; what is an output keeps its channels."""
    graph = Graph()
    left = graph.relu(graph.norm(graph.conv("x", "left", (8, 3, 3, 3)), "norm", 8, dead=(1, 6), beta=-1))
    right = graph.relu(graph.norm(graph.conv("y", "right", (8, 2, 3, 3)), "norm2", 8, dead=(1, 6), beta=-1))
    total = graph.node("Mul", left, right)
    seen = graph.relu(graph.norm(graph.conv(total, "seen", (4, 8, 1, 1)), "norm3", 4, dead=(0,), beta=-1))
    model = graph.model(graph.head(seen, 4))
    model.graph.input.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ("n", 2, 8, 8)))
    model.graph.output.append(helper.make_tensor_value_info(seen, onnx.TensorProto.FLOAT, ("n", 4, 6, 6)))
    path = saved(model, tmp_path)
    result = slimnet.slim_onnx(path, tmp_path / "slim.onnx")
    shapes = stored_shapes(result.path)
    assert (shapes["left.weight"][0], shapes["right.weight"][0], shapes["seen.weight"][0]) == (6, 6, 4)
    assert difference(path, result.path, (3, 3, 8, 8), (3, 2, 8, 8)) < EXACT
    assert "y (4, 2, 8, 8)" in result.inputs


def test_hidden_units_of_a_transformer_block(tmp_path):
    """Attention with literal heads keeps its channels; dead hidden units of the feed-forward part go."""
    graph, width, heads = Graph(), 12, 3
    random = graph.random

    def linear(x, name, inputs, outputs, dead=()):
        weight = random.standard_normal((inputs, outputs)) / np.sqrt(inputs)
        weight[:, list(dead)] = 0
        product = graph.node("MatMul", x, graph.store(f"{name}.weight", weight), name=f"{name}/MatMul")
        return graph.node("Add", product, graph.store(f"{name}.bias", random.standard_normal(outputs)))

    def norm(x, name):
        vectors = [graph.store(f"{name}.{key}", random.uniform(0.5, 1.5, width)) for key in ("scale", "shift")]
        return graph.node("LayerNormalization", x, *vectors)

    y = norm("x", "norm1")
    split = graph.store("split", [0, 7, heads, width // heads], np.int64)
    q, k, v = (graph.node("Transpose", graph.node("Reshape", linear(y, n, width, width), split), perm=[0, 2, 1, 3])
               for n in "qkv")  # fmt: skip
    scores = graph.node("Softmax", graph.node("MatMul", q, graph.node("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)
    mixed = graph.node("Transpose", graph.node("MatMul", scores, v), perm=[0, 2, 1, 3])
    mixed = graph.node("Reshape", mixed, graph.store("join", [0, 7, width], np.int64))
    x = graph.node("Add", "x", linear(mixed, "out", width, width))
    hidden = graph.node(
        "Gelu" if graph.opset > 19 else "Relu", linear(norm(x, "norm2"), "up", width, 20, dead=(3, 9, 10))
    )
    x = graph.node("Add", x, linear(hidden, "down", 20, width))
    path = saved(graph.model(x, ("n", 7, width)), tmp_path)
    result = slimnet.slim_onnx(path, tmp_path / "slim.onnx")
    shapes = stored_shapes(result.path)
    assert (shapes["up.weight"], shapes["up.bias"], shapes["down.weight"]) == ((12, 17), (17,), (17, 12))
    assert difference(path, result.path, (2, 7, width)) < EXACT


def test_one_weight_of_two_layers_stays_one(tmp_path):
    graph = Graph()
    first = graph.relu(graph.conv("x", "shared", (3, 3, 1, 1), dead=(1,), bias=0.0))
    inputs = [first, "shared.weight", "shared.bias"]
    second = graph.relu(graph.node("Conv", *inputs, name="again/Conv"))
    path = saved(graph.model(graph.head(second, 3)), tmp_path)
    with pytest.raises(SlimnetError, match="none of which can be removed"):
        slimnet.slim_onnx(path, tmp_path / "slim.onnx")


def test_a_slim_file_has_nothing_more_to_remove(tmp_path):
    slimnet.slim_onnx(saved(plain_model(), tmp_path), tmp_path / "slim.onnx")
    with pytest.raises(SlimnetError, match="has no dead channel"):
        slimnet.slim_onnx(tmp_path / "slim.onnx", tmp_path / "again.onnx")


def test_metadata_and_opsets_stay(tmp_path):
    model = plain_model()
    helper.set_model_props(model, {"classes": "cat,dog"})
    model.producer_name, model.doc_string = "someone", "a network"
    result = slimnet.slim_onnx(saved(model, tmp_path), tmp_path / "slim.onnx")
    slim = onnx.load(result.path)
    assert (slim.producer_name, slim.doc_string, slim.metadata_props[0].value) == ("someone", "a network", "cat,dog")
    assert slim.opset_import == model.opset_import


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("LeakyRelu", {"alpha": 0.1}), ("Elu", {}), ("Selu", {}), ("Celu", {"alpha": 0.5}), ("HardSigmoid", {}),
        ("HardSigmoid", {"alpha": 1 / 6}), ("HardSwish", {}), ("Softplus", {}), ("Softsign", {}), ("Sigmoid", {}),
        ("Tanh", {}), ("Erf", {}), ("Abs", {}), ("Sin", {}), ("Cos", {}), ("Floor", {}), ("Sign", {}), ("Exp", {}),
        ("ThresholdedRelu", {"alpha": 0.3}), ("Mish", {}), ("Gelu", {}), ("Gelu", {"approximate": "tanh"}),
        ("GlobalMaxPool", {}), ("MaxPool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ("MaxPool", {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
        ("AveragePool", {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("DepthToSpace", {"blocksize": 2}), ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}),
        ("SpaceToDepth", {"blocksize": 2}), ("LRN", {"size": 3}), ("LpNormalization", {"axis": 1}),
        ("InstanceNormalization", {}), ("PRelu", {}), ("Softmax", {"axis": 1}), ("LogSoftmax", {"axis": 1}),
        ("ReduceL2", {}), ("ReduceMax", {}), ("ReduceLogSumExp", {}), ("ReduceSumSquare", {}), ("ReduceProd", {}),
        ("Resize", {"mode": "linear"}), ("Resize", {"mode": "nearest", "nearest_mode": "floor"}),
        ("Resize", {"mode": "cubic"}), ("Clip", {}), ("Pow", {}), ("Identity", {}), ("Slice", {}), ("Gather", {}),
    ],
)  # fmt: skip
def test_operators_compute_as_under_onnxruntime(tmp_path, kind, attributes):
    """Whatever is behind dead channels: the file computes the same, and the convolution in front still loses them,
    unless the operator mixes channels or takes them apart."""
    graph = Graph(20)
    x = graph.norm(graph.conv("x", "first", (8, 3, 3, 3)), "norm", 8, dead=(1, 6))
    rest = {
        "InstanceNormalization": [graph.store(n, graph.random.uniform(0.5, 1.5, 8)) for n in ("scale", "shift")],
        "PRelu": [graph.store("slope", graph.random.uniform(0, 1, (8, 1, 1)))],
        "Resize": ["", graph.store("scales", [1, 1, 2, 2])],
        "Clip": [graph.store("least", -0.5), graph.store("most", 0.5)],
        "Pow": [graph.store("power", 2.0)],
        "Slice": [graph.store(n, [v], np.int64) for n, v in (("starts", 1), ("ends", 5), ("axis", 2), ("steps", 2))],
        "Gather": [graph.store("rows", [0, 2, 3], np.int64)],
        **{name: [graph.store("axes", [2, 3], np.int64)] for name in ("ReduceL2", "ReduceMax", "ReduceLogSumExp",
           "ReduceSumSquare", "ReduceProd")},
    }  # fmt: skip
    if kind == "Gather":
        attributes = {"axis": 2}
    channels = {"DepthToSpace": 2, "SpaceToDepth": 32}.get(kind, 8)
    used = rest.get(kind, [])
    for name in [n for n in graph.stored if "." not in n and n not in used]:
        del graph.stored[name]
    x = graph.node(kind, x, *used, name="tried", **attributes)
    x = graph.relu(graph.norm(graph.conv(x, "second", (6, channels, 1, 1)), "norm2", 6, dead=(0,), beta=-1))
    path = saved(graph.model(graph.head(x, 6)), tmp_path)
    result = slimnet.slim_onnx(path, tmp_path / "slim.onnx")
    assert difference(path, result.path, (2, 3, 8, 8)) < EXACT
    stays = kind in MIXING or (kind, attributes) in NOT_FOLLOWED
    assert stored_shapes(result.path)["first.weight"][0] == (8 if stays else 6)


MIXING = ("LRN", "Softmax", "LogSoftmax", "ReduceLogSumExp", "ReduceProd", "DepthToSpace")
"""Operators behind which a constant is none, or whose channels depend on each other."""

NOT_FOLLOWED = [
    ("AveragePool", {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("Resize", {"mode": "nearest", "nearest_mode": "floor"}),
    ("Resize", {"mode": "cubic"}),
]
"""Settings without an equivalent in torch."""
