"""The recorder: makes labels, joins them, and collects what the handlers of ops record about them."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Protocol

import numpy as np
import torch
from torch import nn

from slimnet.graph.channel_graph import (
    Activation,
    ChannelReduction,
    Constants,
    CountedNorm,
    KnownTensor,
    Op,
    Pin,
    Pointwise,
    SplitAxis,
    Step,
    Stop,
    Value,
)
from slimnet.graph.labels import Labels, align, along, common_shape, unique, varying_axes
from slimnet.graph.reasons import Kind, Place, Reason
from slimnet.graph.sizes import Size, SizeUse
from slimnet.modules.forward_path import Returned
from slimnet.modules.tensors import Named
from slimnet.tracing.constant_rules import common_constant
from slimnet.tracing.source_line import line_above
from slimnet.tracing.tensor_tags import PLAIN, Tag
from slimnet.tracing.worker_threads import Path

Constant = Callable[[Sequence[Constants]], Constants]


class NamedCall(Protocol):
    """A call of an op, such as `op_call.Call`; the recorder needs its name alone."""

    @property
    def name(self) -> str:
        """The name of the op."""


class Mark:
    """What integers of a trace hold to say which trace made them.

    Attributes:
        equal: the sizes that the code has found to be equal, with the number of ops before that.
    """

    def __init__(self, ops: Sequence[Op]) -> None:
        self._ops = ops
        self.equal: list[tuple[int, Size, Size]] = []

    def note_equal(self, one: Size, other: Size) -> None:
        """Remember that the code has compared two sizes, which are equal."""
        self.equal.append((len(self._ops), one, other))


class Recorder:
    """Collects labels, joins and steps while a forward runs.

    `modules` are the skeleton's by path; `meta` holds its tensors by name and `real` the network's. `module` is the
    path of the one whose forward is running, `line` the line of the network's code that called the op. `depthwise` says
    of each layer in turn whether it is a depthwise convolution, where a narrower network's own numbers would mislead:
    one channel in one group is an ordinary convolution too. `given` are the integers given to the function of torch
    whose op is handled; those made by this `trace` remember where they come from.
    """

    def __init__(self, modules: Mapping[str, nn.Module], meta: Named, real: Named, depthwise: Sequence[bool] = ()):
        self.depthwise = iter(depthwise)
        self.modules = modules
        self.meta = meta
        self.parameters = {id(tensor): name for name, tensor in reversed(meta.items())}
        self.real = real
        self.originals = {id(tensor): name for name, tensor in real.items()}
        self.size = 1
        self.known: list[KnownTensor] = []
        self.joins: list[tuple[Labels, Labels, Reason]] = []
        self.vectors: dict[tuple[str, int], Labels] = {}
        self.steps: list[Step] = []
        self.step_ops: list[int] = []
        self.pins: list[Pin] = []
        self.parts: list[SplitAxis] = []
        self.sums: list[ChannelReduction] = []
        self.activations: list[Activation] = []
        self.activation_calls: Counter[tuple[str, str]] = Counter()
        self.paddings: list[Labels] = []
        self.counted: list[CountedNorm] = []
        self.ops: list[Op] = []
        self.uses: list[SizeUse] = []
        self.given: tuple[int, ...] = ()
        self.trace = Mark(self.ops)
        self.parameter_uses: list[str] = []
        self.stopped: Stop | None = None
        self.steps_in_front = self.activations_in_front = self.returned_in_front = 0
        self.returned: list[Returned] = []
        self.path = Path()
        self.tags: dict[int, tuple[torch.Tensor, Tag]] = {}
        self.families: dict[int, list[torch.Tensor]] = {}
        self.module = ""
        self.line = ""
        self.found_here: Place | None = None

    def is_depthwise(self, looks_so: bool) -> bool:
        """Whether the layer now recorded is depthwise: as it was in the dense network, or else as it looks."""
        return next(self.depthwise, looks_so)

    def begin_again(self, meta: Named) -> None:
        """Another forward begins, with the skeleton's tensors as the one before has left them."""
        self.meta = {name: tensor for name, tensor in meta.items() if name in self.real}
        self.parameters = {id(tensor): name for name, tensor in reversed(self.meta.items())}
        self.parameter_uses, self.returned = [], []
        self.activation_calls.clear()

    @property
    def used(self) -> Counter[str]:
        """The parameters and buffers that any op of this forward reads, and the number of these ops."""
        return Counter(self.parameter_uses)

    # Labels

    def fresh(self, shape: Sequence[int]) -> Labels:
        """New labels, one for each position of a label array of this shape."""
        start = self.size
        self.size += math.prod(shape)
        labels = np.arange(start, self.size, dtype=np.int64)
        return labels if len(shape) == 1 else labels.reshape(shape)

    def named(self, labels: Labels, reason: Reason) -> Labels:
        """These labels with new ones where they are 0; what has no channel that we know of stays."""
        if np.count_nonzero(labels) == labels.size:
            return labels
        new = self.fresh(labels.shape)
        self.pin(new[labels == 0], reason)
        return np.where(labels == 0, new, labels)

    def cut(self, name: str, axis: int, labels: Labels, reason: Reason) -> None:
        """Cut one axis of a parameter together with the channels `(C,)` it belongs to, as with those of other uses."""
        present = self.vectors.setdefault((name, axis), labels)
        if present is not labels:
            self.join(labels, present, reason)

    def parameter(self, tensor: torch.Tensor) -> str | None:
        """The name of a parameter or buffer that the forward has not written to."""
        name = self.parameters.get(id(tensor))
        entry = self.tags.get(id(tensor))
        return name if entry is None or entry[1].parameter == name else None

    def attach(self, tensor: torch.Tensor, channels: Labels, reason: Reason) -> Value | None:
        """Cut a vector that a layer applies to its channels `(C,)` together with them; returns how to compute it.

        None where it depends on the input; then all it is computed from stays.
        """
        name = self.parameter(tensor)
        if name is not None:
            self.cut(name, 0, channels, reason)
            real = self.real[name]
            return lambda: real
        own = self.channels(tensor, 0, reason)
        self.join(channels, np.zeros_like(channels) if own is None else own, reason)
        value = self.value(tensor)
        if value is None:
            self.pin_tensor(tensor, reason)
        return value

    def tag(self, tensor: torch.Tensor) -> Tag:
        """What is known about a tensor; a parameter gets a face for each axis longer than 1."""
        entry = self.tags.get(id(tensor))
        if entry is not None:
            return entry[1]
        name = self.parameters.get(id(tensor))
        if name is None:
            return PLAIN
        real = self.real[name]
        faces = []
        for axis, size in enumerate(tensor.shape):
            if size > 1:
                labels = self.fresh((size,))
                self.cut(name, axis, labels, Reason(Kind.NO_CHANNELS, Place(module=name)))
                if real.numel() == size:
                    self.known.append(KnownTensor(labels, real, name))
                faces.append(along(labels, axis, tensor.ndim))
        tag = Tag(tuple(faces), name, tuple(range(tensor.ndim)), value=lambda: real)
        self.tags[id(tensor)] = (tensor, tag)
        return tag

    def is_blank(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is filled with one value, without giving it labels."""
        entry = self.tags.get(id(tensor))
        return entry is not None and entry[1].blank

    def set(self, tensor: torch.Tensor, tag: Tag) -> None:
        """Attach a tag to a tensor (which is kept alive, so that its id stays its own)."""
        self.tags[id(tensor)] = (tensor, tag)

    def note_storage(self, tensor: torch.Tensor) -> None:
        """Remember a tensor that may share its memory with others, so that in-place ops reach them all."""
        family = self.families.setdefault(tensor.untyped_storage()._cdata, [])
        if not any(member is tensor for member in family):
            family.append(tensor)

    def sharing(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """The tensors seen so far that share this one's memory."""
        return list(self.families.get(tensor.untyped_storage()._cdata, []))

    def value(self, tensor: torch.Tensor) -> Value | None:
        """How to compute a tensor that does not depend on the input, without giving it labels."""
        entry = self.tags.get(id(tensor))
        if entry is not None:
            return entry[1].value
        name = self.parameters.get(id(tensor))
        if name is None:
            return None
        real = self.real[name]
        return lambda: real

    # Facts

    def pin(self, labels: Labels, reason: Reason, *, read: bool = True) -> None:
        """Forbid the removal of these labels."""
        labels = labels[labels > 0] if labels.ndim else labels.reshape(-1)
        if labels.size:
            self.pins.append(Pin(unique(labels), reason, read, len(self.ops)))

    def pin_tensor(self, tensor: torch.Tensor, reason: Reason) -> None:
        """Forbid the removal of every channel of a tensor."""
        for face in self.tag(tensor).faces:
            self.pin(face, reason)

    def join(self, left: Labels, right: Labels, reason: Reason) -> None:
        """Cut these labels together, pairwise; a label paired with none stays."""
        self.joins.append((left.ravel(), right.ravel(), reason))

    def pointwise(
        self, operands: Sequence[Labels], constant: Constant, *, reason: Reason, joined: int | None = None
    ) -> Labels:
        """Record a pointwise op over label arrays that broadcast together; returns the output's labels.

        Only the first `joined` operands (all by default) are cut together with the output; the others are
        values that do not belong to a channel.
        """
        shape = common_shape(operands)
        if shape and shape[0] > 1:
            rows = math.lcm(*(period(each) for each in operands))
            if rows < shape[0]:
                # Examples laid behind each other have the same channels, and so have the results.
                first = [each[:rows] for each in operands]
                out = self.pointwise(first, constant, reason=reason, joined=joined)
                return np.tile(out, (shape[0] // rows, *[1] * (len(shape) - 1)))
        flat = tuple([(each if each.shape == shape else np.broadcast_to(each, shape)).ravel() for each in operands])
        out = self.fresh((math.prod(shape),))
        self.joins += [(out, operand, reason) for operand in flat[:joined]]
        self.add_step(Pointwise(flat, out, constant))
        return out.reshape(shape)

    def add_step(self, step: Step) -> None:
        """Record a step of the op that is now handled."""
        self.steps.append(step)
        self.step_ops.append(len(self.ops))

    def summed(self, rows: Labels, where: Reason, kind: str = "sum", indices: Labels | None = None) -> Labels:
        """Record that channels `(sums, channels)` are added up; returns labels `(sums,)` of the sums, which stay.

        They may also be made into a mean or a maximum.
        """
        count = period(rows)
        out = self.fresh((count,))
        self.sums.append(ChannelReduction(rows[:count], out, where, kind, indices))
        self.pin(out, where)
        return np.tile(out, rows.shape[0] // count)

    def here(self, call: NamedCall) -> Place:
        """Where an op was called: its name, module path and source line."""
        if self.found_here is None:
            self.found_here = Place(call.name, self.module, self.line)
        return self.found_here

    def because(self, kind: Kind, call: NamedCall) -> Reason:
        """A reason why what an op touches stays."""
        return Reason(kind, self.here(call))

    @property
    def where(self) -> str:
        """Where the op that is now handled was called, for people."""
        module = self.module or "the network"
        return f"{module} ({self.line})" if self.line else module

    def channels(self, tensor: torch.Tensor, axis: int, reason: Reason) -> Labels | None:
        """The labels `(C,)` of one axis, with labels that change along other axes joined into it.

        None where the axis has no labels; then nothing of the tensor may be removed.
        """
        count = tensor.shape[axis]
        faces = self.tag(tensor).faces
        if len(faces) == 1 and faces[0].ndim == tensor.ndim and faces[0].size == faces[0].shape[axis] == count:
            return faces[0].reshape(-1)
        if len(faces) != 1 or (faces[0].shape[axis] == 1 and count > 1):
            self.pin_tensor(tensor, reason)
            return None
        face = align(faces[0], tensor.ndim)
        if set(varying_axes(face)) <= {axis % tensor.ndim}:
            return face.reshape(-1) if face.size == count else None
        columns = np.moveaxis(face, axis, 0).reshape(face.shape[axis], -1)
        return self.pointwise([np.ascontiguousarray(column) for column in columns.T], common_constant, reason=reason)

    # Places in the network's code

    def begin_op(self, caller: FrameType) -> None:
        """Another op is called, in the module whose forward is running, and from another line, that is."""
        self.module = self.path[-1] if self.path else ""
        self.line = line_above(caller)
        self.found_here = None

    # Results

    def joined(self) -> tuple[np.ndarray, np.ndarray]:
        """All joins as pairs of labels; labels paired with none are pinned."""
        if not self.joins:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        left = short([one for one, _, _ in self.joins])
        right = short([other for _, other, _ in self.joins])
        both = (left > 0) & (right > 0)
        if np.count_nonzero(both) == both.size:
            return left, right
        ends = np.cumsum([one.size for one, _, _ in self.joins])
        for index in unique(np.searchsorted(ends, np.flatnonzero(~both), side="right")):
            one, other, reason = self.joins[index]
            alone = (one == 0) | (other == 0)
            self.pin(np.concatenate([one[alone], other[alone]]), reason, read=False)
        return left[both], right[both]


def short(labels: Sequence[Labels]) -> Labels:
    """Many label arrays as one of int32, which is long enough and takes half as much."""
    return np.concatenate(labels, dtype=np.int32, casting="same_kind")


def period(labels: Labels) -> int:
    """After how many rows labels repeat themselves to the end; 1 where there is one row."""
    count = labels.shape[0]
    first = labels.reshape(count, -1)[:, 0]
    again = np.flatnonzero(first[1:] == first[0])
    rows = int(again[0]) + 1 if again.size else count
    return rows if count % rows == 0 and (labels.reshape(-1, rows, *labels.shape[1:]) == labels[:rows]).all() else count
