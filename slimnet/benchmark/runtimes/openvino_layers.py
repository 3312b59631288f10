"""The time of every layer of a file, from OpenVINO's profile of the compiled network.

OpenVINO fuses operators: a node of the compiled network states the operators of the file that became part of it. The
first of them that is a convolution or a linear layer gives the row; another layer in the same node has no time.
"""

import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from slimnet.benchmark.openvino_counts import GraphLayers
from slimnet.benchmark.profile import OTHER
from slimnet.benchmark.runtimes.layer_timer import Forward, Key, LayerTimer
from slimnet.benchmark.runtimes.onnxruntime_layers import BETWEEN, LayerNames
from slimnet.benchmark.runtimes.openvino_session import request_for
from slimnet.export.openvino_graph import SCALING, WITHOUT_BIAS
from slimnet.export.openvino_model import GRAPH
from slimnet.modules.example_inputs import Inputs

PARTS = "originalLayersNames"
"""The attribute of a compiled node that lists the operators in it, separated by commas."""


class OpenVinoLayers(LayerTimer):
    """A compiled network that records the time of its nodes."""

    def __init__(self, path: Path, inputs: Inputs, threads: int):
        names = GraphLayers(path) if path.suffix == GRAPH else LayerNames(path)
        self.macs = names.macs
        self.request = request_for(path, inputs, threads, layer_times=True)
        compiled = self.request.get_compiled_model().get_runtime_model()
        self.keys = {node.get_friendly_name(): layer_in(parts_of(node), names) for node in compiled.get_ops()}
        self.found: list[Forward] = []

    def run(self) -> object:
        """One forward; the time outside of OpenVINO's nodes is a row too."""
        begin = time.perf_counter()
        outputs = list(self.request.infer().values())
        whole = 1e3 * (time.perf_counter() - begin)
        self.found.append(self.by_row(self.request.profiling_info, whole))
        return outputs

    def forwards(self) -> list[Forward]:
        """Milliseconds of every layer in each run, and of the other nodes by kind."""
        return self.found

    def by_row(self, nodes: Iterable[Any], whole_ms: float) -> Forward:
        """Milliseconds of every row of one forward."""
        times: defaultdict[Key, float] = defaultdict(float)
        for node in nodes:
            if str(node.status) == "Status.EXECUTED":
                key = self.keys.get(node.node_name) or (node.node_type, OTHER)
                times[key] += node.real_time.total_seconds() * 1e3
        times[(BETWEEN, OTHER)] = max(0.0, whole_ms - sum(times.values()))
        return dict(times)


def parts_of(node: Any) -> list[str]:
    """The names of the file's operators in a node of the compiled network."""
    about = node.get_rt_info()
    return about[PARTS].astype(str).split(",") if PARTS in about else []


def layer_in(parts: Iterable[str], names: LayerNames | GraphLayers) -> Key | None:
    """The row of the first convolution or linear layer among operators or their outputs; None without one."""
    plain = [part.removesuffix(SCALING) for part in parts]
    found = (names.of_operator(part) or names.of_operator(part.removesuffix(WITHOUT_BIAS)) for part in plain)
    return next(filter(None, found), None)
