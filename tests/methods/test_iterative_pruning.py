"""A ladder: its first rung is exact, the others meet their budgets, and nothing is made twice or left half-written."""

import json

import pytest
import slimnet_cli
import torch
from networks import lively
from pages import EVIL, Tags, check_isolation

from slimnet.bundle.bundle import load, read_certificate
from slimnet.methods import iterative_pruning as module
from slimnet.methods.iterative_pruning import RECORD, Rung, front
from slimnet.models import build
from slimnet.report.methods.iterative_page import render_ladder

ARGS = {"widths": [8, 12], "pool_after": [1], "hidden": 16, "in_channels": 1}
NETWORK = ["--arch", "basicnet", "--arch-args", json.dumps(ARGS), "--input-shape", "1,16,16"]
STEPS = "0.99,0.6,0.001"


@pytest.fixture(scope="module")
def climbed(tmp_path_factory):
    """A checkpoint with dead channels, and its ladder on the digits: interrupted before the last bundle, then done."""
    folder = tmp_path_factory.mktemp("ladder")
    model = lively(build("basicnet", ARGS))
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.weight.data[:2], norm.bias.data[:2] = 0.0, -0.1
    torch.save(model.state_dict(), folder / "net.pt")
    arguments = [
        "ladder",
        str(folder / "net.pt"),
        *NETWORK,
        "--data",
        "digits",
        "--steps",
        STEPS,
        "-o",
        str(folder / "out"),
    ]
    made = []

    def interrupted(slimmed, place, **settings):
        made.append(place.name)
        if len(made) == 2:
            raise KeyboardInterrupt
        return save(slimmed, place, **settings)

    save = module.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "save", interrupted)
        assert slimnet_cli.run(arguments) == 130
        assert sorted(path.name for path in (folder / "out").iterdir() if path.is_dir()) == ["exact"]
        assert slimnet_cli.run([*arguments, "--json"]) == 0
    assert made == ["exact", "macs-0.6", "macs-0.6"], "the exact rung was not made again"
    return folder, arguments


def rungs(folder) -> dict[str, dict]:
    return {rung["name"]: rung for rung in json.loads((folder / "out" / "ladder.json").read_text())["rungs"]}


def test_the_first_rung_is_exact_and_the_next_meets_its_budget(climbed):
    folder, _ = climbed
    found = rungs(folder)
    assert list(found) == ["dense", "exact", "macs-0.99", "macs-0.6", "macs-0.001"]
    dense, exact, small = found["dense"], found["exact"], found["macs-0.6"]
    assert exact["accuracy"] == dense["accuracy"]
    assert exact["reference"] == "the dense network"
    assert exact["removed"] == 4
    assert small["macs"] <= 0.6 * dense["macs"] < exact["macs"] < dense["macs"]
    assert small["reference"] == "the dense network with the chosen channels at zero and the remaining weights fitted"
    for rung in (exact, small):
        place = folder / "out" / rung["name"]
        assert read_certificate(place).macs_after == rung["macs"]
        before, after = read_certificate(place).accuracy_before, read_certificate(place).accuracies[1]
        assert (before.top1, before.top5, before.n) == (dense["accuracy"], dense["top5"], dense["images"])
        assert (after.top1, after.top5, after.n) == (rung["accuracy"], rung["top5"], rung["images"])
        assert sum(p.numel() for p in load(place).parameters()) == rung["params"]


def test_steps_that_make_no_network_say_why(climbed):
    found = rungs(climbed[0])
    assert found["macs-0.99"]["note"] == "the rung exact is within it"
    assert "the smallest possible is" in found["macs-0.001"]["note"]


def test_a_ladder_that_is_there_is_shown_and_not_made_again(climbed, capsys, monkeypatch):
    monkeypatch.setattr(module, "save", None)
    monkeypatch.setattr(module, "remove_selected", None)
    assert slimnet_cli.run(climbed[1]) == 0
    out, err = capsys.readouterr()
    assert "macs-0.6" in out
    assert "the smallest possible is" in err
    page = (climbed[0] / "out" / "ladder.html").read_text(encoding="utf-8")
    assert "2 networks out of one training" in page
    check_isolation(page)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--method", "random"], "is a ladder with method 'implicit', not 'random'"),
        (["--method", "randon"], "there is no method 'randon'; did you mean random?"),
        (["--steps", "0.5,2"], "a budget of 2.0 is not a fraction of the dense network's macs in (0, 1]"),
        (["--steps", "half"], "'half' is not a list of numbers"),
        (["-o", "."], "no ladder; name another folder"),
    ],
)
def test_misuse_is_one_line(climbed, change, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    assert slimnet_cli.run([*climbed[1], *change]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (1, {"params": None}, "the rung exact has neither parameters nor a note"),
        (0, {"note": "none"}, "its dense network has a note"),
    ],
)
def test_a_record_of_a_rung_that_says_nothing_is_refused(climbed, capsys, tmp_path, place, change, message):
    record = json.loads((climbed[0] / "out" / RECORD).read_text(encoding="utf-8"))
    record["rungs"][place] |= change
    (tmp_path / RECORD).write_text(json.dumps(record), encoding="utf-8")
    assert slimnet_cli.run([*climbed[1], "-o", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_rungs_that_were_made_otherwise_are_not_mixed_in(climbed, capsys, tmp_path):
    """Rungs from before BatchNorms were corrected have no such condition."""
    folder = tmp_path / "older"
    folder.mkdir()
    record = json.loads((climbed[0] / "out" / RECORD).read_text(encoding="utf-8"))
    del record["conditions"]["recalibrate"]
    (folder / RECORD).write_text(json.dumps(record), encoding="utf-8")
    assert slimnet_cli.run([*climbed[1], "-o", str(folder)]) == 2
    assert "is a ladder with recalibrate None, not True; go on with that, or name another folder" in " ".join(
        capsys.readouterr().err.split()
    )


def test_the_front_has_those_that_no_other_betters():
    rung = [Rung(name, 1, macs, accuracy=accuracy) for name, macs, accuracy in (
        ("dense", 100, 0.9), ("exact", 80, 0.9), ("a", 50, 0.8), ("b", 60, 0.7), ("c", 20, 0.1)
    )]  # fmt: skip
    assert front([*rung, Rung("d", note="none"), Rung("e", 1, macs=1)]) == {"exact", "a", "c"}


def test_names_on_the_page_are_text():
    page = render_ladder(EVIL, [Rung("dense", 10, 100, accuracy=0.9, images=5), Rung("x", note=EVIL)])
    check_isolation(page)
    assert not [tag for tag, _ in Tags(page).found if tag == "script"]
