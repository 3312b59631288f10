"""slimnet report: which things it can draw, where the page goes, and what it refuses."""

import json

import pytest
import test_report_contenders
import test_report_methods
from runs import TINY, images
from slimnet_cli import run as slimnet

from slimnet.training import Recipe
from slimnet.training.loop.training_run import train
from slimnet.training.run.resumable_run import KeptRun
from slimnet.training.run.run_folder import create_run

comparison, results = test_report_contenders.comparison, test_report_methods.results


@pytest.fixture
def folder(tmp_path):
    """A run that has made its first report."""
    recipe = Recipe(arch="basicnet", arch_args=TINY, data="noise", iterations=4, batch_size=5)
    with create_run(tmp_path / "run", recipe) as place:
        kept = KeptRun(place, lambda state: train(recipe, images(), threads=1, every=2, state=state))
        for _ in kept:
            pass
        kept.close()
    return tmp_path / "run"


def test_a_run_gets_its_page_in_its_folder(folder, capsys):
    assert slimnet(["report", str(folder)]) == 0
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert str(folder / "report.html") in capsys.readouterr().out


def test_measurements_get_their_page_beside_them(comparison, tmp_path):
    (tmp_path / "speed.json").write_text(comparison.to_json())
    assert slimnet(["report", str(tmp_path / "speed.json")]) == 0
    assert "half is 1." in (tmp_path / "speed.html").read_text(encoding="utf-8")


def test_a_comparison_of_methods_is_drawn_from_its_file_or_its_folder(results, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(results.to_dict()))
    assert slimnet(["report", str(tmp_path / "results.json"), "-o", str(tmp_path / "one.html")]) == 0
    assert slimnet(["report", str(tmp_path), "-o", str(tmp_path / "two.html")]) == 0
    pages = [(tmp_path / name).read_text(encoding="utf-8") for name in ("one.html", "two.html")]
    assert pages[0] == pages[1]
    assert "3 ways to make it smaller" in pages[0]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("missing.json", None, "missing.json does not exist; check the path"),
        ("words.json", "hello", "is not JSON"),
        ("list.json", "[1]", "is not a result of slimnet benchmark --json"),
        ("odd.json", '{"outcomes": 3}', "not the results of a comparison"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(tmp_path, capsys, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    assert slimnet(["report", str(tmp_path / name)]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / name).with_suffix(".html").exists()


def test_a_folder_that_is_no_run_and_a_place_that_is_not_there_are_refused(tmp_path, capsys):
    assert slimnet(["report", str(tmp_path)]) == 2
    assert slimnet(["report", str(tmp_path), "-o", str(tmp_path / "no" / "page.html")]) == 2
    assert "make it first" in capsys.readouterr().err
