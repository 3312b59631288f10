"""No label is lost: what goes into an op comes out of it, is read by it, or stays.

A label that no op reads would count as unread, and its channel could be cut while the network uses it. So each op's
labels are looked up after its handler has run, whatever the handler does.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from slimnet.graph.channel_graph import Depthwise, Reader
from slimnet.graph.labels import Labels
from slimnet.graph.reasons import Kind
from slimnet.tracing.op_call import Call
from slimnet.tracing.recorder import Recorder


class Account:
    """What is known of a recorder's labels before an op, to be settled after it.

    `seen[label]` is the number of the last op that returned the label or read it.
    """

    def __init__(self, recorder: Recorder):
        self.recorder = recorder
        self.seen = np.zeros(4096, dtype=np.int32)
        self.number = 0
        self.given: tuple[Labels, ...] = ()
        self.steps = self.pins = self.sums = self.joins = 0

    def open(self, call: Call) -> None:
        """Note what an op is given, before its handler runs."""
        recorder = self.recorder
        self.given = faces_of(recorder, given_to(call))
        self.steps, self.pins = len(recorder.steps), len(recorder.pins)
        self.sums, self.joins = len(recorder.sums), len(recorder.joins)

    def settle(self, call: Call) -> None:
        """Pin every channel whose label the handler has lost."""
        recorder = self.recorder
        # Parameters get their labels when they are first asked for.
        given = self.given or faces_of(recorder, given_to(call))
        if not given:
            return
        # Most handlers return or read the arrays that they were given; only other arrays are looked up label by label.
        lacking = {id(whole(face)): face for face in given}
        followed = faces_of(recorder, call.outputs)
        for face in followed:
            lacking.pop(id(whole(face)), None)
        if not lacking:
            return
        followed += tuple(self.read())
        for face in followed:
            lacking.pop(id(whole(face)), None)
        if lacking:
            self.look_up(call, [*lacking.values()], followed)

    def read(self) -> Iterator[Labels]:
        """The labels that the op has read or that stay, and those of what its steps compute."""
        recorder = self.recorder
        for step in recorder.steps[self.steps :]:
            if isinstance(step, Reader | Depthwise):
                yield step.inputs
                yield step.outputs
            else:
                yield from step.operands
                yield step.out
        for pin in recorder.pins[self.pins :]:
            yield pin.labels
        for total in recorder.sums[self.sums :]:
            yield total.rows

    def look_up(self, call: Call, given: Sequence[Labels], followed: Sequence[Labels]) -> None:
        """Keep every channel of some faces whose label is in none of those that were followed."""
        size = self.recorder.size
        if size > self.seen.size:
            self.seen = np.concatenate([self.seen, np.zeros(2 * size - self.seen.size, dtype=np.int32)])
        self.number += 1
        seen, number = self.seen, self.number
        seen[0] = number
        for labels in followed:
            seen[labels] = number
        if (seen.take(np.concatenate(given, axis=None)) == number).all():
            return
        partly = call.spec.uses == "part"
        for face in given:
            hits = np.count_nonzero(seen[face] == number)
            if hits < face.size and not (partly and hits):
                self.keep_lost(call, face)

    def keep_lost(self, call: Call, face: Labels) -> None:
        """Pin the labels of a face that the op has neither returned nor read, nor joined with any of those."""
        recorder, seen, number = self.recorder, self.seen, self.number
        for left, right, _ in recorder.joins[self.joins :]:
            both = (seen[left] == number) | (seen[right] == number)
            seen[left[both]] = number
            seen[right[both]] = number
        if call.spec.uses == "part" and (seen[face] == number).any():
            return
        lost = face[seen[face] != number]
        if lost.size:
            recorder.pin(lost, recorder.because(Kind.NOT_FOLLOWED, call))
            seen[lost] = number


def given_to(call: Call) -> Sequence[torch.Tensor]:
    """The tensors whose values an op uses."""
    uses = call.spec.uses
    if uses == "none":
        return ()
    return call.tensors[1:] if uses == "others" else call.tensors


def faces_of(recorder: Recorder, tensors: Sequence[torch.Tensor]) -> tuple[Labels, ...]:
    """The labels of some tensors, as far as they have any yet."""
    tags = recorder.tags
    found: tuple[Labels, ...] = ()
    for tensor in tensors:
        entry = tags.get(id(tensor))
        if entry is not None:
            found += entry[1].faces
    return found


def whole(labels: Labels) -> Labels:
    """The array of which another is a view, where that shows all of it; so equal ones hold the same labels."""
    base = labels.base
    # An array of that size without gaps or repetitions has all elements, whatever the order of its axes.
    if type(base) is np.ndarray and base.size == labels.size and labels.flags.forc:
        return base
    return labels
