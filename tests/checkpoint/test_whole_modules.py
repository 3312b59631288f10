"""Pickled whole modules: read only where they are trusted, as they are or into a named network."""

import copy
import sys
import types

import pytest
import slimnet_cli
import torch
from checkpoints import assert_same_tensors, save, telling_resnet
from torch import nn

import slimnet
from slimnet.checkpoint import read_checkpoint
from slimnet.errors import CheckpointError
from slimnet.training import DIGITS_DEMO


def run(*arguments: object) -> int:
    return slimnet_cli.run(list(map(str, arguments)))


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return telling_resnet()


@pytest.fixture
def write(tmp_path):
    """`torch.save` into this test's own folder; returns the path."""
    return lambda content: save(tmp_path, content)


def averaged(model: nn.Module) -> nn.Module:
    """A network whose weights differ from those of another."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    return other


WRAPPED = {
    "the file itself": lambda model: model,
    "DataParallel": nn.DataParallel,
    "an entry": lambda model: {"epoch": 3, "model": model, "optimizer": {"lr": 0.1}},
    "nested entries": lambda model: {"state_dict": {"net": model}},
    "the average alone": lambda model: {"model": None, "ema": model, "updates": 7},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("arch", [None, "resnet20"])
def test_a_trusted_module_is_read_with_its_weights(write, trained, wrap, arch):
    """As it is, or into the network that was named. Oracle: the module that was saved."""
    found = slimnet.load_checkpoint(write(wrap(trained)), arch, trust=True)
    assert_same_tensors(found, trained.state_dict())
    assert type(found) is type(trained)


def test_nothing_is_unpickled_without_trust(write, trained):
    path = write({"model": trained})
    with pytest.raises(CheckpointError, match="say so with trust=True"):
        slimnet.load_checkpoint(path, "resnet20")
    with pytest.raises(CheckpointError, match="with trust=True"):
        slimnet.load_checkpoint(path)


@pytest.mark.parametrize(
    ("asked", "place", "note"),
    [
        (None, "model", "took the plain network, not the averaged one in ema (--weights ema)"),
        ("ema", "ema", ""),
        ("plain", "model", ""),
        ("model", "model", ""),
    ],
)
def test_of_two_networks_the_one_that_was_asked_for_is_taken(write, trained, asked, place, note):
    networks = {"model": trained, "ema": averaged(trained)}
    found = read_checkpoint(write(networks), weights=asked, trust=True)
    assert (found.place, found.note) == (place, note)
    assert_same_tensors(found.model, networks[place].state_dict())


def test_the_average_is_taken_where_there_is_no_plain_network_and_said_so(write, trained):
    """As trainers leave it that go on from the average alone."""
    found = read_checkpoint(write({"model": None, "ema": trained}), trust=True)
    assert found.note == "took the averaged network in ema: there is no plain one"


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_weights_in_16_bits_become_float32(write, trained, kind):
    """Oracle: every number of 16 bits is one of float32."""
    stored = copy.deepcopy(trained).to(kind)
    found = read_checkpoint(write({"model": stored}), trust=True)
    assert found.note == f"its weights are stored in {str(kind)[6:]}, and were converted to float32"
    assert {tensor.dtype for tensor in found.model.parameters()} == {torch.float32}
    for name, parameter in found.model.named_parameters():
        assert torch.equal(parameter, stored.get_parameter(name).float())


def test_double_precision_stays(write, trained):
    found = read_checkpoint(write(copy.deepcopy(trained).double()), trust=True)
    assert {tensor.dtype for tensor in found.model.parameters()} == {torch.float64}


def with_nan(model: nn.Module) -> nn.Module:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        next(broken.parameters()).view(-1)[0] = torch.nan
    return broken


@pytest.mark.parametrize(
    ("content", "weights", "words"),
    [
        (lambda model: {"model": None, "other": model}, None, "holds no network: its entry 'model' is None; take"),
        (lambda model: {"epoch": 1, "other": model}, None, "holds no network: its entries are epoch, other; save"),
        (lambda model: {"model": model}, "ema", "has no network 'ema', only those in model; leave --weights out"),
        (lambda model: model, "teacher", "has no network 'teacher', only those in the file itself"),
        (lambda model: [model], None, "holds an object of type list, not a network; save the module itself"),
        (lambda model: {"model": with_nan(model)}, None, "holds NaN or Inf in 1 of"),
        (lambda model: {"model": model.state_dict()}, None, "holds weights without their network; name the network"),
    ],
)
def test_what_holds_no_such_network_is_refused_in_a_line(write, trained, content, weights, words):
    path = write(content(trained))
    with pytest.raises(CheckpointError) as caught:
        slimnet.load_checkpoint(path, weights=weights, trust=True)
    assert str(caught.value).startswith(f"{path} {words}")
    assert "\n" not in str(caught.value)


CODE = """
import torch

