"""What the export and bundle tests share: small networks with dead channels, and how a refusal must look."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from slimnet.bundle.bundle import save
from slimnet.errors import SlimnetError
from slimnet.models import build
from slimnet.pipeline import slim
from slimnet.shrinking.projection_record import ProjectionAt, ProjectionRecord
from slimnet.slimmed import Slimmed
from slimnet.training.analysis.metrics import batchnorm_scales
from slimnet.training.loop.shadow import removed_scales

FILES = ("certificate.json", "model.onnx", "model.pt2", "model.safetensors", "plan.json")
MANIFEST = "manifest.json"
ARGS = {"in_channels": 1, "width": 0.0625, "hidden": 8, "num_classes": 3}
SHAPE = (1, 8, 8)
HIDDEN = re.compile(r"\.[0-9a-f]{8}\.tmp")
"""The end of a staging place's name."""


class SmallNet(nn.Module):
    """One convolution, one BatchNorm, one linear layer."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.act, self.fc = nn.ReLU(), nn.Linear(width, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.fc(self.act(self.bn(self.conv(image))).mean((2, 3)))


class Tied(nn.Module):
    """Two layers with one weight, a buffer that state dicts leave out, and one that is no float."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(6)
        self.first, self.second = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
        self.second.weight = self.first.weight
        self.fc = nn.Linear(6, 3)
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0]), persistent=False)
        self.register_buffer("steps", torch.tensor(5))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(self.bn(self.conv(image)).relu()).relu()).relu()
        return self.fc(x.mean((2, 3))) * self.scale


def small_factory(width: int = 6) -> nn.Module:
    """A factory that a bundle can name as `bundles:small_factory`."""
    return SmallNet(width)


def images(batch: int = 3, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What `SmallNet` takes."""
    return torch.randn(batch, 2, 6, 6, generator=torch.Generator().manual_seed(seed)).to(dtype)


def lived_in(model: nn.Module, dead: float = 0.4) -> nn.Module:
    """The network with every parameter and statistic moved, and the first channels of every BatchNorm dead."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            width = len(module.weight)
            with torch.no_grad():
                module.weight.copy_(torch.rand(width, generator=generator) + 0.5)
                module.bias.copy_(torch.rand(width, generator=generator) - 0.5)
                module.running_mean.copy_(torch.randn(width, generator=generator) / 10)
                module.running_var.copy_(torch.rand(width, generator=generator) + 0.5)
                module.num_batches_tracked.fill_(7)
                module.weight[: round(dead * width)] = 1e-6
    return model


def small_net(seed: int = 0) -> nn.Module:
    """A `SmallNet` in evaluation mode with two of its six channels dead."""
    torch.manual_seed(seed)
    return lived_in(SmallNet()).eval()


def basic_net(seed: int = 0) -> nn.Module:
    """A narrow BasicNet, which a bundle can build again by name."""
    torch.manual_seed(seed)
    return lived_in(build("basicnet", ARGS)).eval()


def tied_net() -> nn.Module:
    """A `Tied` in evaluation mode with dead channels."""
    torch.manual_seed(0)
    return lived_in(Tied()).eval()


def coded_net() -> nn.Module:
    """A network of a factory that a bundle names and `load` does not run."""
    torch.manual_seed(0)
    return lived_in(build("bundles:small_factory", {"width": 5})).eval()


@dataclass(frozen=True)
class Made:
    """A bundle, what it was made from, and what that and the random numbers were before (and after)."""

    folder: Path
    slimmed: Slimmed
    dense: nn.Module
    before: dict[str, Any]
    random: tuple[torch.Tensor, torch.Tensor]


def make(
    dense: nn.Module,
    example: Any,
    folder: Path,
    source: str | None = None,
    tolerance: float = 1e-4,
    *,
    shrunk: bool = False,
) -> Made:
    """Slim a network and save the bundle; as that of a training that set removed channels to zero, if `shrunk`."""
    slimmed = slim(dense, example, tolerance=tolerance)
    before, random = snapshot(slimmed.model), torch.get_rng_state()
    save(slimmed, folder, source=source, projections=projections_of(slimmed) if shrunk else None)
    return Made(folder, slimmed, dense, before, (random, torch.get_rng_state()))


def projections_of(slimmed: Slimmed) -> ProjectionRecord:
    """A record of a training that set what was removed from each γ to zero at once."""
    removed = removed_scales(slimmed.plan, [f"{name}.weight" for name in batchnorm_scales(slimmed.model)])
    cut = ProjectionAt(500, removed, 1e-6, 5e-4, 1e-5, 1e-6)
    return ProjectionRecord(1e-3, 1e-3, 3, 16, (cut,))


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything about a module that nobody may change: values, modes, gradients, hooks."""
    return {
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "identity": [id(tensor) for tensor in (*model.parameters(), *model.buffers())],
        "grad": [(name, p.requires_grad, p.grad is None) for name, p in model.named_parameters()],
        "modes": {path: module.training for path, module in model.named_modules()},
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
    }


def assert_same_snapshot(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Check that nothing of a module has changed."""
    assert_same_state(before["state"], after["state"])
    for key in ("identity", "grad", "modes", "hooks", "attributes"):
        assert before[key] == after[key], key


def assert_same_state(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    """Check two state dicts for the same names, types and bits."""
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype, name
        assert torch.equal(tensor, right[name]), name


def refusal(kind: type[SlimnetError], call: Any, *arguments: Any, **options: Any) -> str:
    """The one line with which a call is refused; it names no hidden staging place."""
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    assert not HIDDEN.search(message)
    return message


def everything(folder: Path) -> dict[str, str | None]:
    """Every file below a folder with its SHA-256, hidden ones too; None for folders."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
    }


def sign(folder: Path) -> None:
    """Make the manifest of a bundle true again, as somebody who means harm would."""
    document = json.loads((folder / MANIFEST).read_text())
    del document["digest"]
    for entry in document["files"]:
        content = (folder / entry["name"]).read_bytes()
        entry |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(document | {"digest": digest}, sort_keys=True, indent=1) + "\n")


def forge(folder: Path, name: str, change: Any) -> None:
    """Change a JSON file of a bundle in place, or to what `change(document)` returns, and sign the bundle again."""
    document = json.loads((folder / name).read_text())
    other = change(document)
    (folder / name).write_text(json.dumps(document if other is None else other))
    sign(folder)


def onnx_file(path: Path) -> Path:
    """A convolution, a transposed one, a Gemm, a MatMul with a weight, and one of two activations."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], strides=[2, 2], group=2),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("ConvTranspose", ["b", "w2"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "w3"], ["e"], transB=1),
        helper.make_node("MatMul", ["e", "w4"], ["f"]),
        helper.make_node("Transpose", ["f"], ["g"], perm=[1, 0]),
        helper.make_node("MatMul", ["f", "g"], ["y"]),
    ]
    weights = [weight("w1", 6, 2, 3, 3), weight("w2", 6, 2, 2, 2), weight("w3", 7, 50), weight("w4", 7, 3)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 9, 9])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, path)
    return path
