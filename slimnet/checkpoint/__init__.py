"""Other people's checkpoints: found in their wrappers, read without running anything, fitted to a network."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slimnet.checkpoint import mismatch, unpickling
from slimnet.checkpoint.weights import AVERAGES, WRAPPERS, State, Weights, bare_names, chosen, found_in, whole_networks
from slimnet.checkpoint.whole_modules import chosen_module, widened, with_states
from slimnet.errors import CheckpointError, reason
from slimnet.models.architecture import Architecture, build
from slimnet.torch_state.devices import real_by_default
from slimnet.torch_state.random_state import DRAWING


@dataclass(frozen=True)
class Loaded:
    """A network with the weights of a checkpoint.

    `place` says where its weights were: entries, then the beginning of their names. `left_out` are tensors beside
    them that belong to no such network; `note` is what somebody should know who did not choose the weights, in one
    line, or "".
    """

    model: nn.Module
    place: str
    left_out: tuple[str, ...] = ()
    note: str = ""


@torch.inference_mode(False)
def load_checkpoint(
    path: str | os.PathLike[str],
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    *,
    weights: str | None = None,
    trust: bool = False,
) -> nn.Module:
    """Build a network and fill it with the weights of a checkpoint, converted to the network's own types.

    `arch` and `arch_args` are those of `slimnet.models.build`; the module keeps the mode its factory sets.
    `num_batches_tracked`, which old checkpoints lack, may be missing; everything else must fit. A network that is part
    of a larger saved module (such as the attribute `net` of a LightningModule) is found if it is complete. `weights`
    chooses among several sets of weights: "ema" (a moving average), "plain" (the weights themselves, preferred by
    default), or the name of an entry or a prefix of names, such as "teacher".

    With `trust` a pickled whole module is read as well, which runs code that the file names. Its weights go into the
    network of `arch`; without `arch` the module itself is returned, in float32 if it was stored in 16 bits.

    Raises:
        CheckpointError: a file that cannot be read safely, does not fit the network, or holds NaN or Inf.
        ArchitectureError: the network cannot be built.
    """
    return read_checkpoint(path, arch, arch_args, weights=weights, trust=trust).model


def read_checkpoint(
    path: str | os.PathLike[str],
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    *,
    weights: str | None = None,
    trust: bool = False,
) -> Loaded:
    """The network that `load_checkpoint` returns, with what else the checkpoint held.

    Raises:
        CheckpointError, ArchitectureError: as `load_checkpoint`.
    """
    if arch is None:
        return _whole_module(Path(path), weights, trust=trust)
    content = unpickling.read(Path(path), trust=trust)
    found = _found(Path(path), with_states(content) if trust else content)
    # On the meta device, where it may be the default, there would be nothing to fill. Its first weights are drawn from
    # the process's generator, which another thread may be about to put back.
    with DRAWING, real_by_default():
        model = build(arch, arch_args)
    wanted = mismatch.tensors_of(model)
    if any(map(nn.parameter.is_lazy, wanted.values())):
        raise CheckpointError(f"{path} cannot fill {arch}: it has lazy layers; give them their sizes")
    own_names = {bare: name for name, bare in bare_names(wanted).items()}
    shapes = {bare: tuple(wanted[name].shape) for bare, name in own_names.items()}
    whole = [network for each in found for network in whole_networks(each, shapes)]
    if not whole:
        problem = _misfit(found[0], shapes, own_names, Architecture(arch, dict(arch_args or {})))
        raise CheckpointError(f"{path} {problem}")
    try:
        taken = chosen(whole, weights)
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from error
    given = {own_names[bare]: tensor for bare, tensor in taken.tensors.items()}
    _check_values(path, given, wanted)
    try:
        model.load_state_dict(given, strict=False)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be loaded into {arch} ({reason(error)})") from error
    left_out = _left_out(found, whole, taken)
    return Loaded(model, taken.place, left_out, _note(whole, taken, weights, left_out))


def _whole_module(path: Path, weights: str | None, *, trust: bool) -> Loaded:
    """The network that was pickled into a checkpoint."""
    if not trust:
        raise CheckpointError(
            f"{path}: name its network with arch=; if it is a pickled whole module, and you trust it, with trust=True"
        )
    try:
        taken, note = chosen_module(unpickling.read(path, trust=True), weights)
        notes = filter(None, (note, widened(taken.module)))
    except CheckpointError as error:
        text = str(error)
        raise CheckpointError(text if text.startswith(str(path)) else f"{path} {text}") from error
    state = mismatch.tensors_of(taken.module)
    _check_values(path, state, state)
    return Loaded(taken.module, taken.place, note="; ".join(notes))


def read_state_dict(path: str | os.PathLike[str]) -> State:
    """Read the tensors of a checkpoint onto the CPU by name, without running any code from the file.

    Files of `torch.save` and safetensors are distinguished by content, not by suffix; the tensors may be in one of the
    usual `WRAPPERS`. The prefixes of DataParallel (`module.`), `torch.compile` (`_orig_mod.`) and Lightning (`model.`,
    if every name has it) are removed from the names.

    Raises:
        CheckpointError: no such file, not a checkpoint, damaged, or only readable by running code from it.
    """
    return _found(Path(path), unpickling.read(Path(path)))[0].tensors


def _found(file: Path, content: Any) -> list[Weights]:
    """The state dicts in whatever a training script saved, the likeliest first."""
    try:
        found = found_in(content)
    except CheckpointError as error:
        raise CheckpointError(f"{file} {error}") from error
    if found:
        return found
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file} holds {_described(content)}, not a state dict; save model.state_dict()")
    entries = mismatch.listed([str(key) for key in content]) or "none"
    raise CheckpointError(
        f"{file} holds no state dict: its entries are {entries}, "
        f"but weights are looked for in {', '.join((*WRAPPERS, *AVERAGES))}; "
        "save {'state_dict': model.state_dict()}"
    )


def _misfit(weights: Weights, wanted: mismatch.Shapes, own_names: Mapping[str, str], architecture: Architecture) -> str:
    """How the likeliest weights fail to fit a network, by the network's own names."""
    bare = mismatch.shapes(weights.tensors)
    given = {own_names.get(name, name): shape for name, shape in bare.items()}
    difference = mismatch.compare(given, {own_names[name]: shape for name, shape in wanted.items()})
    return mismatch.explain(difference, bare, architecture)