class Net(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1))
        self[1].weight.data[1:] = 0
"""


@pytest.fixture
def pickled(tmp_path, monkeypatch):
    """The checkpoint of a network whose class is in a module that is not imported, `its_code.py`."""
    module = types.ModuleType("its_code")
    exec(CODE, vars(module))
    monkeypatch.setitem(sys.modules, "its_code", module)
    path = save(tmp_path, {"model": module.Net().half().eval()})
    monkeypatch.delitem(sys.modules, "its_code")
    return path


def test_a_class_that_cannot_be_imported_is_named(pickled):
    with pytest.raises(CheckpointError, match="was pickled with the module its_code, which cannot be imported here"):
        slimnet.load_checkpoint(pickled, trust=True)


def test_a_class_that_its_module_lacks_is_named(pickled, monkeypatch):
    monkeypatch.setitem(sys.modules, "its_code", types.ModuleType("its_code"))
    with pytest.raises(CheckpointError, match=r"cannot be unpickled \(.*Net.*\); use the versions of the packages"):
        slimnet.load_checkpoint(pickled, trust=True)


def test_a_damaged_file_is_called_damaged_though_it_is_trusted(pickled):
    pickled.write_bytes(pickled.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="is truncated or damaged"):
        slimnet.load_checkpoint(pickled, trust=True)


@pytest.fixture
def code(pickled, monkeypatch):
    """The module is in the working folder, where it is found."""
    (pickled.parent / "its_code.py").write_text(CODE)
    monkeypatch.chdir(pickled.parent)
    yield pickled
    sys.modules.pop("its_code", None)


def test_a_pickled_module_is_slimmed_on_the_command_line(code, capsys):
    """From 16 bits to a bundle, which verifies, and which is loaded with the module of the checkpoint."""
    shape = ("--input-shape", "3,16,16")
    assert run("slim", code, "--trust", *shape, "--round", "none", "-o", "slim") == 0
    shown = capsys.readouterr()
    assert "stored in float16, and were converted to float32" in shown.err.replace("\n", " ")
    assert run("verify", "slim", "--dense", code, "--trust") == 0
    slim = slimnet.load("slim", model=slimnet.load_checkpoint(code, trust=True))
    assert [slim[0].out_channels, slim[3].in_channels] == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trust"], "the inputs of Net are not known; give their shape with --input-shape C,H,W"),
        (["--trust", "--arch-args", '{"width": 2}'], "--arch-args are those of an architecture; name it with --arch"),
        ([], "name its network with --arch, or pass --trust for a pickled module"),
    ],
)
def test_what_a_command_line_lacks_is_said_and_nothing_is_written(code, capsys, arguments, words):
    assert run("slim", code, *arguments, "-o", "slim") == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (code.parent / "slim").exists()


def test_the_checkpoint_of_a_run_is_not_unpickled_without_trust(code, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.json").write_text(DIGITS_DEMO.to_json())
    code.rename(folder / "model.pt")
    assert run("inspect", folder) == 2
    assert "if you trust it, and its class is importable, say so with --trust" in capsys.readouterr().err
