"""trace: run a network's own forward once on meta tensors and write down what happens to every channel."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from slimnet.errors import InputError, SlimnetError, TraceError
from slimnet.graph.channel_graph import ChannelGraph, Depthwise, Reader, Stop
from slimnet.graph.labels import connected_sets
from slimnet.graph.reasons import Kind, Reason
from slimnet.modules.copying import skeleton
from slimnet.modules.example_inputs import ExampleInputs, Inputs, batched, tensors_in
from slimnet.modules.forward_path import forwards_wrapped, module_paths
from slimnet.modules.network import Network
from slimnet.modules.tensors import Tensors
from slimnet.torch_state.process import collection_paused
from slimnet.tracing.data_answers import run_on_data
from slimnet.tracing.data_dependence import alive, used_again, with_stop
from slimnet.tracing.dispatch import ChannelMode, ReadsMode
from slimnet.tracing.islands import Islands
from slimnet.tracing.meta_autocast import as_with_data
from slimnet.tracing.recorder import Recorder
from slimnet.tracing.size_numbers import SizesMode, follow_numbers
from slimnet.tracing.size_uses import note_equal_widths
from slimnet.tracing.trace_errors import refusal
from slimnet.tracing.training_parts import idle_parameters, modules_around, unread_weights, without_macs
from slimnet.tracing.worker_threads import work_followed


class InterruptedForwardError(Exception):
    """A forward that raised while it was traced, after `position` ops; `cause` says it for people."""

    def __init__(self, position: int, cause: SlimnetError):
        super().__init__(str(cause))
        self.position = position
        self.cause = cause


@torch.inference_mode(False)
@collection_paused()
def trace(model: nn.Module | Network, inputs: ExampleInputs | Inputs) -> ChannelGraph:
    """Follow every channel of `model` through its forward in evaluation mode, on meta tensors.

    Parts that only training runs (auxiliary classifiers), or of which only training returns what they compute, are
    followed as well, in a second forward, so that the slim network can go on training, unless something else then runs
    in the place of what runs in evaluation. Where the forward begins to depend on data (`ChannelGraph.stop`), the model
    is run on the inputs as well; behind that only what is the same for all data is followed. The model is not touched.

    Raises:
        TraceError: the forward depends on data before any layer has run (it branches on a value, or makes shapes from
            values), or its data leaves torch.
        InputError: the forward does not take these inputs.
    """
    try:
        network = Network.of(model)
        given = Inputs.of(inputs)
        try:
            return trace_onwards(network, given, sizes=True)
        except InterruptedForwardError:
            # Whether the numbers were to blame, which are of a class of their own, the code alone could tell.
            return trace_onwards(network, given)
    except InterruptedForwardError as stop:
        raise stop.cause from stop.__cause__


def trace_onwards(network: Network, inputs: Inputs, *, sizes: bool = False) -> ChannelGraph:
    """Trace a network; where its forward begins to depend on data, trace it again with the answers of a run on data.

    Raises:
        InterruptedForwardError: the forward raised.
    """
    graph = trace_structure(skeleton(network), network, inputs, sizes=sizes)
    if graph.stop is None:
        return graph
    try:
        run = run_on_data(network, inputs)
    except Exception as error:
        raise InterruptedForwardError(len(graph.ops), refusal(error, inputs)) from error
    try:
        return trace_behind(network, inputs, graph.stop._replace(run=run), sizes=sizes)
    except InterruptedForwardError:
        # On meta tensors it goes another way.
        return with_stop(graph, graph.stop._replace(reused=used_again(run.uses, graph.stop.traced)))


def trace_behind(network: Network, inputs: Inputs, stop: Stop, *, sizes: bool) -> ChannelGraph:
    """Trace a network beyond a stop, with the answers of its run on data.

    Modules that do something else for another number of rows are not followed.

    Raises:
        InterruptedForwardError: the forward raised.
    """
    while True:
        graph = trace_structure(skeleton(network), network, inputs, sizes=sizes, stop=stop)
        assert graph.stop is not None
        assert stop.run is not None
        if not graph.stop.unsteady:
            return graph
        stop = stop._replace(run=stop.run._replace(reading=stop.run.reading | graph.stop.unsteady))


def trace_whole(model: nn.Module | Network, inputs: ExampleInputs | Inputs) -> ChannelGraph:
    """`trace`, for work that needs every layer.

    Raises:
        TraceError: the forward depends on data anywhere.
        InputError: as `trace`.
    """
    graph = trace(model, inputs)
    if graph.stop is not None:
        raise TraceError(f"the forward depends on data from {graph.stop.place} on, so that the rest cannot be followed")
    return graph


def trace_structure(
    structure: Network,
    real: Network,
    inputs: Inputs,
    depthwise: Sequence[bool] = (),
    *,
    sizes: bool = False,
    stop: Stop | None = None,
) -> ChannelGraph:
    """Trace a skeleton whose tensors have the values of a `real` network's, which are read where constants need them.

    `depthwise` says which layers are depthwise, where the skeleton is that of a narrower network. With `sizes`, the
    graph says from which attributes and widths the code computes the sizes that it gives to ops. `stop` is that of an
    earlier trace of the network, whose run on data says how to go on there; without it the trace ends there.

    Raises:
        InterruptedForwardError: the forward raised.
    """
    module, modules, meta = structure.module, structure.modules, structure.named
    if any(each.training for each in modules.values()):
        module.eval()
        meta = Network.of(module).named
    if keeps_shapes(modules.values()):
        see_another_batch(structure, real, inputs)
        meta = Network.of(module).named
    recorder = Recorder(modules, meta, real.named, depthwise)
    if sizes:
        follow_numbers(structure, recorder.trace)
    islands = None if stop is None or stop.run is None else Islands(recorder, stop.run, to_the_end=stop.whole)
    record(recorder, inputs, sizes=sizes, islands=islands)
    graph = finish(recorder, real.tensors, inputs.batch)
    if recorder.stopped is not None:
        return with_stop(graph, stop_of(recorder, graph, islands, stop))
    idle, unread = idle_parameters(graph, real.named), unread_weights(graph)
    if not idle and not unread:
        return graph
    for path in modules_around([*idle, *unread]):
        module.get_submodule(path).training = True
    recorder.begin_again(Network.of(module).named)
    try:
        record(recorder, inputs, sizes=sizes)
    except InterruptedForwardError:
        return graph
    if recorder.stopped is not None or (idle and not graph.used.keys() <= recorder.used.keys()):
        # Training runs a twin, such as a moving average's, in the place of what is asked for.
        return graph
    with_training = finish(recorder, real.tensors, inputs.batch)
    again = with_training.steps[len(graph.steps) :]
    used = recorder.used + Counter(graph.used)
    return replace(with_training, steps=graph.steps + tuple(map(without_macs, again)), macs=graph.macs, used=used)


def keeps_shapes(modules: Iterable[nn.Module]) -> bool:
    """Whether a module holds the shape of a tensor, as code does that keeps what it computed for that shape."""
    return any(type(value) is torch.Size for module in modules for value in vars(module).values())


def see_another_batch(structure: Network, real: Network, inputs: Inputs) -> None:
    """Run a forward of the skeleton for one example more, so that what it keeps for a shape is not for this one.

    It would be used again here, and computed anew where the slim network has another shape.
    """
    with suppress(InterruptedForwardError, InputError, IndexError):
        record(Recorder(structure.modules, structure.named, real.named), batched(inputs, inputs.batch + 1))


def stop_of(recorder: Recorder, graph: ChannelGraph, islands: Islands | None, before: Stop | None) -> Stop:
    """Where the forward begins to depend on data, and what was followed behind it; `before` is an earlier trace's."""
    assert recorder.stopped is not None
    found = recorder.stopped._replace(traced=tuple(recorder.parameter_uses))
    if islands is None:
        return found._replace(reused=() if before is None else before.reused)
    again = {path for path, _ in recorder.returned[recorder.returned_in_front :]}
    # How often those run depends on data.
    found = found._replace(watched=tuple(path for path in found.watched if path not in again))
    if not islands.whole:
        found = found._replace(reused=used_again(islands.run.uses, found.traced))
    pinned = np.zeros(int(graph.sets.max()) + 1, dtype=bool)
    pinned[graph.sets[graph.fixed]] = True
    found = found._replace(behind=islands.watched(pinned[graph.sets]), run=islands.run, whole=islands.whole)
    return found if islands.to_the_end else found._replace(unsteady=islands.unsteady())


