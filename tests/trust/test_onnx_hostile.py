"""ONNX files from anywhere: refused in one line, without reading elsewhere, running away or leaving a file."""

import os

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_graphs import Graph, plain_model, saved
from wiring import refused

import slimnet
from slimnet.errors import SlimnetError, UsageError
from slimnet.onnx_slimming import model_file


def message(path, kind=UsageError, code=2, **settings) -> str:
    """The one-line refusal of a file; nothing is written."""
    before = sorted(path.parent.iterdir())
    found = refused(kind, code, lambda: slimnet.slim_onnx(path, path.parent / "slim.onnx", **settings))
    assert sorted(path.parent.iterdir()) == before
    return found


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 a zip archive", b"\x80\x02}q\x00.", os.urandom(999), b"text\n" * 99]
)
def test_what_is_no_onnx_model_is_refused(tmp_path, content):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    assert "is not an ONNX model, or is cut short" in message(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_short_is_refused(tmp_path, share):
    path = saved(plain_model(), tmp_path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    message(path)


def test_no_file_no_regular_file_and_an_empty_graph(tmp_path):
    assert "cannot read" in message(tmp_path / "none.onnx")
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "a named pipe" in message(tmp_path / "pipe.onnx")
    model = plain_model()
    del model.graph.node[:]
    assert "computes nothing" in message(saved(model, tmp_path))


def external(folder, location: str, offset: object = 0, length: object = None) -> onnx.ModelProto:
    """A model one of whose weights is stored elsewhere."""
    model = plain_model()
    tensor = model.graph.initializer[0]
    size = np.prod(tensor.dims) * 4
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", size if length is None else length)):
        tensor.external_data.add(key=key, value=str(value))
    return model


@pytest.mark.parametrize("place", ["../secret.bin", "/etc/passwd", "sub/../../secret.bin", "link.bin", ""])
def test_external_data_outside_the_folder_is_not_read(tmp_path, place):
    """Nor through a symbolic link in it."""
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(4096))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    found = message(saved(external(folder, place), folder))
    assert "outside the folder of the model; it is not read" in found


def test_external_data_that_is_missing_short_or_no_file(tmp_path):
    assert "'gone.bin', which cannot be read" in message(saved(external(tmp_path, "gone.bin"), tmp_path))
    (tmp_path / "short.bin").write_bytes(bytes(8))
    assert "is cut short" in message(saved(external(tmp_path, "short.bin"), tmp_path))
    os.mkfifo(tmp_path / "pipe.bin")
    assert "a named pipe" in message(saved(external(tmp_path, "pipe.bin"), tmp_path))


@pytest.mark.parametrize(("offset", "length"), [(-8, None), ("far", None), (0, 1 << 40), (0, 7), (1 << 62, None)])
def test_external_data_with_a_damaged_place_is_refused(tmp_path, offset, length):
    (tmp_path / "data.bin").write_bytes(bytes(4096))
    message(saved(external(tmp_path, "data.bin", offset, length), tmp_path))


def test_more_than_two_gigabytes_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = tmp_path / "net.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 31)
    assert "holds more than 2 GB" in message(path)
    model = external(tmp_path, "data.bin", 0, 4 << 40)
    model.graph.initializer[0].dims[:] = [1 << 20, 1 << 20]
    assert "holds more than 2 GB" in message(saved(model, tmp_path))
    monkeypatch.setattr(model_file, "SIZE_LIMIT", 2000)
    assert "holds more than 2 GB" in message(saved(plain_model(), tmp_path))


def test_a_weight_that_does_not_fill_its_shape_is_refused(tmp_path):
    model = plain_model()
    model.graph.initializer[0].raw_data = bytes(40)
    message(saved(model, tmp_path))
    model.graph.initializer[0].dims[0] = 1 << 40
    message(saved(model, tmp_path))


@pytest.mark.parametrize("kind", ["QuantizeLinear", "QLinearConv", "DynamicQuantizeLinear"])
def test_quantised_models_are_refused_by_name(tmp_path, kind):
    model = plain_model()
    model.graph.node[2].op_type = kind
    found = message(saved(model, tmp_path))
    assert f"is quantised ({kind} at node" in found
    assert "slim the float model" in found


def test_operator_sets_sparse_weights_and_types_that_are_not_read(tmp_path):
    assert "is of opset 7; opsets 9 to" in message(saved(plain_model(7), tmp_path))
    model = plain_model()
    values = numpy_helper.from_array(np.ones(1, dtype=np.float32), "sparse")
    indices = numpy_helper.from_array(np.zeros(1, dtype=np.int64), "indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    assert "sparse weights" in message(saved(model, tmp_path))
    model = plain_model()
    node = helper.make_tensor("odd", onnx.TensorProto.BFLOAT16, [2], [1.0, 2.0])
    model.graph.initializer.append(node)
    assert "BFLOAT16" in message(saved(model, tmp_path))


def test_an_input_of_text_or_of_no_known_size(tmp_path):
    assert "give the sizes that it leaves open" in message(saved(resized(["n", "c", 8, 8]), tmp_path))
    huge = message(saved(resized(["n", 3, 1 << 20, 1 << 20]), tmp_path))
    assert "more than 1 GB" in huge
    assert "does not fit" in message(saved(plain_model(), tmp_path), input_shape=(4, 8, 8))


def resized(sizes) -> onnx.ModelProto:
    model = plain_model()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, sizes))
    del model.graph.value_info[:]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(model.graph.output[0].name, 1, ["n", 5]))
    return model