def _left_out(found: list[Weights], whole: list[Weights], taken: Weights) -> tuple[str, ...]:
    """The tensors beside those taken, in the same state dict, that belong to no whole network."""
    used = {id(tensor) for network in whole for tensor in network.tensors.values()}
    mine = {id(tensor) for tensor in taken.tensors.values()}
    beside = [each for each in found if mine <= {id(tensor) for tensor in each.tensors.values()}]
    return tuple(name for each in beside for name, tensor in each.tensors.items() if id(tensor) not in used)


def _note(whole: list[Weights], taken: Weights, asked: str | None, left_out: tuple[str, ...]) -> str:
    """A note for users who did not choose which weights are loaded."""
    notes = []
    averages = [each.place for each in whole if each.averaged]
    if asked is None and taken.averaged:
        notes.append(f"took the averaged weights in {taken.place}: there are no plain ones")
    elif asked is None and averages:
        notes.append(f"took the plain weights, not the averaged ones in {mismatch.listed(averages)} (--weights ema)")
    if left_out:
        notes.append(f"took the network in {taken.place} and left out {mismatch.listed(left_out)}")
    return "; ".join(notes)


def _described(content: Any) -> str:
    return "a single tensor" if torch.is_tensor(content) else f"an object of type {type(content).__name__}"


def _check_values(path: str | os.PathLike[str], given: State, wanted: State) -> None:
    """Refuse tensors without numbers in them, or with other kinds of numbers than the network's."""
    damaged = []
    for name, tensor in given.items():
        if tensor.is_meta or tensor.layout is not torch.strided or tensor.is_quantized:
            raise CheckpointError(f"{path} holds {name} as a {_storage_kind(tensor)} tensor; save an ordinary one")
        if tensor.is_floating_point() != wanted[name].is_floating_point() or tensor.is_complex():
            raise CheckpointError(
                f"{path} holds {name} as {_type(tensor)} where the network has {_type(wanted[name])}; "
                "is it quantised? load the checkpoint it was made from"
            )
        bad = _not_finite(tensor)
        if bad:
            damaged.append(f"{name}: {bad} of {tensor.numel()} values")
    if damaged:
        raise CheckpointError(
            f"{path} holds NaN or Inf in {len(damaged)} of {len(given)} tensors "
            f"({mismatch.listed(damaged)}); take a checkpoint from before the training diverged"
        )


def _not_finite(tensor: torch.Tensor) -> int:
    """How many values of a tensor are NaN or infinite."""
    if not tensor.is_floating_point():
        return 0
    # 8-bit floating types know neither isfinite nor sum.
    wide = tensor.float() if tensor.element_size() == 1 else tensor
    return 0 if torch.isfinite(wide.sum()) else int((~torch.isfinite(wide)).sum())


def _storage_kind(tensor: torch.Tensor) -> str:
    if tensor.is_meta:
        return "meta (empty)"
    return "quantised" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