def record(recorder: Recorder, inputs: Inputs, *, sizes: bool = False, islands: Islands | None = None) -> None:
    """Run one forward of the skeleton, in the mode in which its modules are.

    With `islands` it goes on where it depends on data.
    """
    modules = recorder.modules
    given = inputs.map(lambda tensor: torch.empty_like(tensor.as_subclass(torch.Tensor), device="meta"))
    channels = ChannelMode(recorder, islands)
    try:
        with (
            as_with_data(),
            module_paths(modules, recorder.path, recorder.returned),
            nullcontext() if islands is None else forwards_wrapped(islands.followed_modules, islands.wrapped),
            work_followed(channels),
            ReadsMode(channels),
            SizesMode(recorder) if sizes else nullcontext(),
        ):
            output = given.call_directly(modules[""])
        recorder.path.check()
        for tensor in tensors_in(output):
            recorder.pin_tensor(tensor, Reason(Kind.OUTPUT))
        if islands is not None:
            islands.finish(alive(recorder))
    except SlimnetError as error:
        if not can_stop(recorder, islands):
            raise InterruptedForwardError(len(recorder.ops), error) from error
    except Exception as error:
        if not can_stop(recorder, islands):
            raise InterruptedForwardError(len(recorder.ops), refusal(error, inputs)) from error
    else:
        if recorder.stopped is not None and (islands is None or not islands.whole):
            goes_on = TraceError(
                f"the forward goes on after an error at {recorder.stopped.place}, which depends on data"
            )
            raise InterruptedForwardError(len(recorder.ops), goes_on)
    finally:
        channels.loose.fill(recorder.value, inputs.tensors[0].device)


