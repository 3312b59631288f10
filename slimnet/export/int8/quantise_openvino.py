"""Networks in OpenVINO's format quantised to int8 by NNCF, with biases corrected for what the rounding shifts."""

import functools
import logging
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from slimnet.errors import ExportError, whole_reason
from slimnet.export.int8.nncf_package import load_nncf
from slimnet.export.openvino_graph import LAYERS, QUANTISED, add_entries, weight_of
from slimnet.export.openvino_model import core, load_openvino, said
from slimnet.export.quiet_torch import quiet
from slimnet.export.telemetry import without_telemetry
from slimnet.torch_state.process_patch import attribute_patch

SCHEME = (
    "static, by NNCF with its correction of biases, activations in 8 bits, weights in int8 of 7 bits with a scale for "
    "each output channel"
)
"""Weights of 7 bits for the reason that the ONNX files have them: without VNNI sums of products saturate."""


def quantise(source: Path, target: Path, batches: Iterable[np.ndarray], metadata: Mapping[str, str]) -> int:
    """Quantise a float32 network in OpenVINO's format; returns the number of layers whose weights are int8 now.

    The ranges of activations are the smallest and largest values on `batches`. NNCF quantises the inputs of layers, so
    that a normalisation of images stays in float32. The file keeps its metadata and gets `metadata`.

    Raises:
        ExportError: NNCF refuses it, or finds no layer that it can quantise.
        UsageError: NNCF or OpenVINO is not installed.
    """
    nncf, openvino = load_nncf(), load_openvino()
    items = list(batches)
    try:
        with quiet(), without_telemetry(), ExitStack() as stack:
            for patch in silent(nncf):
                stack.enter_context(patch)
            network = nncf.quantize(
                core().read_model(str(source)),
                nncf.Dataset(items),
                subset_size=len(items),
                target_device=nncf.TargetDevice.CPU,
                advanced_parameters=parameters(nncf),
            )
    except Exception as error:  # it raises errors of all kinds
        why = said(error) if isinstance(error, RuntimeError) else whole_reason(error)
        raise ExportError(f"NNCF does not quantise the network: {why}") from error
    layers = sum(is_quantised(node) for node in network.get_ops())
    if not layers:
        raise ExportError("NNCF's quantiser finds no layer in the network that it can quantise")
    add_entries(network, metadata)
    openvino.save_model(network, str(target), compress_to_fp16=False)
    return layers


def parameters(nncf: Any) -> Any:
    """What differs from NNCF's defaults: 7 bits for all weights, and ranges over all images, not their mean by batch.

    On a published ResNet-20 the mean over single images brings logits 2.4 times as far from those in float32.
    """
    advanced = nncf.quantization.advanced_parameters
    return advanced.AdvancedQuantizationParameters(
        overflow_fix=advanced.OverflowFix.ENABLE,
        activations_range_estimator_params=nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX,
    )


def silent(nncf: Any) -> tuple[Any, ...]:
    """Patches that stop NNCF's progress bars, which a thread of their own draws, and its log on stdout."""
    return (
        attribute_patch(nncf.common.logging.track_progress.track, "__init__", without_bar),
        attribute_patch(logging.getLogger("nncf"), "disabled", lambda _: True),
    )


def without_bar(make: Any) -> Any:
    """The constructor of a progress bar, which draws nothing."""
    return functools.partialmethod(make, disable=True)


def is_quantised(node: Any) -> bool:
    """Whether a node is a layer with weights in int8."""
    if node.get_type_name() not in LAYERS:
        return False
    weight = weight_of(node)
    return weight is not None and weight.get_element_type().get_type_name() in QUANTISED
