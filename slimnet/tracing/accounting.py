"""No label is lost: what goes into an op comes out of it, is read by it, or stays.

A label that no op reads would count as unread, and its channel could be cut while the network uses it. So each op's
labels are looked up after its handler has run, whatever the handler does.
"""

from collections.abc import Sequence

import numpy as np

from slimnet.graph import Norm, Pointwise
from slimnet.reasons import Kind
from slimnet.tracing.labels import Labels
from slimnet.tracing.ops.filling import FILLED
from slimnet.tracing.recorder import Call, Recorder

OVERWRITING = frozenset(["copy", "fill", "zero"])
"""Ops that leave nothing of the values of their first tensor."""

TAKING = frozenset(
    ["slice", "select", "index", "_unsafe_index", "index_select", "as_strided", "unfold", "constant_pad_nd"]
)
"""Ops that take some positions of their first tensor only."""


class Account:
    """What is known of a recorder's labels before an op, to be settled after it.

    `seen[label]` is the number of the last op that returned the label or read it.
    """

    def __init__(self, recorder: Recorder):
        self.recorder = recorder
        self.seen = np.zeros(4096, dtype=np.int32)
        self.number = 0
        self.given: list[Labels] = []
        self.counts = (0, 0, 0, 0)

    def open(self, call: Call) -> None:
        """Note what an op is given, before its handler runs."""
        recorder = self.recorder
        self.given = [] if call.name in FILLED else faces_of(recorder, call, call.name in OVERWRITING)
        self.counts = len(recorder.steps), len(recorder.pins), len(recorder.sums), len(recorder.joins)

    def settle(self, call: Call) -> None:
        """Keep every channel whose label the handler has lost."""
        recorder = self.recorder
        given = self.given
        if not given:
            if call.name in FILLED:
                return
            # Parameters get their labels when they are first asked for.
            given = faces_of(recorder, call, call.name in OVERWRITING)
            if not given:
                return
        if recorder.size > self.seen.size:
            self.seen = np.concatenate([self.seen, np.zeros(2 * recorder.size - self.seen.size, dtype=np.int32)])
        self.number += 1
        seen, number = self.seen, self.number
        seen[0] = number
        self.mark(call)
        partly = call.name in TAKING
        for face in given:
            hits = np.count_nonzero(seen[face] == number)
            if hits < face.size and not (partly and hits):
                self.keep_lost(call, face)

    def mark(self, call: Call) -> None:
        """Mark the labels that the op has returned or read, or that stay."""
        recorder, seen, number = self.recorder, self.seen, self.number
        steps, pins, sums, _ = self.counts
        for step in recorder.steps[steps:]:
            if isinstance(step, Pointwise | Norm):
                for operand in step.operands:
                    seen[operand] = number
            else:
                seen[step.inputs] = number
            seen[step.out if isinstance(step, Pointwise | Norm) else step.outputs] = number
        for pin in recorder.pins[pins:]:
            seen[pin.labels] = number
        for total in recorder.sums[sums:]:
            seen[total.rows] = number
        for tensor in call.outputs:
            entry = recorder.tags.get(id(tensor))
            if entry is not None:
                for face in entry[1].faces:
                    seen[face] = number

    def keep_lost(self, call: Call, face: Labels) -> None:
        """Keep what of a face the op has neither returned nor read, nor cut together with what it has."""
        recorder, seen, number = self.recorder, self.seen, self.number
        for left, right, _ in recorder.joins[self.counts[3] :]:
            both = (seen[left] == number) | (seen[right] == number)
            seen[left[both]] = number
            seen[right[both]] = number
        if call.name in TAKING and (seen[face] == number).any():
            return
        lost = face[seen[face] != number]
        if lost.size:
            recorder.pin(lost, recorder.because(Kind.NOT_FOLLOWED, call))
            seen[lost] = number


def faces_of(recorder: Recorder, call: Call, skip_first: bool) -> list[Labels]:
    """The labels of an op's tensors, as far as they have any yet."""
    found: list[Labels] = []
    tensors: Sequence = call.tensors[1:] if skip_first else call.tensors
    for tensor in tensors:
        entry = recorder.tags.get(id(tensor))
        if entry is not None:
            found += entry[1].faces
    return found
