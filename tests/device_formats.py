"""Cases of `test_elsewhere`: what is written of a network on a device, which nobody else need have."""

import zipfile

import pytest
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


def test_a_forward_that_names_its_device_is_told_what_to_do(tmp_path):
    model = killed(Named()).eval().to(HERE)
    with pytest.raises(slimnet.SlimnetError, match="let what it makes be on the device of its input") as caught:
        slimnet.export_onnx(model, IMAGES.to(HERE), tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)


def test_checkpoints_of_a_device_are_read_on_the_cpu(tmp_path):
    model = network().to(HERE)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "net.pt")
    again = slimnet.load_checkpoint(tmp_path / "net.pt", "basicnet", NETWORKS["basicnet"]).eval()
    assert is_same(model(IMAGES.to(HERE)), again(IMAGES))
