"""Measure what was gained: parameters, multiply-accumulates, file sizes and latency, dense against slim."""

from slimnet.benchmark.compare import (
    Comparison,
    Contender,
    Settings,
    compare,
    count,
    measure,
    shared_runtimes,
    with_onnx,
)
from slimnet.benchmark.counts import Counts, macs, onnx_input_shape, onnx_macs, parameters
from slimnet.benchmark.environment import Environment, environment, installed_version, usable_cores
from slimnet.benchmark.latency import Interval, Latency, ratio_interval

__all__ = [
    "Comparison",
    "Contender",
    "Counts",
    "Environment",
    "Interval",
    "Latency",
    "Settings",
    "compare",
    "count",
    "environment",
    "installed_version",
    "macs",
    "measure",
    "onnx_input_shape",
    "onnx_macs",
    "parameters",
    "ratio_interval",
    "shared_runtimes",
    "usable_cores",
    "with_onnx",
]
