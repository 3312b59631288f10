"""Bundles: what is saved comes back bit for bit, whole or not at all, and without a line of somebody else's code."""

import dataclasses
import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from bundles import (
    FILES,
    MANIFEST,
    SHAPE,
    SmallNet,
    Tied,
    assert_same_snapshot,
    assert_same_state,
    basic_net,
    coded_net,
    everything,
    images,
    lived_in,
    make,
    refusal,
    small_net,
    snapshot,
)
from processes import LONGEST_WAIT
from torch import nn

import slimnet
from slimnet.bundle import bundle
from slimnet.bundle.bundle import load, save, verify_bundle
from slimnet.errors import BundleError, ExportError, SlimnetError
from slimnet.export.capture import private_copy
from slimnet.models.basicnet import BasicNet
from slimnet.modules.example_inputs import Inputs
from slimnet.pipeline import slim

pytestmark = pytest.mark.usefixtures("operators_read_once")


def run(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(x)


def test_outputs_and_weights_come_back_bit_for_bit(basic):
    loaded, x = load(basic.folder), torch.randn(5, *SHAPE)
    assert_same_state(basic.slimmed.model.state_dict(), loaded.state_dict())
    assert type(loaded) is BasicNet
    assert torch.equal(run(loaded.eval(), x), run(private_copy(basic.slimmed.model), x))


def test_every_mode_and_every_frozen_parameter_comes_back(basic):
    loaded = load(basic.folder)
    wanted, found = snapshot(basic.slimmed.model), snapshot(loaded)
    assert found["modes"] == wanted["modes"]
    assert set(found["modes"].values()) == {True, False}
    assert found["grad"] == wanted["grad"]
    assert [name for name, needed, _ in found["grad"] if not needed] == ["features.conv3.weight"]


def test_the_loaded_network_can_be_trained_on(basic):
    loaded = load(basic.folder)
    loaded(torch.randn(4, *SHAPE)).sum().backward()
    assert loaded.features.conv1.weight.grad is not None
    assert loaded.features.conv3.weight.grad is None


def test_the_loaded_network_knows_its_architecture_and_what_it_takes(basic):
    blueprint = bundle.read_blueprint(basic.folder)
    assert blueprint.architecture == basic.slimmed.architecture
    assert blueprint.plan == basic.slimmed.plan


def test_shared_parameters_and_hidden_buffers_come_back(nameless):
    fresh = Tied()
    fresh.scale.zero_()
    loaded = load(nameless.folder, fresh)
    assert loaded.first.weight is loaded.second.weight
    assert loaded.scale.tolist() == [1, 2, 3]
    assert loaded.steps.dtype == torch.int64
    assert torch.equal(run(loaded, images(7)), run(nameless.slimmed.model, images(7)))


def test_half_precision_comes_back(tmp_path):
    made = make(small_net().half(), images(dtype=torch.float16), tmp_path / "slim", tolerance=1e-2)
    loaded = load(made.folder, SmallNet())
    assert_same_state(made.slimmed.model.state_dict(), loaded.state_dict())
    assert verify_bundle(made.folder).certificate.dtype == "float16"


def test_double_precision_comes_back(tmp_path):
    """Without a convolution, which onnxruntime has not in double precision."""
    torch.manual_seed(0)
    layers = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)
    made = make(lived_in(nn.Sequential(*layers)).double().eval(), torch.randn(3, 4).double(), tmp_path / "slim")
    loaded = load(made.folder, nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)))
    assert_same_state(made.slimmed.model.state_dict(), loaded.state_dict())
    assert made.slimmed.plan.removed_channels == 2


def test_saving_leaves_the_network_and_the_random_numbers_alone(basic, nameless):
    for made in (basic, nameless):
        assert_same_snapshot(made.before, snapshot(made.slimmed.model))
        assert torch.equal(*made.random)


def test_loading_and_verifying_draw_no_random_numbers(basic):
    random = torch.get_rng_state()
    load(basic.folder)
    verify_bundle(basic.folder)
    assert torch.equal(torch.get_rng_state(), random)


def test_the_files_are_these(basic, nameless, coded):
    for made in (basic, nameless, coded):
        assert set(everything(made.folder.parent)) == {"slim", *(f"slim/{name}" for name in (*FILES, MANIFEST))}


