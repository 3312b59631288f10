"""The time of every layer of an ONNX file, from onnxruntime's profile of the optimised graph.

onnxruntime fuses and renames nodes: a convolution and the following activation become one node with the name of the
activation's output. From that name the convolution is found in the original graph. A BatchNorm without a preceding
convolution becomes a convolution itself, which is no layer of the network.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx

from slimnet.benchmark.byte_inputs import byte_layout
from slimnet.benchmark.counts import LAYER_OPERATORS, QDQ, onnx_node_macs
from slimnet.benchmark.profile import OTHER
from slimnet.benchmark.runtimes.layer_timer import Forward, Key, LayerTimer
from slimnet.benchmark.runtimes.onnxruntime_session import feeds_of, onnx_session
from slimnet.export.onnx_file import read_onnx
from slimnet.export.preprocessing import INNER
from slimnet.modules.example_inputs import Inputs

NODE_EVENT, RUN_EVENT = "_kernel_time", "model_run"
BETWEEN = "between operators"
NORM = "BatchNormalization"
QUANTISED = "_quantized"


class OnnxLayers(LayerTimer):
    """A session that writes a profile; `prefix` is the prefix of its files."""

    def __init__(self, path: Path, inputs: Inputs, threads: int, prefix: Path):
        named = with_names(path, prefix.with_suffix(".onnx"))
        self.names = LayerNames(named)
        self.macs = self.names.macs
        self.session = onnx_session(named, threads, profile=prefix)
        self.feeds = feeds_of(self.session, path, inputs)

    def run(self) -> object:
        """One forward."""
        return self.session.run(None, self.feeds)

    def forwards(self) -> list[Forward]:
        """Milliseconds of every layer in each run, and of the other operators by kind."""
        events = json.loads(Path(self.session.end_profiling()).read_text(encoding="utf-8"))
        return by_run(events, self.names)


def with_names(path: Path, copy: Path) -> Path:
    """The ONNX file, or a copy in which every node has a name, since fused nodes are named after their parts."""
    model = read_onnx(path)
    nameless = [(index, node) for index, node in enumerate(model.graph.node) if not node.name]
    if not nameless:
        return path
    for index, node in nameless:
        node.name = f"unnamed_{node.op_type}_{index}"
    onnx.save(model, copy)
    return copy


class LayerNames:
    """The convolutions and linear layers of an ONNX file, and their lookup by onnxruntime's node names.

    The name of a layer is that of its weight, without ".weight", as in slimnet's exports; otherwise that of its output.
    """

    def __init__(self, path: Path):
        counted = onnx_node_macs(path)
        self.makers = {value: node for node, _ in counted for value in node.output}
        self.reads = Counter(value for node, _ in counted for value in node.input)
        self.keys = {node.output[0]: layer_key(node, self.makers) for node, macs in counted if macs != 0}
        if byte_layout(path) is not None:
            # The network is then part of a module that normalises images.
            self.keys = {value: (name.removeprefix(INNER), kind) for value, (name, kind) in self.keys.items()}
        self.macs: Mapping[Key, int | None] = {
            self.keys[node.output[0]]: macs for node, macs in counted if node.output[0] in self.keys
        }
        self.values = {node.name: node.output[0] for node, _ in counted if node.name} | {
            value: value for value in self.makers
        }

    def of_operator(self, name: str) -> Key | None:
        """The row of an operator of the file by its name or output, None if it is no layer."""
        return self.keys.get(self.values.get(name, ""))

    def key(self, node: str, operator: str) -> Key:
        """The row for a node of onnxruntime's graph."""
        plain = operator.removeprefix("Fused").removeprefix("QLinear").removeprefix("Q")
        if plain not in LAYER_OPERATORS:
            return (operator, OTHER)
        found = self.layer_behind(node)
        if found is not None:
            return found
        return (operator, OTHER) if plain == "MatMul" else (node, LAYER_OPERATORS[plain])

    def layer_behind(self, node: str) -> Key | None:
        """The layer that is part of a fused node: the nearest one before the value that gives the node its name.

        A single BatchNorm has the row of all BatchNorms. None for a product of two activations, which is no layer.
        """
        known = [name for name in self.values if words(name) in words(node)]
        value = self.values[max(known, key=len)] if known else ""
        while value in self.makers and value not in self.keys:
            maker = self.makers[value]
            if maker.op_type == NORM and (maker.input[0] not in self.keys or self.reads[maker.input[0]] > 1):
                return (NORM, OTHER)
            value = maker.input[0] if maker.input and maker.op_type not in LAYER_OPERATORS else ""
        return self.keys.get(value)


def words(name: str) -> str:
    """A name with "_" around it and in place of all but letters and digits, to search for whole words."""
    return f"_{re.sub('[^A-Za-z0-9]', '_', name)}_"


def layer_key(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> Key:
    """Name and kind of a layer in an ONNX file, in which `makers` are the nodes by their outputs."""
    stored = [stored_weight(name, makers) for name in node.input[:2]]
    weights = [name for name in stored if name.endswith(".weight")]
    name = weights[0].removesuffix(".weight") if weights else node.output[0]
    return (name, LAYER_OPERATORS[node.op_type])


def stored_weight(value: str, makers: Mapping[str, onnx.NodeProto]) -> str:
    """The name of a weight, which onnxruntime's quantiser lengthens; that of any other value as it is."""
    maker = makers.get(value)
    return maker.input[0].removesuffix(QUANTISED) if maker is not None and maker.op_type == QDQ[1] else value


def by_run(events: Iterable[Mapping[str, Any]], names: LayerNames) -> list[Forward]:
    """Milliseconds of every row in each run; the time between operators is a row too."""
    found: list[Forward] = []
    times: defaultdict[Key, float] = defaultdict(float)
    keys: dict[tuple[str, str], Key] = {}
    for event in events:
        if event["name"] == RUN_EVENT:
            times[(BETWEEN, OTHER)] = max(0.0, event["dur"] / 1e3 - sum(times.values()))
            found.append(dict(times))
            times = defaultdict(float)
        elif event["cat"] == "Node" and event["name"].endswith(NODE_EVENT):
            known = (event["name"].removesuffix(NODE_EVENT), event["args"]["op_name"])
            if known not in keys:
                keys[known] = names.key(*known)
            times[keys[known]] += event["dur"] / 1e3
    return found
