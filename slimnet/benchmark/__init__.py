"""Compare two networks or more: size, multiply-accumulates, memory, accuracy and latency."""

from slimnet.benchmark.compare import compare, measure, memories, steps
from slimnet.benchmark.contender import RUNTIMES, Cell, Contender, Settings, cells, count, shared_runtimes, with_onnx
from slimnet.benchmark.counts import Counts, macs, onnx_input_shape, onnx_macs, parameters
from slimnet.benchmark.environment import Environment, environment, installed_version, usable_cores
from slimnet.benchmark.latency import Interval, Latency, interleave, labels, ratio_interval
from slimnet.benchmark.memory import peak_memory
from slimnet.benchmark.profile import LayerTimes, Profile
from slimnet.benchmark.results import Accuracies, Comparison, Memory

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
    "Profile",
    "Settings",
    "cells",
    "compare",
    "count",
    "environment",
    "installed_version",
    "interleave",
    "labels",
    "macs",
    "measure",
    "memories",
    "onnx_input_shape",
    "onnx_macs",
    "parameters",
    "peak_memory",
    "ratio_interval",
    "shared_runtimes",
    "steps",
    "usable_cores",
    "with_onnx",
]
