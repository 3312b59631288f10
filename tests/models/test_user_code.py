"""Architectures of one's own: modules in the working folder and files by their paths, without a package."""

import json
import sys

import pytest
import slimnet_cli
import torch
from bundles import small_net
from torch import nn

from slimnet.errors import ArchitectureError
from slimnet.models import build
from slimnet.models.architecture import Architecture
from slimnet.models.user_code import import_user_code

BLOCKS = "from torch import nn\n\ndef layer(width):\n    return nn.Conv2d(1, width, 3)\n"
NET = """
from slimnet_test_blocks import layer
from torch import nn

class Net(nn.Sequential):
    def __init__(self, width=2):
        super().__init__(layer(width))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with a network in a folder, and what it imports beside it."""
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "slimnet_test_blocks.py").write_text(BLOCKS)
    (tmp_path / "nets" / "slimnet_test_net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield tmp_path
    assert sys.path == before
    for name in [name for name in sys.modules if name.startswith("slimnet_test_")]:
        del sys.modules[name]


def test_a_file_is_imported_with_the_modules_beside_it(place):
    model = build("nets/slimnet_test_net.py:Net", {"width": 3})
    assert model[0].out_channels == 3
    assert type(build(f"{place}/nets/slimnet_test_net.py:Net")) is type(model), "by any path it is the same module"


def test_a_module_in_the_working_folder_is_found(place, monkeypatch):
    monkeypatch.chdir(place / "nets")
    assert build("slimnet_test_net:Net", {"width": 4})[0].out_channels == 4


def test_an_installed_package_goes_first(place, monkeypatch):
    (place / "torchvision.py").write_text("raise SystemExit('not this one')")
    (place / "json.py").write_text("raise SystemExit('nor this one')")
    assert import_user_code("json") is json


def test_two_files_of_one_name_are_two_modules(place):
    (place / "other").mkdir()
    (place / "other" / "slimnet_test_net.py").write_text(NET.replace("width=2", "width=7"))
    (place / "other" / "slimnet_test_blocks.py").write_text(BLOCKS)
    assert build("nets/slimnet_test_net.py:Net")[0].out_channels == 2
    assert build("other/slimnet_test_net.py:Net")[0].out_channels == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nets/nothing.py:Net", r"importing nets/nothing.py failed: FileNotFoundError.*; is the path right\?"),
        ("nets/broken.py:Net", "importing nets/broken.py failed: SyntaxError"),
        ("nets/slimnet_test_net.py:Nett", "did you mean nets/slimnet_test_net.py:Net"),
        (
            "slimnet_test_net:Net",
            r"No module named 'slimnet_test_net'; is it installed, on PYTHONPATH or in this folder\?",
        ),
    ],
)
def test_what_cannot_be_imported_is_one_line(name, message, place):
    (place / "nets" / "broken.py").write_text("class :")
    with pytest.raises(ArchitectureError, match=message) as caught:
        build(name)
    assert "\n" not in str(caught.value)


def test_a_file_that_failed_is_tried_again(place):
    (place / "nets" / "slimnet_test_late.py").write_text("raise ValueError('not yet')")
    with pytest.raises(ArchitectureError, match="not yet"):
        build("nets/slimnet_test_late.py:Net")
    (place / "nets" / "slimnet_test_late.py").write_text(NET)
    assert build("nets/slimnet_test_late.py:Net")


def test_a_path_that_came_with_a_file_is_not_imported(place):
    reference = Architecture.from_json({"name": "nets/slimnet_test_net.py:Net", "args": {}})
    with pytest.raises(ArchitectureError, match="was read from a file and would import and call"):
        reference.build()
    assert isinstance(reference.trusted().build(), nn.Module)


def test_the_command_line_inspects_a_network_from_a_file(tmp_path, monkeypatch, capsys):
    """The class of the tests' own network, in a file of one's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slimnet_test_mine.py").write_text("from bundles import SmallNet\n")
    torch.save(small_net().state_dict(), "net.pt")
    command = ["inspect", "net.pt", "--arch", "slimnet_test_mine.py:SmallNet", "--input-shape", "2,6,6", "--json"]
    assert slimnet_cli.run(command) == 0
    assert json.loads(capsys.readouterr().out)["removable_channels"] == 2
