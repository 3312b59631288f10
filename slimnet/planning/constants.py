"""Constant propagation: which channels have a known constant value."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from slimnet.graph.channel_graph import SILENT, ChannelGraph, Depthwise, Norm, Pointwise, Reader
from slimnet.graph.labels import Labels
from slimnet.torch_state.precision import Numbers, as_array, double_sum, numbers

DeadScales = Mapping[str, Sequence[int]]
"""The dead positions of each γ by name."""

CHUNK = 4
"""The number of columns of a weight that are compared with zero at a time."""

ELEMENTWISE = (Pointwise, Norm)
CPU = torch.device("cpu")


def propagate(graph: ChannelGraph, dead_scales: DeadScales, dead_outputs: Labels) -> np.ndarray:
    """The constant of every label `(labels,)`, NaN where its value depends on the input.

    `dead_scales` are the positions of each γ that are treated as zero; `dead_outputs` are labels of activation outputs
    that are treated as zero.
    """
    values = np.full(graph.size, np.nan)
    for known in graph.known:
        values[known.labels] = as_float64(known.tensor)
        values[known.labels[list(dead_scales.get(known.parameter or "", ()))]] = 0.0
    forced = np.zeros(graph.size, dtype=bool)
    forced[dead_outputs] = True
    for step in graph.steps:
        if isinstance(step, Pointwise):
            operands = [torch.from_numpy(values[operand]) for operand in step.operands]
            values[step.out] = step.constant(operands).numpy()
            if dead_outputs.size:
                values[step.out[forced[step.out]]] = 0.0
        elif isinstance(step, Norm):
            values[step.out] = normed_constant(step, values[step.inputs], dead_scales.get(step.scale or "", ()))
        elif isinstance(step, Reader):
            closed = constant_outputs(step, values)
            if np.count_nonzero(closed):
                values[step.outputs[closed]] = mixed_constants(step, values, closed)
        else:
            values[step.outputs] = filtered_constant(step, values)
    return values


def as_float64(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's values, flattened."""
    found = numbers(tensor)
    if isinstance(found, np.ndarray):
        return found.astype(np.float64).reshape(-1)
    return found.to(CPU, torch.float64).numpy(force=True).reshape(-1)


def normed_constant(norm: Norm, inputs: np.ndarray, dead: Sequence[int]) -> np.ndarray:
    """The constants of a BatchNorm's outputs; with batch statistics, a constant input is normalised to 0."""
    gamma, beta, mean, variance = norm.vectors
    result = inputs
    unknown = np.isnan(inputs)
    if np.count_nonzero(unknown) < unknown.size:
        if mean is None or variance is None:
            result = np.where(unknown, inputs, 0.0)
        else:
            result = (inputs - as_float64(mean())) / np.sqrt(as_float64(variance()) + norm.eps)
    if gamma is not None:
        scale = as_float64(gamma())
        result = np.where(np.abs(scale) <= SILENT, 0.0, result * scale)
        result[list(dead)] = 0.0
    return result if beta is None else result + as_float64(beta())


def constant_outputs(reader: Reader, values: np.ndarray) -> np.ndarray:
    """Which of a layer's outputs `(O,)` are constant: those all of whose inputs with a nonzero weight are constant."""
    inputs = values[reader.inputs].reshape(reader.groups, -1)
    # Under zero padding only zeros stay constant; NaN != 0 holds, so that unknown inputs are included.
    return zero_rows(reader.grouped_numbers(), np.isnan(inputs) if reader.uniform else inputs != 0).reshape(-1)


def mixed_constants(reader: Reader, values: np.ndarray, closed: np.ndarray) -> np.ndarray:
    """The constants of those outputs of a layer that are constant, as `closed` `(O,)` marks them."""
    inputs = np.nan_to_num(values[reader.inputs].reshape(reader.groups, -1))
    group = np.arange(reader.groups).repeat(reader.outputs.size // reader.groups)[closed]
    sums = double_sum(reader.taps()[torch.from_numpy(closed)], 2).cpu().numpy()
    result = (sums * inputs[group]).sum(1)
    return result if reader.bias is None else result + as_float64(reader.bias())[closed]


def zero_rows(taps: Numbers, selected: np.ndarray) -> np.ndarray:
    """Which rows of `(groups, R, C, taps)` are zero in all the `selected` columns `(groups, C)`.

    One tap of one column rules out nearly every row of a dense weight. The remaining rows are compared a few columns at
    a time, which needs little memory.
    """
    first = selected.argmax(1)
    if first.size == 1:
        column = int(first[0])
        probe, empty = taps[:, :, column, 0], ~selected[:, column]
    else:
        groups = np.arange(first.size)
        probe, empty = taps[groups, :, first, 0], ~selected[groups, first]
    zero = as_array(probe == 0)
    if not (np.count_nonzero(zero) or np.count_nonzero(empty)):
        return zero
    zero[empty] = True
    for group in np.flatnonzero(zero.any(1) & ~empty):
        rows = np.flatnonzero(zero[group])
        columns = np.flatnonzero(selected[group])
        for start in range(0, columns.size, CHUNK):
            part = taps[group][rows[:, None], columns[start : start + CHUNK]]
            rows = rows[as_array(part == 0).all((1, 2))]
        zero[group] = np.isin(np.arange(zero.shape[1]), rows)
    return zero


def filtered_constant(layer: Depthwise, values: np.ndarray) -> np.ndarray:
    """The constants of a depthwise convolution: zero padding leaves only zero planes constant."""
    inputs = values[layer.inputs].repeat(layer.outputs.size // layer.inputs.size)
    taps = layer.value().detach().reshape(layer.outputs.size, -1).cpu()
    spread = inputs * taps.sum(1, dtype=torch.float64).numpy() if layer.uniform else np.where(inputs == 0, 0, np.nan)
    # The first tap alone rules out nearly every filter of a dense weight.
    empty = (taps[:, 0] == 0).numpy()
    if empty.any():
        empty = (taps == 0).all(1).numpy()
    result = np.where(empty, 0.0, spread)
    return result if layer.bias is None else result + as_float64(layer.bias())
