"""capture: a network as a graph of ATen operators for any batch size, made by torch.export from a private copy."""

import contextlib
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.export.graph_signature import InputKind, TensorArgument
from torch.fx.experimental import _config as symbolic_shapes

from slimnet.errors import ExportError, InputError, reason
from slimnet.export.dynamic_size import Layers, SizeAxes, at_another_size, check_size_is_free
from slimnet.export.quiet_torch import quiet
from slimnet.export.random_forward import depends_on_random_numbers
from slimnet.modules.copying import check_filled, copy_with, eval_copy
from slimnet.modules.example_inputs import ExampleInputs, Inputs, placed_tensors_in, tensors_in
from slimnet.torch_state.random_state import random_numbers_kept

BATCH = "batch"
"""The name of the batch axis: the first axis of every input with one row for each example."""

TRACED_BATCH = 2
"""The batch size of the trace: the smallest possible, since an axis of length 1 would become a constant."""


@dataclass(frozen=True)
class Captured:
    """A network as a graph, and the private copy from which it was made.

    `module` is in evaluation mode; it and the example `inputs` are on the CPU. If the network returns anything but
    tensors in Python's own containers, module and program return a dict of the tensors alone. `input_names` and
    `output_names` are in order. `random` is whether the outputs depend on random numbers. `size_axes` are the axes of
    height and width if these may be of any length. `name` is what messages call the network.
    """

    program: ExportedProgram
    module: nn.Module
    inputs: Inputs
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    random: bool
    size_axes: SizeAxes | None
    name: str


def capture(
    model: nn.Module,
    example_inputs: ExampleInputs | Inputs,
    size_axes: SizeAxes | None = None,
    name: str | None = None,
) -> Captured:
    """Trace a copy of the network in evaluation mode on the CPU, for any size of the batch axis.

    The batch axis is the first axis of the first input, and of every other input whose first axis has the same length.
    The `size_axes` of the first input, height and width, may be of any length too. Messages call the network `name`
    (default: that of its class). The model is not changed.

    Raises:
        InputError: the network does not take the example inputs.
        ExportError: its forward depends on data, works for some batch sizes only, or is not supported by torch.export.
    """
    check_filled(model)
    given = Inputs.of(example_inputs)
    given.check_against(model)
    inputs = given.map(lambda tensor: tensor.detach().cpu().contiguous())
    module = private_copy(model)
    traced = with_batch(inputs, TRACED_BATCH)
    output = first_output(module, traced, inputs)
    names = unique([name for name, _ in named_tensors_in(output)])
    if not names:
        raise ExportError(f"{type(model).__name__} returns no tensor; there is nothing to export")
    if not is_plain(output):
        module.register_forward_hook(lambda _, __, output: tensors_by_name(names, output))
    random = depends_on_random_numbers(lambda given: tensors_in(forward(module, given)), traced)
    name = name or type(model).__name__
    program = export_program(without_kept_shapes(module, inputs), traced, inputs, size_axes, name)
    return Captured(program, module, inputs, input_names(program), names, random, size_axes, name)


def private_copy(model: nn.Module) -> nn.Module:
    """A copy that shares nothing with the model, in evaluation mode on the CPU, in torch's usual memory format.

    With channels_last, the graph would record the memory layout of a global average: ten operators instead of none.
    """
    plain = torch.contiguous_format
    return copy_with(model, lambda _, tensor: tensor.detach().to("cpu", copy=True, memory_format=plain)).eval()


def without_kept_shapes(module: nn.Module, inputs: Inputs) -> nn.Module:
    """A copy of a module that has just run, which holds no shape of what it saw; the module itself where it holds none.

    A forward may keep what it computed for a shape, and use it again where the same shape comes: in the graph that
    would be a condition on the batch. Shapes that follow the number of examples are replaced by one that never comes.
    """
    seen = kept_shapes(module)
    if not seen:
        return module
    copy = eval_copy(module)
    with contextlib.suppress(InputError):
        run(copy, with_batch(inputs, 1))
    for (path, name), shape in kept_shapes(copy).items():
        if seen.get((path, name)) != shape:
            setattr(copy.get_submodule(path), name, torch.Size([-1] * len(shape)))
    return copy