def test_the_manifest_names_every_file_with_its_hash(basic):
    document = json.loads((basic.folder / MANIFEST).read_text())
    content = {name: (basic.folder / name).read_bytes() for name in FILES}
    found = {each["name"]: (each["sha256"], each["size"]) for each in document["files"]}
    assert found == {name: (hashlib.sha256(data).hexdigest(), len(data)) for name, data in content.items()}
    assert document["source"] == "resnet.th"
    assert document["plan_digest"] == basic.slimmed.plan.digest
    assert document["versions"]["torch"] == torch.__version__
    assert document["versions"]["slimnet"] == slimnet.__version__


def test_the_weights_are_those_of_the_network(basic, nameless):
    """Oracle: safetensors by itself. Shared weights are stored once."""
    stored = safetensors.torch.load_file(basic.folder / "model.safetensors")
    assert_same_state(stored, basic.slimmed.model.state_dict())
    stored = safetensors.torch.load_file(nameless.folder / "model.safetensors")
    assert set(nameless.slimmed.model.state_dict()) | {"scale"} == set(stored) | {"second.weight"}
    assert "second.weight" not in stored


def test_the_onnx_model_runs_by_itself_and_says_where_it_is_from(basic):
    model = onnx.load(basic.folder / "model.onnx")
    onnx.checker.check_model(model)
    found = {each.key: each.value for each in model.metadata_props}
    assert found["plan_digest"] == basic.slimmed.plan.digest
    assert found["source"] == "resnet.th"
    session = onnxruntime.InferenceSession(str(basic.folder / "model.onnx"), providers=["CPUExecutionProvider"])
    x = torch.randn(7, *SHAPE)
    (actual,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(actual), run(load(basic.folder).eval(), x))


def test_the_exported_program_runs_without_our_classes(coded, monkeypatch):
    """Oracle: torch.export.load where neither slimnet nor the network's own code can be imported."""
    expected = run(coded.slimmed.model, images(7))
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("slimnet", "bundles"):
            monkeypatch.setitem(sys.modules, name, None)
    program = torch.export.load(coded.folder / "model.pt2").module()
    assert torch.equal(run(program, images(7)), expected)


@pytest.mark.parametrize("also_verify", [False, True])
def test_nothing_is_unpickled(basic, also_verify, monkeypatch):
    def poisoned(*_, **__):
        raise AssertionError("a pickle was read")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, poisoned)
    load(basic.folder)
    if also_verify:
        verify_bundle(basic.folder)


def test_nothing_of_the_machine_is_in_a_bundle(basic):
    root, home = Path(__file__).parents[2], Path.home()
    for name in (*FILES, MANIFEST):
        content = (basic.folder / name).read_bytes()
        for place in (root, home, basic.folder.parent, os.path.dirname(torch.__file__)):
            assert str(place).encode() not in content, name


def test_the_certificate_is_that_of_the_network(basic):
    """Oracle: the outputs of the dense network, measured here."""
    document = json.loads((basic.folder / "certificate.json").read_text())
    assert document["params_after"] == sum(p.numel() for p in load(basic.folder).parameters())
    assert document["params_before"] == sum(p.numel() for p in basic.dense.parameters())
    assert document["holds"] is True
    (x,) = basic.slimmed.example_inputs.tensors
    expected, actual = run(private_copy(basic.dense), x), run(load(basic.folder).eval(), x)
    assert document["max_abs_difference"] == pytest.approx((expected - actual).abs().max().item(), abs=1e-6)


def test_a_bundle_can_be_saved_where_an_empty_folder_is(nameless, tmp_path, monkeypatch):
    """The forms are taken from the bundle that is there, to save time."""
    reuse_exports(monkeypatch, nameless.folder)
    (tmp_path / "slim").mkdir()
    assert save(nameless.slimmed, str(tmp_path / "slim")) == tmp_path / "slim"
    assert set(everything(tmp_path / "slim")) == {*FILES, MANIFEST}


def reuse_exports(monkeypatch, folder: Path) -> None:
    """Let `save` copy the exported forms of a bundle instead of making them again."""

    def write(_, staging: Path, *__) -> None:
        for name in ("model.pt2", "model.onnx"):
            (staging / name).write_bytes((folder / name).read_bytes())

    monkeypatch.setattr(bundle, "write_exports", write)


