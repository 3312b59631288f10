"""The blueprint of a bundle, `plan.json`: everything except the weights that is needed to build a slim network."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from slimnet.bundle.input_spec import describe_inputs
from slimnet.bundle.manifest import json_object
from slimnet.data.image_spec import ImageSpec, images_of, record_images
from slimnet.errors import ArchitectureError, BundleError, reason
from slimnet.models.architecture import Architecture
from slimnet.modules.copying import shared_copy
from slimnet.modules.digest import owned_tensors
from slimnet.slimmed import Slimmed
from slimnet.storage.files import open_file
from slimnet.storage.folder_names import REMAKE
from slimnet.storage.records import build
from slimnet.surgery.apply_plan import apply_plan
from slimnet.surgery.plan import SurgeryPlan

FORMAT = 1
"""The version of `plan.json`."""


@dataclass(frozen=True)
class BlueprintParts:
    """The fields of `plan.json` besides the plan and the inputs; `architecture` is that of `Architecture.to_json`."""

    architecture: Any
    frozen: tuple[str, ...]
    training: tuple[str, ...]
    images: ImageSpec | None = None
    dynamic_size: bool = False


@dataclass(frozen=True)
class Blueprint:
    """An architecture reference, the plan, and the remaining state of the network besides its weights.

    `architecture` is None for a network that was not built by `slimnet.build`. `inputs` describes the example inputs
    (`input_spec`), `frozen` are the parameters that do not require a gradient, `training` the submodules in train
    mode. `images` is how images become inputs, if that is known, and `dynamic_size` whether the exported forms take
    images of any height and width.
    """

    architecture: Architecture | None
    plan: SurgeryPlan
    inputs: Mapping[str, Any]
    frozen: tuple[str, ...]
    training: tuple[str, ...]
    images: ImageSpec | None = None
    dynamic_size: bool = False

    @classmethod
    def of(cls, slimmed: Slimmed, images: ImageSpec | None = None, *, dynamic_size: bool = False) -> "Blueprint":
        """The blueprint of a slim network; `images` are those recorded on it if none are given.

        Raises:
            BundleError: an example input cannot be described.
            PlanError: the network was cut several times, by plans that do not compose.
        """
        return cls(
            slimmed.architecture,
            slimmed.whole_plan,
            describe_inputs(slimmed.example_inputs),
            tuple(name for name, parameter in slimmed.model.named_parameters() if not parameter.requires_grad),
            tuple(path for path, module in slimmed.model.named_modules() if module.training),
            images or images_of(slimmed.model),
            dynamic_size,
        )

    def write(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            ArchitectureError: an argument of the architecture cannot be represented in JSON.
        """
        document = {
            "format": FORMAT,
            "architecture": self.architecture.to_json() if self.architecture else None,
            "inputs": self.inputs,
            "frozen": self.frozen,
            "training": self.training,
            "images": asdict(self.images) if self.images else None,
            "dynamic_size": self.dynamic_size,
            "plan": json.loads(self.plan.to_json()),
        }
        path.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Blueprint":
        """Read a blueprint from an untrusted file.

        Raises:
            BundleError: it is not a blueprint.
            PlanError: its plan is invalid.
        """
        data = json_object(path)
        if data.pop("format", None) != FORMAT or not isinstance(data.get("inputs"), dict):
            raise BundleError(f"{path} is not a plan.json of format {FORMAT}; {REMAKE}")
        if any(not text.isprintable() for key, part in data.items() if key != "inputs" for text in texts_in(part)):
            raise BundleError(f"{path} holds a name that cannot be printed; {REMAKE}")
        plan, inputs = data.pop("plan", None), data.pop("inputs")
        parts = build(BlueprintParts, data, str(path), BundleError, advice=REMAKE)
        try:
            architecture = None if parts.architecture is None else Architecture.from_json(parts.architecture)
        except ArchitectureError as error:
            raise BundleError(f"{path}: {reason(error)}") from error
        plan = SurgeryPlan.from_data(plan)
        return cls(architecture, plan, inputs, parts.frozen, parts.training, parts.images, parts.dynamic_size)

    def build(self, dense: nn.Module, weights: Path) -> nn.Module:
        """The slim network: the plan applied to a fresh dense network, with the weights of a safetensors file.

        Raises:
            BundleError: the weights are not those of this network.
            PlanError: `dense` is not the network for which the plan was made.
        """
        return self.restored(weights_into(apply_plan(dense, self.plan), weights))

    def restored(self, slim: nn.Module) -> nn.Module:
        """The network with the saved modes, `requires_grad`, and what its images are."""
        record_images(slim, self.images)
        training = set(self.training)
        for path, module in slim.named_modules():
            module.training = path in training
        frozen = set(self.frozen)
        for name, parameter in slim.named_parameters():
            if parameter.is_floating_point() or parameter.is_complex():
                parameter.requires_grad_(name not in frozen)
        return slim


def texts_in(data: Any) -> Iterator[str]:
    """Every text in nested JSON data, including keys."""
    waiting = [data]
    while waiting:
        match waiting.pop():
            case str() as text:
                yield text
            case dict() as mapping:
                waiting += [*mapping.keys(), *mapping.values()]
            case list() as items:
                waiting += items


def write_weights(model: nn.Module, path: Path) -> None:
    """Write parameters and buffers as safetensors; shared tensors are written separately."""
    tensors = owned_tensors(model).items()
    # Not by safetensors' own writer, which makes the file readable by its owner only.
    path.write_bytes(to_bytes({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors}))


def weights_into(model: nn.Module, path: Path) -> nn.Module:
    """A copy of a module with the weights of a safetensors file.

    Raises:
        BundleError: they are not those of this module.
    """
    stored, wanted = read_weights(path), owned_tensors(model)
    for name in sorted(stored.keys() ^ wanted.keys()):
        raise BundleError(f"{path} {'lacks' if name in wanted else 'has an unknown'} {name}; {REMAKE}")
    for name, tensor in stored.items():
        if tensor.shape != wanted[name].shape:
            shapes = tuple(tensor.shape), tuple(wanted[name].shape)
            raise BundleError(f"{path} holds {name} of shape {shapes[0]}, the plan makes it {shapes[1]}")
    return shared_copy(model, stored)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors that `write_weights` wrote.

    Raises:
        BundleError: it is not a safetensors file.
    """
    try:
        with open_file(path):
            return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path} cannot be read ({reason(error)}); {REMAKE}") from error
