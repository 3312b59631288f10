"""Islands: parts of a forward that are followed behind the op from which on it depends on data.

A run on data says what such ops return, so that the trace goes on. But other data may lead another way through the
code. Followed is what runs the same whenever it runs: a call of a module in which nothing depends on data. What it is
given is like an input of the network, what it returns like an output, and both keep their channels. Only where the code
is sure to hand what one call returns to the next one, and to nothing else, both are followed as one
(`straight_code.py`).
"""

import sys
from collections import Counter
from collections.abc import Sequence
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from slimnet.errors import TraceError
from slimnet.graph.data_run import Answer, CallAnswer, DataRun
from slimnet.graph.labels import Labels
from slimnet.graph.reasons import Kind, Place, Reason
from slimnet.modules.attributes import is_from_torch
from slimnet.modules.example_inputs import tensors_in
from slimnet.modules.forward_path import Forward
from slimnet.tracing.data_answers import can_restore, form_of, restored
from slimnet.tracing.op_call import Call
from slimnet.tracing.recorder import Recorder
from slimnet.tracing.row_dependence import depends_on_rows
from slimnet.tracing.source_line import network_frame
from slimnet.tracing.straight_code import (
    CodeWithNames,
    Site,
    called_at,
    functions_of,
    goes_straight,
    last_name,
    mentions,
    reachable_code,
    site_of,
)
from slimnet.tracing.tensor_tags import PLAIN

FLATTENING = ("view", "_unsafe_view")
"""The ops by which an axis of channels is flattened."""

FLATTEN = ("flatten", "reshape")
"""The functions that call them."""


class Piece(NamedTuple):
    """What ran as a whole: the path of a module, empty for an op, where it was called, and what it returned.

    `root` is the variable from which the code gets the module, or that of the module before an op.
    """

    path: str
    site: Site | None
    tensors: Sequence[torch.Tensor]
    root: str = ""


class Link(NamedTuple):
    """Labels that one piece hands to the next, and the paths of the modules that do so."""

    labels: tuple[Labels, ...]
    paths: tuple[str, ...]
    place: Place