@pytest.mark.parametrize("there", ["file", "full folder"])
def test_what_is_there_already_is_left_alone(there, nameless, tmp_path, monkeypatch):
    """Before any work is done."""
    monkeypatch.setattr(bundle, "write_parts", None)
    target = tmp_path / "slim"
    if there == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine").write_text("mine")
    before = everything(tmp_path)
    assert str(target) in refusal(BundleError, save, nameless.slimmed, target)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_disk_that_fills_up_at_any_file_leaves_nothing(name, nameless, tmp_path, monkeypatch):
    real = Path.open

    def full(self: Path, mode: str = "r", *arguments, **options):
        if self.name == name and "w" in mode:
            raise OSError(28, "No space left on device", str(self))
        return real(self, mode, *arguments, **options)

    reuse_exports(monkeypatch, nameless.folder)
    monkeypatch.setattr(Path, "open", full)
    message = refusal(BundleError, save, nameless.slimmed, tmp_path / "slim")
    assert message.startswith(f"cannot write {tmp_path / 'slim'}: No space left on device")
    assert everything(tmp_path) == {}


CHILD = """
import os, resource, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from bundles import images, small_net
from slimnet import SlimnetError, save, slim
from slimnet.bundle import bundle
slimmed, folder = slim(small_net(), images()), Path(sys.argv[1])
if not (child := os.fork()):
    bundle.write_exports = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    save(slimmed, folder / "killed")
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
(left,) = folder.iterdir()
assert left.name.startswith(".killed.") and list(left.iterdir())
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    save(slimmed, folder / "full")
except SlimnetError as error:
    print(f"{type(error).__name__}: {error}")
"""


def test_a_process_that_is_killed_and_files_that_may_not_grow_leave_no_bundle(tmp_path):
    """Killed once its first files are there, which the next save removes; and the system lets no file grow over 3,000
    bytes.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1] / "support"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LONGEST_WAIT)
    assert process.stdout == (
        f"BundleError: cannot write {tmp_path / 'full'}: File too large; free disk space, or choose another path\n"
    ), process.stderr
    assert list(tmp_path.iterdir()) == []
    assert "is not a bundle" in refusal(BundleError, load, tmp_path / "killed")


def changed(model: nn.Module, how: str) -> nn.Module:
    """A network that is no longer what its architecture builds."""
    if how == "one weight more":
        model.register_buffer("more", torch.zeros(3))
    elif how == "one bias less":
        model.fc.bias = None
    else:
        model.act = nn.Tanh()
    return model


@pytest.mark.parametrize("how", ["one weight more", "one bias less", "another activation"])
def test_a_network_that_its_architecture_would_not_build_is_refused(how, tmp_path):
    message = refusal(SlimnetError, save, slim(changed(coded_net(), how), images()), tmp_path / "slim")
    if how == "another activation":
        assert message.startswith(f"{tmp_path / 'slim'}: model.safetensors differs from the network by ")
    else:
        assert message.startswith("the network is not what bundles:small_factory (width=5) builds (")
    assert everything(tmp_path) == {}


def test_weights_that_became_one_after_the_network_was_built_are_refused(tmp_path, monkeypatch):
    """Before any form is exported."""
    monkeypatch.setattr(bundle, "write_exports", None)
    model = basic_net()
    model.features.bn2.weight = model.features.bn3.weight
    message = refusal(BundleError, save, slim(model, torch.randn(2, *SHAPE)), tmp_path / "slim")
    assert message.startswith("the network is not what basicnet (")
    assert "lacks features.bn3.weight" in message
    assert everything(tmp_path) == {}


def test_forms_that_do_not_agree_are_not_saved(nameless, coded, tmp_path, monkeypatch):
    """The forms are those of another network, which takes the same inputs."""
    reuse_exports(monkeypatch, coded.folder)
    message = refusal(ExportError, save, nameless.slimmed, tmp_path / "slim")
    assert message.startswith(f"{tmp_path / 'slim'}: model.pt2 differs from the network by ")
    assert everything(tmp_path) == {}


@pytest.mark.parametrize("change", [{"tolerance": float("inf")}, {"max_rel_difference": 1.0}])
def test_a_certificate_that_says_nothing_or_does_not_hold_is_not_saved(change, nameless, tmp_path):
    certificate = dataclasses.replace(nameless.slimmed.certificate, **change)
    slimmed = dataclasses.replace(nameless.slimmed, certificate=certificate)
    assert "certificate" in refusal(BundleError, save, slimmed, tmp_path / "slim")
    assert everything(tmp_path) == {}


@pytest.mark.parametrize("value", [1j, float("nan"), {1, 2}])
def test_inputs_that_cannot_be_recorded_are_refused(value, nameless, tmp_path):
    inputs = Inputs((*nameless.slimmed.example_inputs.args, value), {})
    slimmed = dataclasses.replace(nameless.slimmed, example_inputs=inputs)
    assert type(value).__name__ in refusal(BundleError, save, slimmed, tmp_path / "slim")
    assert everything(tmp_path) == {}
