"""How a checkpoint and a network differ, and what that most likely means, in one line."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import nn

from slimnet import compat
from slimnet.errors import UsageError
from slimnet.models.architecture import BUILTIN_ARCHITECTURES, Architecture

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

SHOWN = 4
"""How many names a message lists."""


@dataclass(frozen=True)
class Mismatch:
    """The tensors in which a checkpoint differs from a network."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: dict[str, tuple[Shape, Shape]]
    matching: int

    @property
    def fits(self) -> bool:
        """Whether there is no difference."""
        return not (self.missing or self.unexpected or self.misshapen)

    @property
    def share(self) -> float:
        """The part of all the names, from 0 to 1, that agree in name and shape."""
        differing = len(self.missing) + len(self.unexpected) + len(self.misshapen)
        return self.matching / max(1, self.matching + differing)

    @property
    def classes(self) -> tuple[int, int] | None:
        """The number of outputs that the checkpoint and the network have, where only that differs."""
        if self.missing or self.unexpected or not self.misshapen:
            return None
        lengths = {(given[:1], wanted[:1]) for given, wanted in self.misshapen.values()}
        same_rest = all(given[1:] == wanted[1:] for given, wanted in self.misshapen.values())
        (given, wanted), *others = lengths
        return (given[0], wanted[0]) if same_rest and not others and given and wanted else None

    @property
    def narrower(self) -> bool:
        """Whether the checkpoint has the network's tensors, but smaller ones."""
        return (
            not (self.missing or self.unexpected)
            and len(self.misshapen) > 2
            and all(
                len(given) == len(wanted) and all(a <= b for a, b in zip(given, wanted, strict=True))
                for given, wanted in self.misshapen.values()
            )
        )


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a module's state dict (which may also hold other things)."""
    return {name: value for name, value in model.state_dict().items() if torch.is_tensor(value)}


def shapes(state: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    """The shape of every tensor by name."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def compare(given: Shapes, wanted: Shapes) -> Mismatch:
    """Compare a checkpoint's tensors with a network's; `num_batches_tracked` may be missing."""
    common = [name for name in given if name in wanted]
    misshapen = {name: (given[name], wanted[name]) for name in common if given[name] != wanted[name]}
    return Mismatch(
        missing=tuple(n for n in wanted if n not in given and not n.endswith("num_batches_tracked")),
        unexpected=tuple(name for name in given if name not in wanted),
        misshapen=misshapen,
        matching=len(common) - len(misshapen),
    )


def explain(difference: Mismatch, given: Shapes, architecture: Architecture) -> str:
    """Say in one line how a checkpoint with the shapes `given` fails to fit, and what would fit it."""
    if difference.classes is not None:
        return _other_classes(difference.classes, given, architecture)
    fitting = next(_fitting(given, architecture, everywhere=difference.share < 0.9), None)
    if fitting is not None:
        return f"looks like another architecture than {architecture}: it fits {_as_options(fitting)}"
    if difference.narrower:
        return (
            f"has the tensors of {architecture} but narrower ones ({listed(_shaped(difference))}); "
            "say its width in --arch-args, or load the bundle of a slimmed network with slimnet.load"
        )
    what = _lists(difference)
    if difference.share < 0.5:
        return f"looks like another architecture than {architecture}, {difference.matching} tensors fit: {what}"
    return f"does not fit {architecture}: {what}"


def _other_classes(classes: tuple[int, int], given: Shapes, architecture: Architecture) -> str:
    theirs, ours = classes
    larger = Architecture(architecture.name, {**architecture.args, "num_classes": theirs})
    wanted = _shapes_of(larger)
    if wanted is not None and compare(given, wanted).fits:
        option = f"--arch-args '{json.dumps(larger.args)}'"
        return f"has {theirs} classes where {architecture} has {ours}; use {option}"
    heads = listed([f"{name} is {_times(shape)}" for name, shape in given.items() if shape[:1] == (theirs,)])
    return f"has {theirs} outputs where {architecture} has {ours} ({heads}); say so in --arch-args"


def _fitting(given: Shapes, architecture: Architecture, everywhere: bool) -> Iterator[Architecture]:
    """The architectures that a checkpoint fits, perhaps with another number of classes."""
    for candidate in chain(_own(), _family(architecture) if everywhere else ()):
        wanted = _shapes_of(candidate)
        if wanted is None:
            continue
        difference = compare(given, wanted)
        if difference.fits:
            yield candidate
        elif difference.classes is not None:
            yield Architecture(candidate.name, {**candidate.args, "num_classes": difference.classes[0]})


def _own() -> Iterator[Architecture]:
    """The networks that come with slimnet."""
    for name in BUILTIN_ARCHITECTURES:
        yield Architecture(name)
        if name.startswith("resnet"):
            yield Architecture(name, {"shortcut": "B"})


def _family(architecture: Architecture) -> Iterator[Architecture]:
    """torchvision's networks whose names begin with the same letters; building them takes seconds."""
    family = re.match("[a-z]*", architecture.name.rpartition(":")[2].lower())
    try:
        models = compat.torchvision().models
    except UsageError:
        return
    for name in models.list_models(module=models):
        if family is not None and family[0] and name.startswith(family[0]):
            yield Architecture(f"torchvision:{name}")


def _shapes_of(architecture: Architecture) -> dict[str, Shape] | None:
    """The shapes of an architecture's tensors, from a network without memory; None if it cannot be built."""
    try:
        with torch.device("meta"):
            return shapes(tensors_of(architecture.build()))
    except UsageError:
        return None


def _as_options(architecture: Architecture) -> str:
    if not architecture.args:
        return architecture.name
    return f"{architecture.name} with --arch-args '{json.dumps(architecture.args)}'"


def _lists(difference: Mismatch) -> str:
    """The kinds of difference with their names, the shortest list first."""
    shaped = _shaped(difference)
    kinds = {"missing": difference.missing, "unexpected": difference.unexpected, "misshapen": shaped}
    parts = [f"{len(names)} {kind} ({listed(names)})" for kind, names in kinds.items() if names]
    return "; ".join(sorted(parts, key=lambda part: int(part.split()[0])))


def _shaped(difference: Mismatch) -> list[str]:
    return [f"{name} is {_times(a)}, not {_times(b)}" for name, (a, b) in difference.misshapen.items()]


def listed(names: Sequence[str]) -> str:
    """The first few names and how many follow."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _times(shape: Shape) -> str:
    return "×".join(map(str, shape)) or "a single number"
