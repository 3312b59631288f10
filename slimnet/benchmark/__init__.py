"""Compare two networks or more: size, multiply-accumulates, memory, accuracy and latency."""

from slimnet.benchmark.compare import compare, measure, memories, steps
from slimnet.benchmark.contender import Cell, Contender, count, with_onnx
from slimnet.benchmark.counts import Counts, macs, onnx_input_shape, onnx_macs, parameters
from slimnet.benchmark.environment import Environment, environment, usable_cores
from slimnet.benchmark.intervals import Interval, ratio_interval
from slimnet.benchmark.latency import Latency, labels
from slimnet.benchmark.memory import peak_memory
from slimnet.benchmark.parts import Part, parts
from slimnet.benchmark.profile import LayerTimes, Profile
from slimnet.benchmark.results import Accuracies, Comparison, Memory
from slimnet.benchmark.runtimes.table import runtime_names
from slimnet.benchmark.settings import Settings, cells, left_out, shared_runtimes
from slimnet.benchmark.turns import interleave
from slimnet.version import installed_version

RUNTIMES = runtime_names()
"""The names of all runtimes."""

__all__ = [
    "RUNTIMES",
    "Accuracies",
    "Cell",
    "Comparison",
    "Contender",
    "Counts",
    "Environment",
    "Interval",
    "Latency",
    "LayerTimes",
    "Memory",
    "Part",
    "Profile",
    "Settings",
    "cells",
    "compare",
    "count",
    "environment",
    "installed_version",
    "interleave",
    "labels",
    "left_out",
    "macs",
    "measure",
    "memories",
    "onnx_input_shape",
    "onnx_macs",
    "parameters",
    "parts",
    "peak_memory",
    "ratio_interval",
    "shared_runtimes",
    "steps",
    "usable_cores",
    "with_onnx",
]
