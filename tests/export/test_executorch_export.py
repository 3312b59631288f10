"""Networks exported for ExecuTorch: what the file computes, and what is refused before anything is written."""

import json

import pytest
import slimnet_cli
import torch
from torch import nn

import slimnet
from slimnet.errors import ExportError, UsageError

pytest.importorskip("executorch")

EXAMPLE = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(5, 3)).eval()


def test_the_file_computes_what_the_network_does(tmp_path):
    """Oracle: the module, against the file as ExecuTorch's own interface reads it."""
    model, path = network(), tmp_path / "net.pte"
    export = slimnet.export_executorch(model, EXAMPLE, path)
    assert (export.path, export.size_bytes, export.inputs) == (path, path.stat().st_size, ((3, 12, 12),))
    # Only now: by itself its import warns about a dependency's own imports.
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")
    with torch.no_grad():
        torch.testing.assert_close(method.execute([EXAMPLE[:1]])[0], model(EXAMPLE[:1]), rtol=1e-4, atol=1e-6)
    assert "ExecuTorch with XNNPACK for single inputs of 3 × 12 × 12" in str(export)
    assert "\n" not in str(export)


class Split(nn.Module):
    """Two outputs with names."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"mean": images.mean((1, 2, 3)), "largest": images.amax((1, 2, 3))}


def test_named_outputs_are_in_their_order(tmp_path):
    export = slimnet.export_executorch(Split(), EXAMPLE, tmp_path / "net.pte")
    assert export.max_rel_difference is not None
    assert export.max_rel_difference < 1e-6


class Inverse(nn.Module):
    """An operator that ExecuTorch has not."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.linalg.inv(images)


def test_what_it_lacks_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ExportError, match=r"Inverse cannot be written for ExecuTorch: .*linalg_inv") as caught:
        slimnet.export_executorch(Inverse(), EXAMPLE, tmp_path / "net.pte")
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"net\.bin does not end in \.pte"):
        slimnet.export_executorch(network(), EXAMPLE, tmp_path / "net.bin")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_writes_it(tmp_path, capsys):
    arguments = '{"widths": [4, 6], "pool_after": [1], "hidden": 8}'
    torch.save(slimnet.build("basicnet", json.loads(arguments)).state_dict(), tmp_path / "a.pt")
    line = ["export", str(tmp_path / "a.pt"), "--arch", "basicnet", "--arch-args", arguments]
    assert slimnet_cli.run([*line, "-o", str(tmp_path / "net.pte"), "--dynamic-size"]) == 2
    assert "a file for executorch takes float32 of one size" in capsys.readouterr().err
    assert slimnet_cli.run([*line, "-o", str(tmp_path / "net.pte"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["size_bytes"] == (tmp_path / "net.pte").stat().st_size
