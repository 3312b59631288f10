"""The certificate belongs to the weights that were measured: whatever is done to them afterwards is said."""

import copy
import dataclasses
import json
import shutil

import onnx
import pytest
import safetensors.torch
import slimnet_cli
import torch
from bundles import ARGS, SHAPE, basic_net, refusal, sign
from torch import nn

import slimnet
from slimnet.accuracy import Accuracy
from slimnet.benchmark import environment
from slimnet.bundle.model_card import figures
from slimnet.errors import BundleError, CertificateError, ChangedBundleError
from slimnet.modules.digest import BLOCK, tensor_digest, weights_digest
from slimnet.report import Report, render
from slimnet.slimmed import Slimmed
from slimnet.surgery.certificate_data import Certificate

SINCE = "trained since: not certified against the dense network"
ARCH = ("--arch", "basicnet", "--arch-args", json.dumps(ARGS))


def slimmed_net() -> Slimmed:
    return slimnet.slim(basic_net(), torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0)))


def trained(model: nn.Module, steps: int = 20) -> None:
    """Take some steps of SGD, in place."""
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    images = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimiser.zero_grad()
        model(images).square().mean().backward()
        optimiser.step()


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, operators_read_once):
    """A slim network that was trained further, and its bundle."""
    slimmed = slimmed_net()
    trained(slimmed.model)
    return slimmed, slimnet.save(slimmed, tmp_path_factory.mktemp("tuned") / "slim")


@pytest.fixture(scope="module")
def plain(tmp_path_factory, operators_read_once):
    """The bundle of a network as it was slimmed."""
    return slimnet.save(slimmed_net(), tmp_path_factory.mktemp("plain") / "slim")


def test_a_network_that_was_trained_since_is_saved_and_said_to_be_not_certified(tuned):
    slimmed, folder = tuned
    found = slimnet.verify_bundle(folder)
    assert not found.certified
    assert found.certificate.trained_since
    assert not found.certificate.holds
    assert str(found).splitlines()[-1].startswith(f"{SINCE}; as it was before that, largest relative output difference")
    assert "holds" not in str(found)
    assert (slimmed.certificate.holds, slimmed.current_certificate.holds) == (True, False)
    assert SINCE in str(slimmed)


def test_every_file_of_the_bundle_says_so_that_says_anything_about_it(tuned):
    _, folder = tuned
    assert json.loads((folder / "certificate.json").read_text())["holds"] is False
    metadata = {each.key: each.value for each in onnx.load(folder / "model.onnx").metadata_props}
    assert metadata["certificate"] == SINCE


def test_a_network_as_it_was_slimmed_is_certified_wherever_that_is_said(plain):
    found = slimnet.verify_bundle(plain, dense=basic_net())
    assert found.certified
    assert found.other_dense is False
    assert json.loads((plain / "certificate.json").read_text())["holds"] is True
    metadata = {each.key: each.value for each in onnx.load(plain / "model.onnx").metadata_props}
    assert metadata["certificate"] == "certificate holds"


def test_a_trained_network_does_not_compute_what_the_dense_one_does(tuned):
    message = refusal(CertificateError, slimnet.verify_bundle, tuned[1], dense=basic_net())
    assert "does not compute what the dense network does, for it was trained since" in message


def test_a_trained_network_that_still_computes_the_same_is_certified_by_being_measured_again(tmp_path):
    """Only a count of batches has changed, which evaluation does not read."""
    slimmed = slimmed_net()
    next(each for each in slimmed.model.modules() if isinstance(each, nn.BatchNorm2d)).num_batches_tracked += 1
    folder = slimnet.save(slimmed, tmp_path / "slim")
    assert not slimnet.verify_bundle(folder).certified
    found = slimnet.verify_bundle(folder, dense=basic_net())
    assert found.certified
    assert [line.partition(":")[0] for line in str(found).splitlines()[-2:]] == ["trained since", "measured again"]


def test_a_dense_network_other_than_the_slimmed_one_is_recognised(plain):
    """Oracle: in one the output is moved by a little, in the other by more than the tolerance."""
    near, far = basic_net(), basic_net()
    for network, shift in ((near, 1e-6), (far, 1.0)):
        [each for each in network.modules() if isinstance(each, nn.Linear)][-1].bias.data += shift
    found = slimnet.verify_bundle(plain, dense=near)
    assert found.other_dense
    assert found.measured.holds
    note = "the dense network given is not the one of the bundle's certificate: its weights differ"
    assert str(found).splitlines()[-1] == note
    assert refusal(CertificateError, slimnet.verify_bundle, plain, dense=far).endswith(note)


def test_weights_that_were_changed_together_with_everything_that_hashes_them_are_found(plain, tuned, tmp_path):
    """All three forms are those of the other bundle, and agree; the manifest's hashes are right."""
    folder = tmp_path / "slim"
    shutil.copytree(plain, folder)
    for name in ("model.safetensors", "model.pt2", "model.onnx"):
        shutil.copy(tuned[1] / name, folder)
    sign(folder)
    message = refusal(ChangedBundleError, slimnet.verify_bundle, folder)
    assert "holds other weights than those that certificate.json was measured on" in message
    assert slimnet_cli.run(["verify", str(folder)]) == 1