@pytest.mark.parametrize("kind", ["Tile", "Expand", "ConstantOfShape", "Range", "Pad", "Resize", "OneHot"])
def test_a_small_file_that_asks_for_terabytes_is_refused(tmp_path, kind):
    graph = Graph()
    x = graph.relu(graph.norm(graph.conv("x", "first", (8, 3, 3, 3)), "norm", 8, dead=(1,)))
    many = 1 << 20
    if kind == "Tile":
        y = graph.node("Tile", x, graph.store("many", [1, 1, many, many], np.int64))
    elif kind == "Expand":
        one = graph.node("ReduceMean", x, axes=[2, 3])
        y = graph.relu(graph.node("Expand", one, graph.store("many", [1, 8, many, many], np.int64)))
    elif kind == "ConstantOfShape":
        y = graph.node("Add", x, graph.node("ConstantOfShape", graph.store("many", [many, many], np.int64)))
    elif kind == "Range":
        ends = [graph.store(name, value, np.int64) for name, value in (("from", 0), ("to", 1 << 40), ("by", 1))]
        y = graph.node("Mul", x, graph.node("Cast", graph.node("Range", *ends), to=1))
    elif kind == "Pad":
        y = graph.node("Pad", x, graph.store("many", [0, 0, many, many, 0, 0, many, many], np.int64))
    elif kind == "OneHot":
        positions = graph.node("Cast", x, to=7)
        values = graph.store("values", [0, 1])
        y = graph.node("OneHot", positions, graph.store("depth", 1 << 40, np.int64), values)
    else:
        y = graph.node("Resize", x, "", graph.store("many", [1, 1, many, many]), mode="nearest")
    model = graph.model(graph.node("ReduceMean", y, keepdims=0), (1, 3, 8, 8))
    del model.graph.value_info[:]
    path = saved(model, tmp_path)
    with pytest.raises(SlimnetError, match=r"not computed|needs more than|is not valid|not a valid") as caught:
        slimnet.slim_onnx(path, tmp_path / "slim.onnx")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "slim.onnx").exists()


def test_names_that_would_lead_elsewhere_are_names(tmp_path):
    """Dots, slashes, attributes of modules and escape sequences in the names of nodes and weights."""
    names = ["..", "", "forward", "_modules.weight", "a..b", "../../x", "\x1b[31mred", "__class__"]
    for name in names:
        model = plain_model()
        for number, node in enumerate(model.graph.node):
            node.name = name + "." * number
            node.input[:] = [f"{name}.weight" if each == "first.weight" else each for each in node.input]
        model.graph.initializer[0].name = f"{name}.weight"
        result = slimnet.slim_onnx(saved(model, tmp_path), tmp_path / "slim.onnx", overwrite=True)
        assert result.plan.removed_channels == 2
        assert "\x1b" not in repr(result)


def test_a_result_that_exists_is_replaced_only_if_asked(tmp_path):
    path = saved(plain_model(), tmp_path)
    (tmp_path / "slim.onnx").write_bytes(b"mine")
    assert "exists; name another file" in message(path)
    assert (tmp_path / "slim.onnx").read_bytes() == b"mine"
    slimnet.slim_onnx(path, tmp_path / "slim.onnx", overwrite=True)
    onnx.checker.check_model(onnx.load(tmp_path / "slim.onnx"))


def test_a_network_without_dead_channels_says_so(tmp_path):
    assert "has no dead channel; nothing was written" in message(saved(plain_model(dead=()), tmp_path), SlimnetError, 1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"threshold": -1}, "threshold is -1"),
        ({"tolerance": -1}, "tolerance is -1"),
        ({"round_to": "auto"}, "not chosen by measuring"),
        ({"keep": "nothing.like.it"}, "nothing.like.it"),
    ],
)
def test_requests_that_cannot_be_met(tmp_path, settings, words):
    assert words in message(saved(plain_model(), tmp_path), **settings)


@pytest.mark.parametrize("seed", range(40))
def test_bytes_changed_at_random_end_in_a_result_or_in_one_line(tmp_path, seed):
    """Names that are no UTF-8, inputs of nodes that do not exist, sizes out of range, ..."""
    random = np.random.default_rng(seed)
    content = np.frombuffer(plain_model().SerializeToString(), dtype=np.uint8).copy()
    content[random.integers(0, len(content), random.integers(1, 9))] = random.integers(0, 256)
    path = tmp_path / "net.onnx"
    path.write_bytes(content.tobytes())
    said = ""
    try:
        slimnet.slim_onnx(path, tmp_path / "slim.onnx")
    except SlimnetError as error:
        said = str(error)
    assert "\n" not in said
    assert (tmp_path / "slim.onnx").exists() is not bool(said)


def test_names_that_are_no_text_are_refused(tmp_path):
    content = plain_model().SerializeToString().replace(b"first/Conv", b"first\xc2Conv")
    (tmp_path / "net.onnx").write_bytes(content)
    assert "is not an ONNX model" in message(tmp_path / "net.onnx")
