"""Which tensors of a checkpoint are a network's weights: they may be wrapped, prefixed, and there more than once."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from slimnet.checkpoint import mismatch
from slimnet.errors import CheckpointError, shown

State = dict[str, torch.Tensor]

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "module", "current_model_state")
"""The entries of a checkpoint that may hold its state dict, nested too, the likeliest first."""

AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "ema")
"""The entries that may hold a moving average of the weights."""

LIMIT_DICTIONARIES = 10_000
"""How many dictionaries of a checkpoint are looked into: shared ones can stand for billions."""

DEEPEST = 8
"""How deep entries are looked into; a dictionary may hold itself."""

# torch.optim.swa_utils.AveragedModel counts its updates beside the weights that it wraps.
BOOKKEEPING = ("n_averaged",)

# DenseNets were published while torch still allowed dots in module names ("norm.1" is "norm1" today).
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")

AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|averaged?)(?:$|[._])")
"""The part of a place that says that the weights there are an average."""


@dataclass(frozen=True)
class Weights:
    """The weights of one network by bare name, and where in a checkpoint they are: entry and start of their names."""

    entry: str
    start: str
    tensors: State

    @property
    def place(self) -> str:
        """Both in one, such as state_dict.net."""
        return ".".join(filter(None, (self.entry, self.start)))

    @property
    def averaged(self) -> bool:
        """Whether the place says that they are a moving average."""
        return AVERAGED.search(self.place) is not None


def bare_names(names: Mapping[str, Any]) -> dict[str, str]:
    """Map names in a state dict to names without wrappers' prefixes; to themselves where two collide."""
    bare = {name: re.sub(r"(?<![^.])(?:_orig_mod|module)\.", "", name) for name in names}
    while bare and all(name.startswith("model.") for name in bare.values()):
        bare = {name: short.removeprefix("model.") for name, short in bare.items()}
    bare = {name: OLD_DENSENET.sub(r"\1", short) for name, short in bare.items()}
    return bare if len(set(bare.values())) == len(bare) else {name: name for name in names}


def found_in(content: Any) -> list[Weights]:
    """Every state dict in whatever a training script saved, plain ones first, the likeliest first.

    Raises:
        CheckpointError: one holds a nested tensor, or there is no end of dictionaries.
    """
    found = []
    for place, tensors in _state_dicts(content, (), (), iter(range(LIMIT_DICTIONARIES))):
        renamed = bare_names(tensors)
        found.append(Weights(".".join(place), "", {renamed[name]: tensor for name, tensor in tensors.items()}))
    return sorted(found, key=lambda weights: weights.averaged)


def _state_dicts(
    content: Any, place: tuple[str, ...], around: tuple[int, ...], budget: Iterator[int]
) -> Iterator[tuple[tuple[str, ...], State]]:
    """The state dicts in an entry; `around` are the identities of the dictionaries that it is in.

    `budget` is used up as dictionaries are looked into.
    """
    # Followed into itself under every name, one dictionary would be looked into 13 ** DEEPEST times.
    if not isinstance(content, Mapping) or len(around) >= DEEPEST or id(content) in around:
        return
    if next(budget, None) is None:
        raise CheckpointError(f"holds more than {LIMIT_DICTIONARIES:,} nested dictionaries; save its weights alone")
    within = (*around, id(content))
    for entry in WRAPPERS:
        yield from _state_dicts(content.get(entry), (*place, entry), within, budget)
    tensors = _tensors_in(content)
    averages = [
        each for entry in AVERAGES for each in _state_dicts(content.get(entry), (*place, entry), within, budget)
    ]
    numbers_alone = not any(each.ndim for each in tensors.values())
    if tensors and not (averages and numbers_alone):
        yield place, tensors
    yield from averages


def _tensors_in(content: Mapping[Any, Any]) -> State:
    """The tensors right in a dictionary, without the epoch and the like that some scripts put beside the weights.

    Raises:
        CheckpointError: one is a nested tensor, which has no shape to compare.
    """
    tensors = {key: each for key, each in content.items() if isinstance(key, str) and torch.is_tensor(each)}
    nested = next((key for key, each in tensors.items() if each.is_nested), None)
    if nested is not None:
        raise CheckpointError(f"holds {nested} as a nested tensor; save an ordinary one")
    return {key: each for key, each in tensors.items() if key not in BOOKKEEPING}


def whole_networks(weights: Weights, wanted: mismatch.Shapes) -> list[Weights]:
    """The weights of every network with these shapes by bare name, under whatever beginning of names it is.

    Under its beginning there is nothing else but other such networks; beside it there may be: the weights of a loss.
    """
    starts = [start for start in _beginnings(weights.tensors, wanted) if _has_all(weights.tensors, start, wanted)]
    found = []
    for start in starts:
        others = tuple(other for other in starts if other.startswith(start) and other != start)
        own = {
            name.removeprefix(start): tensor
            for name, tensor in weights.tensors.items()
            if name.startswith(start) and not (others and name.startswith(others))
        }
        if mismatch.compare(mismatch.shapes(own), wanted).fits:
            found.append(Weights(weights.entry, start.removesuffix("."), own))
    return found


def _beginnings(tensors: State, wanted: mismatch.Shapes) -> list[str]:
    """What names begin with that end like one that the network must have."""
    needed = next((name for name in wanted if not name.endswith("num_batches_tracked")), None)
    if needed is None:
        return []
    starts = [name.removesuffix(needed) for name in tensors if name.endswith(needed)]
    return [start for start in starts if not start or start.endswith(".")]


def _has_all(tensors: State, start: str, wanted: mismatch.Shapes) -> bool:
    """Whether all tensors that the network must have are there, in their shapes, under a beginning of names."""
    given = {name: tuple(tensors[start + name].shape) for name in wanted if start + name in tensors}
    return mismatch.compare(given, wanted).fits


def chosen(whole: Sequence[Weights], asked: str | None) -> Weights:
    """Of all whole networks in a checkpoint the one that was asked for; where none was, one that is no average.

    "ema" asks for an average, "plain" for none, anything else for an entry or the beginning of names.

    Raises:
        CheckpointError: there is none of that name, or several.
    """
    matching = _matching(whole, asked)
    if not matching:
        raise CheckpointError(f"has no weights {shown(asked)} of this network, only those in {_places(whole)}")
    # Entries are looked for in the order of their likelihood; within one, nothing tells two networks apart.
    alike = [each for each in matching if each.entry == matching[0].entry]
    if len(alike) > 1 and all(each.start for each in alike):
        raise CheckpointError(
            f"has several networks that fit, in {_places(alike)}; say which with weights={alike[0].start!r} "
            f"(--weights {alike[0].start})"
        )
    return min(alike, key=lambda each: len(each.start))


def _matching(whole: Sequence[Weights], asked: str | None) -> Sequence[Weights]:
    """The networks that `asked` selects."""
    plain = [each for each in whole if not each.averaged]
    averaged = [each for each in whole if each.averaged]
    match asked:
        case None:
            return plain or averaged
        case "plain":
            return plain
        case "ema":
            return averaged
    return [each for each in whole if asked in (each.place, each.entry, each.start)]


def _places(networks: Sequence[Weights]) -> str:
    return mismatch.listed([each.place or "the file itself" for each in networks])
