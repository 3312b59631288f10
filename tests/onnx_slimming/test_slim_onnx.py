"""slim_onnx: what is dead in a graph goes, the file stays the same otherwise, and onnxruntime computes the same."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx_graphs import Graph, difference, node_names, outputs, plain_model, saved, stored_shapes

import slimnet
from slimnet.errors import CertificateError, SlimnetError, TraceError, UsageError
from slimnet.onnx_slimming.slim_onnx import plan_onnx

EXACT = 2e-5
IMAGES = (3, 3, 8, 8)


def slimmed(model, folder, **settings):
    """Slim a model and compare both files on inputs that the certificate has not seen."""
    dense = saved(model, folder)
    result = slimnet.slim_onnx(dense, folder / "slim.onnx", **settings)
    assert result.certificate.holds
    onnx.checker.check_model(onnx.load(result.path), full_check=True)
    return result, dense


def check(model, folder, *shapes, **settings):
    result, dense = slimmed(model, folder, **settings)
    assert difference(dense, result.path, *(shapes or [IMAGES])) < EXACT
    return result


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 20])
def test_dead_channels_of_a_batchnorm_are_removed(tmp_path, opset):
    """β of -0.5 in front of a ReLU is 0 behind it: nothing is folded, and no node is added, renamed or moved."""
    result = check(plain_model(opset), tmp_path)
    shapes = stored_shapes(result.path)
    assert shapes["first.weight"] == (6, 3, 3, 3)
    assert shapes["norm.running_var"] == (6,)
    assert shapes["second.weight"] == (6, 6, 3, 3)
    assert node_names(result.path) == node_names(tmp_path / "net.onnx")
    assert result.plan.removed_channels == 2


def test_what_is_not_cut_stays_byte_for_byte(tmp_path):
    result = check(plain_model(), tmp_path)
    before, after = ({t.name: t for t in onnx.load(p).graph.initializer} for p in (tmp_path / "net.onnx", result.path))
    assert before["fc.weight"].SerializeToString() == after["fc.weight"].SerializeToString()
    kept = [0, 2, 3, 5, 6, 7]
    expected = numpy_helper.to_array(before["first.weight"])[kept]
    assert np.array_equal(numpy_helper.to_array(after["first.weight"]), expected)


def folded(zero: float, bias: float, pads=(0, 0, 0, 0)) -> onnx.ModelProto:
    graph = Graph()
    x = graph.relu(graph.conv("x", "first", (8, 3, 3, 3), dead=(0, 5), bias=bias, zero=zero))
    return graph.model(graph.head(graph.relu(graph.conv(x, "second", (6, 8, 3, 3), pads=list(pads))), 6))


def test_a_zero_filter_with_a_bias_is_a_constant_that_is_folded_into_a_new_bias(tmp_path):
    """As a BatchNorm leaves it that was folded; the second convolution had no bias and gets one."""
    result = check(folded(0.0, 0.7), tmp_path)
    shapes = stored_shapes(result.path)
    assert shapes["second.weight"] == (6, 6, 3, 3)
    assert shapes["second.bias"] == (6,)


def test_a_filter_that_is_zero_but_for_rounding_is_dead_as_well(tmp_path):
    assert check(folded(1e-8, -0.3), tmp_path).plan.removed_channels == 2


def test_a_small_filter_that_is_no_rounding_stays(tmp_path):
    """A hundred-thousandth of the others: it may count."""
    with pytest.raises(SlimnetError, match="has no dead channel"):
        slimnet.slim_onnx(saved(folded(1e-5, -0.3), tmp_path), tmp_path / "slim.onnx")
    assert not (tmp_path / "slim.onnx").exists()


def test_behind_a_normalisation_a_small_filter_counts_as_any_other(tmp_path):
    graph = Graph()
    x = graph.conv("x", "first", (8, 3, 3, 3), dead=(0, 5), zero=1e-8)
    x = graph.norm(x, "norm", 8, dead=(2,))
    graph.stored["norm.running_var"][[0, 5]] = 1e-12
    graph.stored["norm.running_mean"][[0, 5]] = 0.0
    x = graph.relu(x)
    result = check(graph.model(graph.head(x, 8)), tmp_path)
    assert result.plan.removed_channels == 1


def test_zero_padding_needs_a_carrier(tmp_path):
    """A constant of 0.7 is 0 in the padding, so one dead channel stays and carries the other."""
    result = check(folded(0.0, 0.7, (1, 1, 1, 1)), tmp_path)
    assert stored_shapes(result.path)["second.weight"] == (6, 7, 3, 3)
    assert any("carrier" in kept.reason for kept in result.plan.kept)


def test_a_residual_sum_goes_only_where_both_are_dead(tmp_path):
    graph = Graph()
    stem = graph.relu(graph.norm(graph.conv("x", "stem", (8, 3, 1, 1)), "norm0", 8, dead=(1, 2)))
    branch = graph.norm(graph.conv(stem, "branch", (8, 8, 3, 3), pads=[1] * 4), "norm1", 8, dead=(2, 3))
    total = graph.relu(graph.node("Add", stem, branch))
    result = check(graph.model(graph.head(total, 8)), tmp_path)
    assert stored_shapes(result.path)["fc.weight"] == (5, 7)


def test_a_gemm_that_is_not_turned_and_a_matmul_without_a_bias(tmp_path):
    """The MatMul gets its bias in a node behind it, the only one that is added."""
    graph = Graph()
    hidden = graph.store("hidden.weight", graph.random.standard_normal((12, 10)))
    shift = graph.random.standard_normal(10)
    graph.stored["hidden.weight"][:, [3, 4]] = 0
    x = graph.node("Gemm", "x", hidden, graph.store("hidden.bias", shift), name="hidden/Gemm")
    x = graph.node("Sigmoid", x)
    x = graph.node("MatMul", x, graph.store("out.weight", graph.random.standard_normal((10, 4))), name="out/MatMul")
    result = check(graph.model(x, ("n", 12)), tmp_path, (3, 12))
    shapes = stored_shapes(result.path)
    assert (shapes["hidden.weight"], shapes["out.weight"], shapes["out.bias"]) == ((12, 8), (8, 4), (4,))
    assert [node.op_type for node in onnx.load(result.path).graph.node] == ["Gemm", "Sigmoid", "MatMul", "Add"]


def shuffled(opset: int, written: str) -> onnx.ModelProto:
    """A channel shuffle of two halves, with its widths as numbers in reshapes and a split."""
    graph = Graph(opset)
    x = graph.relu(graph.norm(graph.conv("x", "first", (12, 3, 3, 3)), "norm", 12, dead=(0, 4, 6, 10), beta=-1))
    if written == "concat":
        size = graph.node("Shape", x)
        batch = graph.node("Gather", size, graph.store("zero", [0], np.int64))
        shape = graph.node("Concat", batch, graph.store("rest", [2, 6, 6, 6], np.int64), axis=0)
        back = graph.node("Concat", batch, graph.store("back", [12, 6, 6], np.int64), axis=0)
    else:
        shape, back = graph.store("shape", [-1, 2, 6, 6, 6], np.int64), graph.store("back", [-1, 12, 6, 6], np.int64)
    x = graph.node("Transpose", graph.node("Reshape", x, shape), perm=[0, 2, 1, 3, 4])
    x = graph.node("Reshape", x, back)
    if opset < 13:
        halves = graph.node("Split", x, outputs=2, axis=1, split=[6, 6])
    else:
        halves = graph.node("Split", x, graph.store("sizes", [6, 6], np.int64), outputs=2, axis=1)
    x = graph.node("Concat", graph.relu(halves[0]), halves[1], axis=1)
    return graph.model(graph.head(x, 12))


@pytest.mark.parametrize(("opset", "written"), [(11, "stored"), (17, "stored"), (17, "concat")])
def test_widths_in_reshapes_and_splits_follow(tmp_path, opset, written):
    """Two of each group are dead, one of them in each half; all sizes are the new ones, for any batch size."""
    result = check(shuffled(opset, written), tmp_path)
    shapes = stored_shapes(result.path)
    assert shapes["first.weight"][0] == 8
    assert shapes["fc.weight"] == (5, 8)
    assert difference(tmp_path / "net.onnx", result.path, (1, 3, 8, 8)) < EXACT


def test_a_stored_size_that_two_nodes_use_gets_a_second_tensor(tmp_path):
    graph = Graph()
    shape = graph.store("shape", [-1, 72], np.int64)
    left = graph.relu(graph.conv("x", "left", (8, 3, 6, 6), dead=(1,), bias=0.0))
    right = graph.relu(graph.conv("x", "right", (8, 3, 6, 6), bias=0.0))
    parts = []
    for name, value in (("one", left), ("two", right)):
        flat = graph.node("Reshape", value, shape)
        weight = graph.store(f"{name}.weight", graph.random.standard_normal((4, 72)))
        parts.append(graph.node("Gemm", flat, weight, transB=1))
    result = check(graph.model(graph.node("Add", *parts)), tmp_path)
    shapes = stored_shapes(result.path)
    assert (shapes["one.weight"], shapes["two.weight"]) == ((4, 63), (4, 72))
    assert shapes["shape"] == (2,)


def test_a_size_that_cannot_follow_keeps_the_channels_and_says_where(tmp_path):
    """Parts of unequal sizes: which of them is to be smaller, nobody knows."""
    graph = Graph()
    x = graph.relu(graph.norm(graph.conv("x", "first", (8, 3, 3, 3)), "norm", 8, dead=(1, 6)))
    sizes = graph.store("sizes", [3, 5], np.int64)
    halves = graph.node("Split", x, sizes, outputs=2, axis=1, name="uneven")
    x = graph.node("Concat", graph.relu(halves[0]), halves[1], axis=1)
    x = graph.relu(graph.norm(graph.conv(x, "second", (6, 8, 1, 1)), "norm2", 6, dead=(0,)))
    result = check(graph.model(graph.head(x, 6)), tmp_path)
    assert result.plan.removed_channels == 1
    assert any("uneven" in kept.reason and len(kept.channels) == 2 for kept in result.plan.kept)


@pytest.mark.parametrize("kind", ["Hardmax", "Det", "CumSum"])
def test_an_unknown_operator_keeps_its_channels_and_is_named(tmp_path, kind):
    """What is in front of it and behind it goes all the same."""
    graph = Graph()
    x = graph.relu(graph.norm(graph.conv("x", "first", (8, 3, 3, 3)), "norm", 8, dead=(1, 6)))
    x = graph.relu(graph.norm(graph.conv(x, "second", (8, 8, 3, 3)), "norm2", 8, dead=(3,), beta=-1))
    if kind == "CumSum":
        x = graph.node("CumSum", x, graph.store("axis", 2, np.int64), name="odd/node")
    elif kind == "Det":
        x = graph.node("Unsqueeze", graph.node("Det", x, name="odd/node"), graph.store("axes", [2, 3], np.int64))
    else:
        x = graph.node("Hardmax", x, axis=3, name="odd/node")
    x = graph.relu(graph.norm(graph.conv(x, "third", (6, 8, 1, 1)), "norm3", 6, dead=(0, 1)))
    result = check(graph.model(graph.head(x, 6)), tmp_path)
    shapes = stored_shapes(result.path)
    assert (shapes["first.weight"][0], shapes["second.weight"][0], shapes["third.weight"][0]) == (6, 8, 4)
    reasons = [kept.reason for kept in result.plan.kept if len(kept.channels) == 1]
    assert f"used by unknown op onnx_{kind} in odd/node" in reasons


def test_a_graph_in_a_node_is_run_as_it_is(tmp_path):
    """Both branches of an If use a value from around it, whose channels stay."""
    graph = Graph()
    x = graph.relu(graph.norm(graph.conv("x", "first", (8, 3, 3, 3)), "norm", 8, dead=(1, 6)))
    y = graph.relu(graph.norm(graph.conv(x, "second", (6, 8, 3, 3)), "norm2", 6, dead=(2,)))
    mean = graph.node("ReduceMean", y, keepdims=0)
    condition = graph.node("Greater", mean, graph.store("limit", 0.0))
    info = helper.make_tensor_value_info
    branches = {}
    for name, kind in (("then_branch", "Relu"), ("else_branch", "Neg")):
        node = helper.make_node(kind, [y], [f"{name}_out"])
        out = info(f"{name}_out", onnx.TensorProto.FLOAT, ("a", 6, 4, 4))
        branches[name] = helper.make_graph([node], name, [], [out])
    z = graph.node("If", condition, name="choice", **branches)
    result = check(graph.model(graph.head(z, 6)), tmp_path)
    assert result.plan.removed_channels == 2
    assert "used by unknown op onnx_If in choice" in [kept.reason for kept in result.plan.kept]


def test_constants_in_nodes_are_weights_as_well(tmp_path):
    """Some exporters write every weight as a Constant."""
    model = plain_model()
    constants = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    nodes = [*constants, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    result = check(model, tmp_path)
    slim = {node.output[0]: node for node in onnx.load(result.path).graph.node if node.op_type == "Constant"}
    assert numpy_helper.to_array(slim["second.weight"].attribute[0].t).shape == (6, 6, 3, 3)


def test_weights_that_are_inputs_too_are_declared_anew(tmp_path):
    """Up to IR version 3 every initialiser is also an input of the graph."""
    model = plain_model(9)
    model.ir_version = 3
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
    )
    result, dense = slimmed(model, tmp_path)
    declared = {each.name: each for each in onnx.load(result.path).graph.input}
    assert [dim.dim_value for dim in declared["norm.bias"].type.tensor_type.shape.dim] == [6]
    images = np.random.default_rng(5).standard_normal(IMAGES).astype(np.float32)
    options = [{"x": images}, None]
    import onnxruntime

    before, after = (
        onnxruntime.InferenceSession(path.read_bytes()).run(None, options[0]) for path in (dense, result.path)
    )
    assert np.abs(before[0] - after[0]).max() < EXACT


def test_grouped_and_depthwise_convolutions_keep_equal_groups(tmp_path):
    """Two of each group of the grouped one are dead, and their depthwise filters go with them."""
    graph = Graph()
    x = graph.relu(graph.norm(graph.conv("x", "first", (8, 3, 1, 1)), "norm", 8, dead=(0, 5), beta=-1))
    x = graph.relu(graph.conv(x, "depthwise", (8, 1, 3, 3), group=8, bias=0.0))
    x = graph.relu(graph.conv(x, "grouped", (6, 4, 1, 1), group=2, bias=0.0))
    result = check(graph.model(graph.head(x, 6)), tmp_path)
    shapes = stored_shapes(result.path)
    assert shapes["grouped.weight"] == (6, 3, 1, 1)
    groups = {
        node.name: attribute.i
        for node in onnx.load(result.path).graph.node
        for attribute in node.attribute
        if attribute.name == "group"
    }
    assert groups == {"depthwise/Conv": shapes["depthwise.weight"][0], "grouped/Conv": 2}


@pytest.mark.parametrize("padding", ["uneven", "SAME_UPPER", "SAME_LOWER"])
def test_uneven_padding_as_tensorflow_writes_it(tmp_path, padding):
    graph = Graph()
    x = graph.relu(graph.norm(graph.conv("x", "first", (8, 3, 3, 3)), "norm", 8, dead=(1, 6), beta=-1))
    settings = {"pads": [0, 0, 1, 1]} if padding == "uneven" else {"auto_pad": padding}
    x = graph.relu(graph.conv(x, "second", (6, 8, 3, 3), strides=[2, 2], **settings))
    result = check(graph.model(graph.head(x, 6)), tmp_path)
    assert result.plan.removed_channels == 2


def test_a_decoder_with_transposed_convolutions_and_resizes(tmp_path):
    """The sizes of a resize name the channels too; those follow."""
    graph = Graph()
    x = graph.relu(graph.norm(graph.conv("x", "first", (8, 3, 3, 3), pads=[1] * 4), "norm", 8, dead=(1, 6), beta=-1))
    weight = graph.store("up.weight", graph.random.standard_normal((8, 6, 2, 2)))
    x = graph.relu(graph.norm(graph.node("ConvTranspose", x, weight, strides=[2, 2]), "norm2", 6, dead=(0,), beta=-1))
    sizes = graph.store("sizes", [2, 6, 32, 32], np.int64)
    x = graph.node("Resize", x, "", "", sizes, mode="nearest", nearest_mode="floor",
                   coordinate_transformation_mode="asymmetric")  # fmt: skip
    x = graph.conv(x, "last", (2, 6, 1, 1), bias=0.0)
    result = check(graph.model(x, (2, 3, 8, 8)), tmp_path, (2, 3, 8, 8))
    shapes = stored_shapes(result.path)
    assert (shapes["up.weight"], shapes["last.weight"]) == ((6, 5, 2, 2), (2, 5, 1, 1))


def test_local_functions_are_followed(tmp_path):
    model = plain_model()
    function = helper.make_function(
        "house", "Activate", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "Activate", "house"
    model.opset_import.append(helper.make_opsetid("house", 1))
    model.functions.append(function)
    assert check(model, tmp_path).plan.removed_channels == 2


def test_external_data_in_the_folder_becomes_part_of_the_file(tmp_path):
    model = plain_model()
    plain = saved(model, tmp_path, "plain.onnx")
    onnx.save_model(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    result = slimnet.slim_onnx(tmp_path / "net.onnx", tmp_path / "slim.onnx")
    assert difference(plain, result.path, IMAGES) < EXACT


def test_layers_that_are_asked_for_keep_their_width(tmp_path):
    with pytest.raises(SlimnetError, match="2 dead channels, none of which can be removed"):
        slimnet.slim_onnx(saved(plain_model(), tmp_path), tmp_path / "slim.onnx", keep="first")


def test_widths_are_rounded(tmp_path):
    result = check(plain_model(dead=(0, 1, 2, 3, 4)), tmp_path, round_to=4)
    assert stored_shapes(result.path)["first.weight"][0] == 4


def test_the_certificate_is_measured_under_onnxruntime_on_named_inputs(tmp_path):
    """Its largest difference is that of the two files on the inputs of its seeds."""
    result, dense = slimmed(plain_model(), tmp_path)
    assert result.inputs == "x (4, 3, 8, 8) of seed 0; x (1, 3, 8, 8) of seed 1"
    worst = 0.0
    for seed, batch in ((0, 4), (1, 1)):
        images = np.random.default_rng(seed).standard_normal((batch, 3, 8, 8)).astype(np.float32)
        before, after = outputs(dense, images)[0], outputs(result.path, images)[0]
        worst = max(worst, float(np.abs(before - after).max()))
    assert result.certificate.max_abs_difference == worst
    assert result.certificate.samples == 5
    assert result.certificate.top1_agreement == 1.0
    assert result.certificate.macs_after < result.certificate.macs_before
    assert result.bytes_after == result.path.stat().st_size < result.bytes_before


def test_own_inputs_are_used_and_checked(tmp_path):
    dense, images = saved(plain_model(), tmp_path), torch.randn(7, 3, 8, 8)
    result = slimnet.slim_onnx(dense, tmp_path / "slim.onnx", example_inputs={"x": images})
    assert result.inputs.startswith("x (7, 3, 8, 8) as given")
    with pytest.raises(UsageError, match=r"the model takes x \(\?, 3, 8, 8\)"):
        slimnet.slim_onnx(dense, tmp_path / "other.onnx", example_inputs=torch.randn(2, 4, 8, 8))


def test_nothing_is_written_if_the_certificate_does_not_hold(tmp_path, monkeypatch):
    """A γ of 9e-4 is under the threshold, and its channel's share of the output is more than the tolerance."""
    dense = saved(plain_model(beta=0.0, gamma=9e-4), tmp_path)
    with pytest.raises(CertificateError, match="lower the threshold"):
        slimnet.slim_onnx(dense, tmp_path / "slim.onnx", tolerance=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx"]


def test_a_plan_alone_writes_nothing_and_is_the_same(tmp_path):
    dense = saved(plain_model(), tmp_path)
    plan = plan_onnx(dense)
    result = slimnet.slim_onnx(dense, tmp_path / "slim.onnx")
    assert dataclasses.replace(plan, trials=()) == result.plan


def test_a_graph_that_computes_something_else_here_is_refused(tmp_path, monkeypatch):
    from slimnet.onnx_slimming.operators.table import OPERATORS

    monkeypatch.setitem(OPERATORS, "Relu", OPERATORS["Sigmoid"])
    with pytest.raises(TraceError, match="computes something else here than under onnxruntime"):
        slimnet.slim_onnx(saved(plain_model(), tmp_path), tmp_path / "slim.onnx")
