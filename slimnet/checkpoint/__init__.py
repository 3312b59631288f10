"""Other people's checkpoints: found in their wrappers, read without running anything, fitted to a network."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slimnet.checkpoint import mismatch, unpickling
from slimnet.errors import CheckpointError
from slimnet.models.architecture import Architecture, build, reason

State = dict[str, torch.Tensor]

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "ema", "module")
"""The entries of a checkpoint that may hold its state dict, nested too; the first one found wins."""

# torch.optim.swa_utils.AveragedModel counts its updates beside the weights that it wraps.
BOOKKEEPING = ("n_averaged",)

# DenseNets were published while torch still allowed dots in module names ("norm.1" is "norm1" today).
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")


def load_checkpoint(path: str | os.PathLike[str], arch: str, arch_args: Mapping[str, Any] | None = None) -> nn.Module:
    """Build a network and fill it with the weights of a checkpoint, converted to the network's own types.

    `arch` and `arch_args` are those of `slimnet.models.build`; the module keeps the mode its factory sets.
    `num_batches_tracked`, which old checkpoints lack, may be missing; everything else must fit.

    Raises:
        CheckpointError: a file that cannot be read safely, does not fit the network, or holds NaN or Inf.
        ArchitectureError: the network cannot be built.
    """
    state = read_state_dict(path)
    model = build(arch, arch_args)
    wanted = mismatch.tensors_of(model)
    if any(map(nn.parameter.is_lazy, wanted.values())):
        raise CheckpointError(f"{path} cannot fill {arch}: it has lazy layers; give them their sizes")
    own_names = {bare: name for name, bare in bare_names(wanted).items()}
    given = {own_names.get(bare, bare): tensor for bare, tensor in state.items()}
    difference = mismatch.compare(mismatch.shapes(given), mismatch.shapes(wanted))
    if not difference.fits:
        problem = mismatch.explain(difference, mismatch.shapes(state), Architecture(arch, dict(arch_args or {})))
        raise CheckpointError(f"{path} {problem}")
    _check_values(path, given, wanted)
    try:
        model.load_state_dict(given, strict=False)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be loaded into {arch} ({reason(error)})") from error
    return model


def read_state_dict(path: str | os.PathLike[str]) -> State:
    """Read the tensors of a checkpoint onto the CPU by name, without running any code from the file.

    Takes what `torch.save` and safetensors write, told apart by content whatever the suffix, bare or in one
    of the usual `WRAPPERS`. Names come without what DataParallel (`module.`), `torch.compile` (`_orig_mod.`)
    and Lightning (`model.`, where every name has it) put before them.

    Raises:
        CheckpointError: no such file, not a checkpoint, damaged, or only readable by running code from it.
    """
    file = Path(path)
    state = _unwrap(file, unpickling.read(file))
    renamed = bare_names(state)
    return {renamed[name]: tensor for name, tensor in state.items()}


def bare_names(names: Mapping[str, Any]) -> dict[str, str]:
    """Map names in a state dict to names without wrappers' prefixes; to themselves where two collide."""
    bare = {name: re.sub(r"(?<![^.])(?:_orig_mod|module)\.", "", name) for name in names}
    while bare and all(name.startswith("model.") for name in bare.values()):
        bare = {name: short.removeprefix("model.") for name, short in bare.items()}
    bare = {name: OLD_DENSENET.sub(r"\1", short) for name, short in bare.items()}
    return bare if len(set(bare.values())) == len(bare) else {name: name for name in names}


def _unwrap(file: Path, content: Any) -> State:
    """The state dict in whatever a training script saved."""
    found = _find_state(content)
    if found is not None:
        return found
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file} holds {_described(content)}, not a state dict; save model.state_dict()")
    entries = mismatch.listed([str(key) for key in content]) or "none"
    raise CheckpointError(
        f"{file} holds no state dict: its entries are {entries}, "
        f"but weights are looked for in {', '.join(WRAPPERS)}; save {{'state_dict': model.state_dict()}}"
    )


def _find_state(content: Any) -> State | None:
    if not isinstance(content, Mapping):
        return None
    for wrapper in WRAPPERS:
        found = _find_state(content.get(wrapper))
        if found is not None:
            return found
    # Some scripts put the epoch and the like right beside the weights.
    tensors = {key: each for key, each in content.items() if isinstance(key, str) and torch.is_tensor(each)}
    return {key: each for key, each in tensors.items() if key not in BOOKKEEPING} or None


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