def test_a_certificate_that_names_no_weights_is_none(plain, tmp_path):
    folder = tmp_path / "slim"
    shutil.copytree(plain, folder)
    document = json.loads((folder / "certificate.json").read_text())
    del document["slim_weights"]
    (folder / "certificate.json").write_text(json.dumps(document))
    sign(folder)
    assert "slim_weights" in refusal(BundleError, slimnet.verify_bundle, folder)


def test_the_command_line_says_what_the_library_says(tuned, capsys):
    assert slimnet_cli.run(["verify", str(tuned[1])]) == 0
    assert SINCE in capsys.readouterr().out
    assert slimnet_cli.run(["verify", str(tuned[1]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["certified"], found["certificate"]["holds"]) == (False, False)


def test_pages_about_a_trained_network_do_not_say_that_it_is_the_same(tuned):
    slimmed, folder = tuned
    for certificate in (slimmed.current_certificate, slimnet.verify_bundle(folder).certificate):
        page = render(Report("slim", slimmed.plan, certificate, environment()))
        assert "Trained since: not certified against the dense network" in page
        assert "The certificate holds" not in page
        assert "The same network" not in page
        assert "before that, no output changed" in page


def test_benchmark_writes_such_a_page(tuned, tmp_path, capsys):
    torch.save(basic_net().state_dict(), tmp_path / "net.pt")
    shape = ("--input-shape", ",".join(map(str, SHAPE)))
    command = ["benchmark", str(tmp_path / "net.pt"), str(tuned[1]), *ARCH, *shape, "--seconds", "0.01"]
    assert slimnet_cli.run([*command, "--report", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Trained since: not certified" in page
    assert "The certificate holds" not in page
    capsys.readouterr()


def test_after_a_method_chose_channels_the_masked_network_is_what_it_is_not_certified_against():
    reference = "the dense network with the chosen channels at zero"
    certificate = dataclasses.replace(slimmed_net().certificate, reference=reference).for_weights("")
    assert str(certificate).startswith(f"trained since: not certified against {reference}; ")


def test_a_certificate_that_names_the_masked_network_as_it_was_named_before_is_read():
    certificate = dataclasses.replace(slimmed_net().certificate, reference="the silenced network")
    read = Certificate.from_json(certificate.to_json())
    assert read.reference == "the dense network with the chosen channels at zero"


def test_a_certificate_without_the_dense_accuracy_names_what_its_accuracies_are_of():
    """As bundles of earlier versions have it: the column of the network before the slimming stays empty."""
    reference, scores = (
        "the dense network with the chosen channels at zero",
        (Accuracy(0.7, 0.9, 50), Accuracy(0.8, 1, 50)),
    )
    certificate = dataclasses.replace(slimmed_net().certificate, reference=reference, accuracies=scores)
    stored = json.loads(certificate.to_json())
    del stored["dense_accuracy"]
    read = Certificate.from_json(json.dumps(stored))
    assert read == certificate
    assert "accuracy 80.00 %, that of the network it is compared with 70.00 %" in str(read)
    lines = figures(read).splitlines()
    assert "| Top-1 accuracy on 50 images | | 80.00 % | |" in lines
    assert lines[-1] == f"Differences are to {reference}. That network's accuracy is 70.00 %."


CHANGES = {
    "a value": lambda m: m[0].weight.data[0, 0, 0, 0].add_(1e-7),
    "a buffer": lambda m: m[1].running_mean.add_(1e-7),
    "a count": lambda m: m[1].num_batches_tracked.add_(1),
    "a sign of zero": lambda m: m[1].bias.data.neg_(),
    "a type": lambda m: m.half(),
    "a shape": lambda m: setattr(m[0], "weight", nn.Parameter(m[0].weight.data.reshape(4, 2, 9, 1))),
    "a name": lambda m: m.add_module("3", m._modules.pop("2")),
    "two values": lambda m: m[2].bias.data.copy_(m[2].bias.data.flip(0)),
}


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_changed_changes_the_digest(change):
    model = small()
    before = weights_digest(model)
    CHANGES[change](model)
    assert weights_digest(model) != before


def test_how_weights_are_laid_out_and_whether_they_are_trained_does_not():
    model = small()
    before = weights_digest(model)
    assert weights_digest(model.to(memory_format=torch.channels_last)) == before
    assert weights_digest(copy.deepcopy(model).requires_grad_(requires_grad=False).train()) == before
    model.load_state_dict(safetensors.torch.load(safetensors.torch.save(small().state_dict())))
    assert weights_digest(model) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64, torch.bool, torch.int8])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 4, 2, 2), (3, BLOCK // 2), (BLOCK + 3, 2)])
def test_a_tensor_has_one_digest_however_it_is_laid_out(shape, dtype):
    """Oracle: a contiguous copy; large tensors are hashed block by block."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    tensor = drawn > 0 if dtype is torch.bool else (100 * drawn).to(dtype)
    axes = tuple(reversed(range(tensor.ndim)))
    turned = tensor.permute(axes).contiguous().permute(axes)
    apart = torch.stack([tensor, tensor], -1)[..., 0]
    assert tensor_digest(turned) == tensor_digest(apart) == tensor_digest(tensor.clone())
    if tensor.numel() > 1:
        assert tensor_digest(tensor.flatten().flip(0).reshape(shape)) != tensor_digest(tensor)