def kept_shapes(module: nn.Module) -> dict[tuple[str, str], torch.Size]:
    """The shapes of tensors that modules hold, by path and attribute."""
    return {
        (path, name): value
        for path, each in module.named_modules()
        for name, value in vars(each).items()
        if type(value) is torch.Size
    }


def first_output(module: nn.Module, traced: Inputs, inputs: Inputs) -> Any:
    """The network's outputs for the batch size of the trace.

    Raises:
        InputError: its forward raises on the example inputs too.
        ExportError: its forward works for the batch size of the example inputs only.
    """
    try:
        return run(module, traced)
    except InputError as error:
        run(module, inputs)
        raise ExportError(for_some_batches(type(module).__name__, reason(error.__cause__ or error))) from error


def run(module: nn.Module, inputs: Inputs) -> Any:
    """The network's outputs, without gradients; the caller's random state is not advanced.

    Raises:
        InputError: its forward raises.
    """
    with random_numbers_kept():
        return forward(module, inputs)


def forward(module: nn.Module, inputs: Inputs) -> Any:
    """The network's outputs, without gradients.

    Raises:
        InputError: its forward raises.
    """
    try:
        with torch.no_grad(), torch.device("cpu"):
            return inputs.call(module)
    except Exception as error:  # a forward may raise anything
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs.tensors)
        raise InputError(
            f"{type(module).__name__} does not take inputs of shape {shapes} on the CPU ({reason(error)}); "
            f"{advice(error)}"
        ) from error


def advice(error: Exception) -> str:
    """The remedy for a forward that raised on the CPU."""
    if "device" in str(error) or "CUDA" in str(error):
        return (
            "create its tensors on the device of the input, and register those that it holds as parameters or buffers, "
            "which move with the network to the CPU"
        )
    return "pass example inputs that its forward takes"


def with_batch(inputs: Inputs, batch: int) -> Inputs:
    """The same inputs with exactly `batch` distinct examples: a repeated one is shifted along its last axis.

    Raises:
        InputError: they hold no example.
    """
    tensors = inputs.tensors
    if any(tensor.ndim and not tensor.shape[0] for tensor in tensors):
        raise InputError("the example inputs hold no example: an axis has length 0; pass at least one")
    return inputs.map(lambda tensor: resized(tensor, batch) if is_batched(tensor, inputs.batch) else tensor)


def is_batched(tensor: torch.Tensor, batch: int) -> bool:
    """Whether a tensor's first axis is the batch."""
    return tensor.ndim > 0 and tensor.shape[0] == batch


