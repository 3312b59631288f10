"""Which channels have a known constant value, and which values anybody needs."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from slimnet.graph.channel_graph import SILENT, ChannelGraph, Depthwise, Norm, Pointwise, Reader
from slimnet.graph.labels import Labels
from slimnet.torch_state.precision import Numbers, as_array, double_sum, numbers

DeadScales = Mapping[str, Sequence[int]]
"""The dead positions of each γ by name."""

CHUNK = 4
"""How many columns of a weight are looked at together in the search for zeros."""

ELEMENTWISE = (Pointwise, Norm)
CPU = torch.device("cpu")


def propagate(graph: ChannelGraph, dead_scales: DeadScales, dead_outputs: Labels) -> np.ndarray:
    """The constant of every label, NaN where its value depends on the input.

    `dead_scales` says which positions of a γ are to be taken as zero; `dead_outputs` are labels of activation outputs
    to be taken as zero.
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
    """A tensor's values in one row."""
    found = numbers(tensor)
    if isinstance(found, np.ndarray):
        return found.astype(np.float64).reshape(-1)
    return found.to(CPU, torch.float64).numpy(force=True).reshape(-1)


def normed_constant(norm: Norm, inputs: np.ndarray, dead: Sequence[int]) -> np.ndarray:
    """The constants of a BatchNorm's outputs; a constant is its own mean in a batch's statistics."""
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
    """Which of a layer's outputs `(O,)` are known: those whose every input with a nonzero weight is."""
    inputs = values[reader.inputs].reshape(reader.groups, -1)
    # An unknown input is not 0 either.
    return zero_rows(reader.grouped_numbers(), np.isnan(inputs) if reader.uniform else inputs != 0).reshape(-1)


def mixed_constants(reader: Reader, values: np.ndarray, closed: np.ndarray) -> np.ndarray:
    """The constants of a layer's outputs that are known, those `closed` `(O,)`."""
    inputs = np.nan_to_num(values[reader.inputs].reshape(reader.groups, -1))
    group = np.arange(reader.groups).repeat(reader.outputs.size // reader.groups)[closed]
    sums = double_sum(reader.taps()[torch.from_numpy(closed)], 2).cpu().numpy()
    result = (sums * inputs[group]).sum(1)
    return result if reader.bias is None else result + as_float64(reader.bias())[closed]


def zero_rows(taps: Numbers, looked_at: np.ndarray) -> np.ndarray:
    """Which rows of `(groups, R, C, taps)` are zero in all the columns `(groups, C)` looked at.

    One tap of one column rules out nearly every row of a dense weight; the others are looked at a few columns at a
    time.
    """
    first = looked_at.argmax(1)
    if first.size == 1:
        column = int(first[0])
        probe, empty = taps[:, :, column, 0], ~looked_at[:, column]
    else:
        groups = np.arange(first.size)
        probe, empty = taps[groups, :, first, 0], ~looked_at[groups, first]
    zero = as_array(probe == 0)
    if not (np.count_nonzero(zero) or np.count_nonzero(empty)):
        return zero
    zero[empty] = True
    for group in np.flatnonzero(zero.any(1) & ~empty):
        rows = np.flatnonzero(zero[group])
        columns = np.flatnonzero(looked_at[group])
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
    # One tap rules out nearly every filter of a dense weight.
    empty = (taps[:, 0] == 0).numpy()
    if empty.any():
        empty = (taps == 0).all(1).numpy()
    result = np.where(empty, 0.0, spread)
    return result if layer.bias is None else result + as_float64(layer.bias())