def can_stop(recorder: Recorder, islands: Islands | None) -> bool:
    """Whether a forward that raised was followed up to an op that depends on data, with some layer before it.

    With `islands`, a trace that comes to the end of the dense forward must do so again.
    """
    if recorder.stopped is None or (islands is not None and (islands.to_the_end or islands.broken)):
        return False
    if islands is not None:
        islands.give_up(alive(recorder))
    return any(isinstance(step, Reader | Depthwise) for step in recorder.steps[: recorder.steps_in_front])


def finish(recorder: Recorder, real: Tensors, batch: int) -> ChannelGraph:
    """Freeze what the recorder collected."""
    note_equal_widths(recorder)
    sets = connected_sets(recorder.size, *recorder.joined())
    steps, activations = tuple(recorder.steps), tuple(recorder.activations)
    if recorder.stopped is not None:
        # How often layers run behind the stop depends on data.
        front = recorder.steps_in_front
        steps = steps[:front] + tuple(map(without_macs, steps[front:]))
        activations = activations[: recorder.activations_in_front]
    return ChannelGraph(
        tensors=real,
        size=recorder.size,
        known=tuple(recorder.known),
        sets=sets,
        vectors=dict(recorder.vectors),
        steps=steps,
        step_ops=tuple(recorder.step_ops),
        pins=tuple(recorder.pins),
        parts=tuple(recorder.parts),
        sums=tuple(recorder.sums),
        used=recorder.used,
        activations=activations,
        paddings=tuple(recorder.paddings),
        counted=tuple(recorder.counted),
        ops=tuple(recorder.ops),
        macs=sum(step.macs for step in steps if isinstance(step, Reader | Depthwise)) // batch,
        batch=batch,
        uses=tuple(recorder.uses),
    )