def resized(tensor: torch.Tensor, batch: int) -> torch.Tensor:
    """A tensor `(N, ...)` with `batch` rows: its own, followed by shifted copies."""
    if batch <= len(tensor):
        return tensor[:batch]
    rows = (tensor[i % len(tensor)] for i in range(batch))
    return torch.stack([row.roll(i // len(tensor), -1) if row.ndim else row for i, row in enumerate(rows)])


def export_program(
    module: nn.Module, traced: Inputs, inputs: Inputs, size_axes: SizeAxes | None, name: str
) -> ExportedProgram:
    """The graph of the module, without the file names and the inputs that torch.export keeps with it.

    Raises:
        ExportError: there is no such graph.
    """
    batch, shapes = Dim(BATCH), ShapesCollection()
    for tensor, original in zip(traced.tensors, inputs.tensors, strict=True):
        if is_batched(original, inputs.batch):
            # torch finds the range of height and width; of a named axis it would demand that any length is possible.
            sizes = dict.fromkeys(size_axes or (), Dim.DYNAMIC) if tensor is traced.tensors[0] else {}
            shapes[tensor] = {0: batch, **sizes}
    other = () if size_axes is None else tuple(at_another_size(traced, size_axes).tensors[0].shape)
    layers = Layers(module, other)
    dynamic = shapes.dynamic_shapes(module, traced.args, traced.kwargs)
    try:
        with quiet(), tracing_sizes(size_axes, layers), torch.no_grad(), random_numbers_kept(), torch.device("cpu"):
            program = torch.export.export(module, traced.args, traced.kwargs, dynamic_shapes=dynamic, strict=False)
    except Exception as error:  # a traced forward may raise anything
        check_size_is_free(layers, name)
        raise ExportError(explain(error, name)) from error
    check_size_is_free(layers, name)
    program.example_inputs = None
    for part in program.graph_module.modules():
        if isinstance(part, torch.fx.GraphModule):
            for node in part.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


@contextlib.contextmanager
def tracing_sizes(size_axes: SizeAxes | None, layers: Layers) -> Iterator[None]:
    """Trace height and width as variables in the context, and record in which layer one becomes a constant."""
    if size_axes is None:
        yield
        return
    settings: Any = symbolic_shapes
    # Without this setting, each layer with a stride would add the condition that its output has not the length 1.
    with layers, settings.patch(backed_size_oblivious=True):
        yield


def explain(error: Exception, network: str) -> str:
    """One line that says why torch.export cannot capture a network."""
    # torch has imported it by now; it takes two seconds that loading a bundle does not need.
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    text = str(error)
    if isinstance(error, GuardOnDataDependentSymNode):
        return (
            f"{network} cannot be exported: its forward depends on the values of its inputs, not on their shapes alone"
        )
    if "Constraints violated" in text:
        found = re.search(r"Suggested fixes:\s+(.*)", text)
        return for_some_batches(network, f"it needs {found[1].strip()}" if found else "")
    return f"{network} cannot be exported: {reason(error)}"


def for_some_batches(network: str, limit: str) -> str:
    """One line that says that a forward works for some batch sizes only, with the limit."""
    return (
        f"{network} cannot be exported for any batch size: its forward only works for some"
        f"{f' ({limit})' if limit else ''}; take the size from the input, as in x.flatten(1), and give example inputs "
        "whose batch size is not the length of another input's first axis"
    )


def input_names(program: ExportedProgram) -> tuple[str, ...]:
    """The names of the input tensors; other inputs, such as numbers, are constants of the graph."""
    specs = [spec for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    return tuple(spec.arg.name for spec in specs if isinstance(spec.arg, TensorArgument))


def named_tensors_in(output: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that a network returns, in the order of `tensors_in`, with names.

    The name is "output" for a single tensor, "output_0" and so on for a sequence, otherwise the key or attribute.
    """
    for place, tensor in placed_tensors_in(output):
        yield output_name(place), tensor


def is_plain(output: Any) -> bool:
    """Whether an output consists of tensors in Python's own containers, so that no class has to be imported for it."""
    if type(output) in (tuple, list):
        return all(map(is_plain, output))
    if type(output) in (dict, OrderedDict):
        return all(map(is_plain, output.values()))
    return isinstance(output, torch.Tensor)


def output_name(words: Sequence[str]) -> str:
    """One name for a path: its words, preceded by "output" unless they begin with a letter."""
    name = "_".join(words)
    return name if name[:1].isalpha() else f"output_{name}".rstrip("_")


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with numbers appended to repeated ones."""
    found: list[str] = []
    for name in names:
        count, free = 0, name
        while free in found:
            count, free = count + 1, f"{name}_{count + 1}"
        found.append(free)
    return tuple(found)


def tensors_by_name(names: Sequence[str], output: Any) -> dict[str, torch.Tensor]:
    """The tensors of an output as a dict."""
    tensors = [tensor for _, tensor in named_tensors_in(output)]
    return dict(zip(names, tensors, strict=True))
