"""What onnxruntime says of inputs that do not fit is shown whole, in one line."""

from pathlib import Path

import onnx
import pytest
import torch
from bundles import refusal
from onnx import TensorProto, helper

from slimnet.benchmark.runtimes.onnxruntime import OnnxClassifier, OnnxRuntime
from slimnet.errors import ExportError, whole_reason
from slimnet.export.onnx_runner import OnnxRunner
from slimnet.modules.example_inputs import Inputs

FOUND = ("index: 2 Got: 7 Expected: 9", "index: 3 Got: 8 Expected: 9", "Please fix")
"""onnxruntime's own words, on lines of their own."""


def small_file(path: Path) -> Path:
    """A file that takes images of 9 × 9 with four channels."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4, 9, 9]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def test_a_runner_shows_all_of_it(tmp_path):
    runner = OnnxRunner(small_file(tmp_path / "net.onnx"))
    message = refusal(ExportError, runner, Inputs.of(torch.randn(1, 4, 7, 8)))
    assert all(words in message for words in FOUND)


def test_a_benchmark_shows_all_of_it(tmp_path):
    classifier = OnnxClassifier(small_file(tmp_path / "net.onnx"), 1)
    with pytest.raises(ValueError, match="INVALID_ARGUMENT") as caught:
        classifier(torch.randn(1, 4, 7, 8))
    message = OnnxRuntime().refusal("net", "shape (4, 7, 8)", caught.value)
    assert message.startswith("net does not run on inputs of shape (4, 7, 8): ")
    assert all(words in message for words in FOUND)
    assert "\n" not in message


def test_an_error_without_words_is_named():
    assert whole_reason(ValueError(" \n ")) == "ValueError"
    assert whole_reason(ValueError("a\n b")) == "ValueError: a b"
