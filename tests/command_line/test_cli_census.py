"""slimnet census: dead weight of many checkpoints, against counts by hand and against what slim removes."""

import json
from pathlib import Path

import pytest
import slimnet_cli
import torch
from pages import EVIL, Tags, check_isolation
from torch import nn

import slimnet
from slimnet.census import CensusRow, count_scales, count_totals, find_checkpoints, names_in
from slimnet.models.architecture import known_as
from slimnet.report.census.page import render_census


def run(*arguments: object) -> int:
    return slimnet_cli.run(["census", *map(str, arguments)])


def weaken(model: nn.Module, norm: str, dead: int) -> nn.Module:
    """Make the first γ of a BatchNorm dead, with a β that a ReLU turns into 0."""
    norm = model.get_submodule(norm)
    with torch.no_grad():
        norm.weight[:dead], norm.bias[:dead] = 1e-5, -1.0
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three checkpoints: a network known by its file's name, one with other classes, and one that nobody knows."""
    place = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    torch.save(
        {"state_dict": weaken(slimnet.build("resnet20"), "layer1.0.bn1", 3).state_dict()},
        place / "resnet20-0123abcd.th",
    )
    (place / "deeper").mkdir()
    torch.save(
        weaken(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), "1", 2).state_dict(), place / "deeper" / "own.pt"
    )
    torch.save(nn.Linear(2, 2).state_dict(), place / "linear.pt")
    (place / "resnet56.pt").write_bytes(b"no checkpoint")
    (place / "notes.txt").write_text("not counted")
    return place


def test_rows(folder, capsys):
    assert run(folder, "--json") == 0
    rows = {Path(row["name"]).name: row for row in json.loads(capsys.readouterr().out)["checkpoints"]}
    assert set(rows) == {"resnet20-0123abcd.th", "own.pt", "linear.pt", "resnet56.pt"}
    known = rows["resnet20-0123abcd.th"]
    model = slimnet.load_checkpoint(folder / "resnet20-0123abcd.th", "resnet20").eval()
    plan = slimnet.slim(model, torch.randn(2, 3, 32, 32)).plan
    gammas = [each.weight for each in model.modules() if isinstance(each, nn.BatchNorm2d)]
    assert (known["channels"], known["dead"]) == (sum(map(len, gammas)), 3)
    assert known["macs"] == [plan.macs_before, plan.macs_after]
    assert known["params"] == [plan.params_before, plan.params_after]
    assert known["removable"] == plan.removed_channels > 0
    assert (known["arch"], known["note"]) == ("resnet20", "")
    unknown = rows["own.pt"]
    assert (unknown["channels"], unknown["dead"], unknown["macs"]) == (4, 2, None)
    assert "--arch" in unknown["note"]
    assert rows["linear.pt"]["note"] == "it has no BatchNorm"
    assert rows["resnet56.pt"]["channels"] == 0
    assert "checkpoint" in rows["resnet56.pt"]["note"]


def test_inputs_that_are_assumed_are_stated(folder, capsys, tmp_path):
    """Oracle: MACs of convolutions grow with the area, a quarter for half the side."""
    page = tmp_path / "census.html"
    assert run(folder, "-o", page) == 0
    printed = capsys.readouterr()
    sentence = (
        "The MACs of one network are for inputs as is usual for it (3 × 32 × 32), since no file says their shape."
    )
    assert sentence in " ".join(printed.out.split())
    assert sentence in " ".join(Tags(page.read_text(encoding="utf-8")).text.split())
    assert "--input-shape changes that" in printed.err
    macs = {}
    for name, given in (("usual", []), ("half", ["--input-shape", "3,16,16"])):
        assert run(folder / "resnet20-0123abcd.th", *given, "--json") == 0
        row = json.loads(capsys.readouterr().out)["checkpoints"][0]
        macs[name] = row["macs"][0]
        assert row["assumed_shape"] == (None if given else [3, 32, 32])
    classifier = 64 * 10
    assert macs["usual"] - classifier == 4 * (macs["half"] - classifier)
    assert run(folder / "resnet20-0123abcd.th", "--input-shape", "3,16,16") == 0
    assert "usual" not in "".join(capsys.readouterr())


def test_page_and_table(folder, capsys, tmp_path):
    page = tmp_path / "census.html"
    assert run(folder, "-o", page) == 0
    printed = capsys.readouterr().out
    assert "resnet20-0123abcd.th" in printed
    assert "next: slimnet slim" in printed
    text = page.read_text(encoding="utf-8")
    check_isolation(text)
    assert "own.pt" in Tags(text).text


def test_run_and_bundle_count_as_one(tmp_path):
    """What is in a run or a bundle belongs to it."""
    for name, mark in (("run", "recipe.json"), ("bundle", "manifest.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / mark).write_text("{}")
        (tmp_path / name / "model.pt").write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "net.pth").write_bytes(b"")
    assert [path.name for path in find_checkpoints(tmp_path)] == ["bundle", "net.pth", "run"]


def test_names_of_files():
    assert names_in(Path("hub/resnet18-f37072fd.pth"))[0] == "resnet18"
    assert names_in(Path("models/vgg16/best.pth.tar")) == ("best", "vgg16")
    assert known_as(["best", "vgg16"]) == "vgg16"
    assert known_as(["mobilenet_v2"]) == "torchvision:mobilenet_v2"
    assert known_as(["nothing of the kind"]) is None


def test_layer_norm_is_not_counted():
    state = nn.Sequential(nn.LayerNorm(3), nn.BatchNorm1d(5), nn.BatchNorm1d(2, affine=False)).state_dict()
    assert count_scales(state, 2.0) == (5, 5)


def test_totals_are_of_traced_networks():
    rows = [CensusRow("a", channels=10, dead=5, removable=5, macs=(100, 50), params=(8, 4)), CensusRow("b", channels=2)]
    totals = count_totals(rows)
    assert (totals.checkpoints, totals.traced, totals.channels, totals.dead) == (2, 1, 12, 5)
    assert (totals.macs, totals.params) == ((100, 50), (8, 4))


def test_names_of_others_are_escaped():
    page = render_census([CensusRow(EVIL, arch=EVIL, channels=4, dead=1, note=EVIL)], 1e-3)
    check_isolation(page)
    assert "<script>alert" not in page


@pytest.mark.parametrize(
    ("arguments", "message"), [(["absent"], "does not exist"), (["."], "no checkpoint"), ([], "Missing argument")]
)
def test_misuse(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_nothing_to_count(folder, capsys):
    assert run(folder / "linear.pt") == 2
    assert "BatchNorm" in capsys.readouterr().err
