"""Cases of `test_elsewhere`: what is written of a network on a device, which nobody else need have."""

import json
import zipfile

import pytest
import slimnet_cli
import torch
from device_slimming import IMAGES, NETWORKS, Net, killed, network
from elsewhere import HERE, is_same

import slimnet

pytestmark = pytest.mark.usefixtures("operators_read_once")


def test_a_bundle_holds_the_network_and_nothing_of_its_device(tmp_path):
    dense = network().to(HERE)
    ours = slimnet.slim(dense, IMAGES.to(HERE))
    # Also for those who have set a default device.
    with HERE:
        folder = slimnet.save(ours, tmp_path / "bundle")
        assert slimnet.verify_bundle(folder, dense=dense).differences
    again = slimnet.load(folder)
    assert {each.device.type for each in again.state_dict().values()} == {"cpu"}
    assert is_same(ours.model(IMAGES.to(HERE)), again(IMAGES))
    word = HERE.type.encode() if HERE.type != "cuda" else b'"cuda"'
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    with zipfile.ZipFile(folder / "model.pt2") as archive:
        contents |= {name: archive.read(name) for name in archive.namelist()}
    assert [name for name, content in contents.items() if word in content] == []


class Named(Net):
    def between(self, hidden):
        return hidden * torch.ones(1, device=HERE)


def test_a_forward_that_names_its_device_gets_a_message_that_says_what_to_do(tmp_path):
    model = killed(Named()).eval().to(HERE)
    with pytest.raises(slimnet.SlimnetError, match="create its tensors on the device of the input") as caught:
        slimnet.export_onnx(model, IMAGES.to(HERE), tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)


def test_checkpoints_of_a_device_are_read_on_the_cpu(tmp_path):
    model = network().to(HERE)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "net.pt")
    again = slimnet.load_checkpoint(tmp_path / "net.pt", "basicnet", NETWORKS["basicnet"]).eval()
    assert is_same(model(IMAGES.to(HERE)), again(IMAGES))


def test_the_command_line_works_on_a_device_and_writes_nothing_of_it(tmp_path, capsys):
    """slim, to a budget too, verify and ladder; oracle: the same on the CPU."""
    path = tmp_path / "net.pt"
    arguments = {"widths": [8, 12], "pool_after": [1], "hidden": 16, "in_channels": 1}
    torch.manual_seed(0)
    torch.save(killed(slimnet.build("basicnet", arguments)).state_dict(), path)
    given = ["--arch", "basicnet", "--arch-args", json.dumps(arguments), "--data", "digits", "--json"]

    def printed(place: str, command: str, *more: object) -> dict:
        line = [command, *map(str, more), *given, "--device", place]
        assert slimnet_cli.run(line) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    for extra in ((), ("--target-macs", "0.5")):
        here, there = (
            printed(place, "slim", path, *extra, "-o", tmp_path / f"{place[:2]}-{len(extra)}")
            for place in (str(HERE), "cpu")
        )
        assert here["layers"] == there["layers"]
        assert here["accuracy"]["before"] == there["accuracy"]["before"]
        assert here["accuracy"]["after"]["top1"] == pytest.approx(there["accuracy"]["after"]["top1"], abs=0.02)
    bundle = tmp_path / f"{str(HERE)[:2]}-0"
    assert printed(str(HERE), "verify", bundle, "--dense", path)["measured"]["holds"]
    rungs = printed(str(HERE), "ladder", path, "--steps", "0.5", "-o", tmp_path / "rungs")["rungs"]
    assert [rung["name"] for rung in rungs] == ["dense", "exact", "macs-0.5"]