class Islands:
    """The state of a trace that goes on behind the first op that depends on data, with the answers of a `DataRun`.

    `inside` is the path of the module that is followed now, `last` what ran before, if nothing has run since.
    """

    def __init__(self, recorder: Recorder, run: DataRun, *, to_the_end: bool = False):
        self.to_the_end = to_the_end
        self.whole = False
        self.recorder = recorder
        self.modules = recorder.modules
        self.run = run
        self.asked = 0
        self.stop: Place | None = None
        self.inside: str | None = None
        self.first_label = 0
        self.older: set[int] = set()
        self.last: Piece | None = None
        self.links: list[Link] = []
        self.sites: dict[tuple[str, str], set[Site]] = {}
        self.called_from: dict[CodeType, CodeWithNames] = {}
        self.begun: Site | None = None
        self.root = ""
        self.given: dict[str, Any] = {}
        self.returned: dict[str, list[tuple[Labels, ...]]] = {}
        self.broken = self.failed = False

    @property
    def is_between(self) -> bool:
        """Whether code behind the stop runs that is in no module that is followed."""
        return self.stop is not None and self.inside is None

    @property
    def followed_modules(self) -> dict[str, nn.Module]:
        """The modules that may be followed, or answered, as a whole: all that run but the network itself."""
        return {path: module for path, module in self.modules.items() if path and path in self.run.calls}

    # Answers

    def answer(self, op: str) -> Answer | None:
        """What an op returned in the run on data; None once the trace has gone another way."""
        if self.broken or self.asked == len(self.run.answers) or self.run.answers[self.asked].op != op:
            self.broken = True
            return None
        self.asked += 1
        return self.run.answers[self.asked - 1]

    def call_answer(self, path: str) -> CallAnswer | None:
        """What this call of a module returned, where it may be taken instead of a run: nothing in it can be cut."""
        known = self.run.calls[path].get(self.asked)
        if known is None or not self.is_between or any(name.startswith(f"{path}.") for name in self.recorder.real):
            return None
        return known if can_restore(known.result) else None

    # Modules

    def wrapped(self, forward: Forward, name: str) -> Forward:
        """A module's forward that is followed as a piece, where that is certain."""
        whole = name not in self.run.reading

        def run(*args: Any, **kwargs: Any) -> Any:
            known = self.call_answer(name)
            if known is not None:
                self.close()
                self.enter_fresh(tensors_in((args, kwargs)))
                self.asked = known.end
                return restored(known.result)
            if self.inside is not None or not whole:
                return forward(*args, **kwargs)
            site = self.note_site(name, network_frame(sys._getframe(1)))
            if self.stop is None or not holds_tensors_only((args, kwargs)):
                return forward(*args, **kwargs)
            self.given.setdefault(name, form_of((args, kwargs)))
            self.enter(name, tensors_in((args, kwargs)), site)
            self.failed = True
            output = forward(*args, **kwargs)
            self.failed = False
            self.leave(name, tensors_in(output), site)
            return output

        run.__wrapped__ = forward  # type: ignore[attr-defined]
        return run

    def note_site(self, path: str, frame: FrameType | None) -> Site | None:
        """Where a module is called, from the innermost frame of the network's own code."""
        site = site_of(frame)
        if frame is not None and site is not None:
            self.sites.setdefault(self.owner_of(path), set()).add(site)
            self.called_from[site.code] = (site.code, frame.f_globals)
        return site

    def enter(self, path: str, given: Sequence[torch.Tensor], site: Site | None) -> None:
        """A piece begins: what it is given is fresh, unless the piece before hands it over."""
        passed = self.pass_on(path, given, site)
        handed = {id(tensor) for tensor in passed}
        self.enter_fresh([tensor for tensor in given if id(tensor) not in handed])
        tags = self.recorder.tags
        self.older = {key for key, (_, tag) in tags.items() if tag.parameter is None} - handed
        self.first_label = self.recorder.size
        self.inside = path

    def leave(self, path: str, tensors: Sequence[torch.Tensor], site: Site | None) -> None:
        """A piece has ended."""
        self.inside = None
        self.last = Piece(path, site, tensors, self.root_of(path, site))
        faces = tuple(face for tensor in tensors for face in self.recorder.tag(tensor).faces)
        self.returned.setdefault(path, []).append(faces)

    def pass_on(self, path: str, given: Sequence[torch.Tensor], site: Site | None) -> list[torch.Tensor]:
        """The tensors among those given that the piece before is sure to hand over to this one, and to nothing else."""
        last = self.last
        if last is None or not self.is_certain(last, path, site):
            self.close()
            return []
        handed = {id(tensor) for tensor in last.tensors}
        passed = [tensor for tensor in given if id(tensor) in handed]
        if passed:
            faces = tuple(face for tensor in passed for face in self.recorder.tag(tensor).faces)
            paths = tuple(each for each in (last.path, path) if each)
            self.links.append(Link(faces, paths, Place(module=path or last.path)))
            self.last = last._replace(tensors=[each for each in last.tensors if all(each is not one for one in passed)])
        self.close()
        return passed

    def is_certain(self, last: Piece, path: str, site: Site | None) -> bool:
        """Whether what ran before hands what it returned to the module or op that begins at some site."""
        around = self.modules.get(path.rpartition(".")[0]) if path and last.path else None
        if isinstance(around, nn.Sequential) and around is self.modules.get(last.path.rpartition(".")[0]):
            # torch's own code hands it on.
            return type(around).forward is nn.Sequential.forward
        if site is None or last.site is None or not last.root or not goes_straight(last.site, site):
            return False
        return not path or self.root_of(path, site) == last.root

    def root_of(self, path: str, site: Site | None) -> str:
        """The variable from which the code gets a module by names alone; empty where that may be another one."""
        found = None if site is None else called_at(site)
        named = found is not None and not found.is_global and self.owner_of(path)[1] in found.names
        return found.root if found is not None and named else ""

    def enter_fresh(self, given: Sequence[torch.Tensor]) -> None:
        """Forget what is known of some tensors, and keep their channels."""
        for tensor in given:
            self.pin(tensor, Kind.DATA_DEPENDENT)
            if self.recorder.parameter(tensor) is None:
                self.recorder.set(tensor, PLAIN)

    def check_fresh(self, tensors: Sequence[torch.Tensor]) -> None:
        """What a piece reads from before it began, without being given it, is fresh as well."""
        stale = [tensor for tensor in tensors if id(tensor) in self.older]
        self.enter_fresh(stale)
        self.older.difference_update(map(id, stale))

    def close(self) -> None:
        """Keep the channels that the last piece returned and nothing has taken over."""
        last, self.last = self.last, None
        for tensor in () if last is None else last.tensors:
            self.pin(tensor, Kind.DATA_CODE)

    # Ops between modules

    def takes_op(self, call: Call, frame: FrameType) -> bool:
        """Whether an op between two pieces belongs to them; if not, it keeps the channels that it touches."""
        tensors = call.tensors
        if self.last is not None and len(tensors) == 1 and (is_plain_activation(call) or is_flattening(call)):
            self.begun, self.root = site_of(network_frame(frame)), self.last.root
            is_named = self.begun is not None and last_name(self.begun).rstrip("_") in (call.name, *FLATTEN)
            handed = any(each is tensors[0] for each in self.last.tensors)
            if is_named and handed and self.pass_on("", tensors, self.begun):
                return True
        self.close()
        for tensor in tensors:
            self.pin(tensor, Kind.DATA_DEPENDENT)
        return False

    def took_op(self, outputs: Sequence[torch.Tensor]) -> None:
        """An op that belongs to two pieces was followed."""
        self.last = Piece("", self.begun, outputs, self.root)

    # The end

    def finish(self, alive: Sequence[Labels]) -> None:
        """The forward has ended: keep what modules hold beyond it, and the links that are not certain.

        Raises:
            TraceError: the run on data went another way.
        """
        self.broken |= self.failed or self.asked < len(self.run.answers)
        if self.broken or set(self.run.uses) != self.recorder.used.keys():
            self.broken = True
            raise TraceError("the forward does something else without data")
        for labels in alive:
            self.recorder.pin(labels, self.reason(Kind.DATA_DEPENDENT))
        self.check_links()
        self.whole = True

    def check_links(self) -> None:
        """Keep what is handed from module to module where other code names one of them that has not run."""
        self.close()
        for link in self.links:
            if not all(map(self.is_named_where_seen, link.paths)):
                for face in link.labels:
                    self.recorder.pin(face, Reason(Kind.DATA_CODE, link.place))

    def give_up(self, alive: Sequence[Labels]) -> None:
        """The trace ends before the forward does: keep what was followed last, and what the rest may read."""
        for labels in alive:
            self.recorder.pin(labels, self.reason(Kind.DATA_DEPENDENT))
        if self.inside is not None:
            self.recorder.pin(np.arange(self.first_label, self.recorder.size), self.reason(Kind.DATA_DEPENDENT))
            for link in self.links[-1:]:
                for face in link.labels:
                    self.recorder.pin(face, self.reason(Kind.DATA_DEPENDENT))
        self.check_links()

    def owner_of(self, path: str) -> tuple[str, str]:
        """The nearest module around a path whose class is not torch's, and the name in it that leads there."""
        above, _, name = path.rpartition(".")
        while above and (above not in self.modules or is_from_torch(type(self.modules[above]).__module__)):
            above, _, name = above.rpartition(".")
        return above, name

    def is_named_where_seen(self, path: str) -> bool:
        """Whether each place in the code that names a module is one at which it was called."""
        owner, name = self.owner_of(path)
        sites = self.sites.get((owner, name), set())
        around = {"", *(owner.rsplit(".", count)[0] for count in range(owner.count(".") + 1))}
        functions = [each for above in around & self.modules.keys() for each in functions_of(self.modules[above])]
        codes = reachable_code([*functions, *self.called_from.values()])
        return mentions(codes, name) <= len(sites)

    def watched(self, pinned: np.ndarray) -> tuple[str, ...]:
        """The modules that were followed whenever they ran, and return nothing that can be cut: what is `pinned`."""
        calls = Counter(path for path, _ in self.recorder.returned)
        whole = {
            path: all(faces and all(pinned[face].all() for face in faces) for faces in each)
            for path, each in self.returned.items()
        }
        return tuple(path for path, each in self.returned.items() if whole[path] and calls[path] == len(each))

    def unsteady(self) -> frozenset[str]:
        """The modules that were followed and do something else for another number of rows."""
        return frozenset(path for path, given in self.given.items() if depends_on_rows(self.modules[path], given))

    def pin(self, tensor: torch.Tensor, kind: Kind) -> None:
        """Keep the channels of a tensor."""
        self.recorder.pin_tensor(tensor, self.reason(kind))

    def reason(self, kind: Kind) -> Reason:
        """A reason that names the op from which on the forward depends on data."""
        return Reason(kind, self.stop or Place())


def holds_tensors_only(given: Any) -> bool:
    """Whether a call is given no numbers, nor tensors made of them, which may come from data."""
    return all(
        leaf.is_meta if isinstance(leaf, torch.Tensor) else leaf is None or isinstance(leaf, str)
        for leaf in pytree.tree_leaves(given)
    )


def is_plain_activation(call: Call) -> bool:
    """Whether an op is an activation without numbers, which may come from data."""
    given = [value for value in (*call.args, *call.kwargs.values()) if not isinstance(value, torch.Tensor | str)]
    return call.spec.activation and not given


def is_flattening(call: Call) -> bool:
    """Whether an op joins all axes but the first one."""
    before, after = call.tensors[0], call.outputs[0] if call.outputs else None
    return call.name in FLATTENING and after is not None and after.ndim == 2 and before.shape[0] == after.shape[0]
