"""slimnet train --validate and --tests: what is said of evaluations, who takes the best weights, what is refused."""

import json

import pytest
import slimnet_cli
import torch
from command_line import SHORT, recipe_of, run
from slimnet_cli.options.network import Network
from slimnet_cli.options.sources import find_source
from slimnet_cli.progress.live_run import validation_in_words

from slimnet.data import load_data
from slimnet.data.validation import hold_out
from slimnet.training import Progress, evaluate
from slimnet.training.run.run_folder import read_history, reopen_run

LENGTH = ("--iterations", 60)


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
    """A finished run with three evaluations on held-out images."""
    folder = tmp_path_factory.mktemp("validated") / "run"
    assert run("digits", *SHORT, *LENGTH, "--validate", 0.1, "--tests", 3, "-o", folder) == 0
    return folder


def test_the_best_evaluation_is_stated_and_its_weights_are_used_when_asked_for(validated, capsys):
    """Oracle: the weights in the file, evaluated on the images that the library holds out."""
    assert run("--resume", validated, "--no-report", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    source = find_source(str(validated / "model_best.pt"), Network(None))
    assert source.weights == validated / "model_best.pt"
    assert find_source(str(validated), Network(None)).weights == validated / "model.pt"
    best, split = document["best"], hold_out(load_data("digits"), 0.1)
    assert evaluate(source.load(), split).top1 == best["validation_accuracy"]
    assert (best["checkpoint"], best["images"]) == (str(validated / "model_best.pt"), "held out")
    assert [iteration for iteration, _ in document["course"]] == [20, 40, 60]
    assert [best["iteration"], 1 - best["validation_accuracy"]] == min(document["course"], key=lambda point: point[1])
    assert document["accuracy"]["n"] == 359, "the test images stay whole"
    assert run("--resume", validated, "--no-report") == 0
    lines = capsys.readouterr().out.splitlines()
    line = f"best of 3 evaluations on 144 held-out images: {100 * best['validation_accuracy']:.2f} % after"
    assert f"{line} {best['iteration']} iterations" in lines
    assert f"weights of the best evaluation: {validated / 'model_best.pt'}" in lines
    assert slimnet_cli.run(["slim", str(validated / "model_best.pt"), "--dry-run"]) == 0


def test_it_goes_on_being_validated_as_before(validated):
    assert recipe_of(validated).held_out == 0.1
    with reopen_run(validated) as folder:
        assert folder.last_session().evaluations == 3


def test_without_held_out_images_the_test_images_are_evaluated_and_said_so(tmp_path, capsys):
    """The trained weights are those of a run that nobody looks at; alone, --validate evaluates ten times."""
    for name, options in (("seen", ("--tests", 2)), ("unseen", ())):
        assert run("digits", *SHORT, *LENGTH, *options, "-o", tmp_path / name) == 0
    written = capsys.readouterr().out
    assert "best of 2 evaluations on 359 test images: " in written
    seen, unseen = (torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("seen", "unseen"))
    assert all(torch.equal(value, unseen["state_dict"][name]) for name, value in seen["state_dict"].items())
    assert seen["recipe"] == unseen["recipe"]
    assert [each.iteration for each in read_history(tmp_path / "seen").progress if each.validation_best] == [40, 60]


def test_progress_shows_the_last_evaluation_and_the_best():
    report = Progress(20, 100, 0.5, 0.25, 0.125, 1.0, validation_accuracy=0.9, validation_best=0.955)
    assert validation_in_words(report) == ", validation 90.0 % (best 95.5 %)"
    assert validation_in_words(Progress(20, 100, 0.5, 0.25, 0.125, 1.0)) == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--validate", "1"), "is not in the range 0<=x<1"),
        (("--validate", "a tenth"), "is not a valid float"),
        (("--validate", "0.0001"), "0.0001 of 1,438 training images cannot be held out"),
        (("--validate", "nan"), "held_out is nan"),
        (("--tests", "-1"), "is not in the range x>=0"),
        (("--validate", "0.1", "-o", "a.pt"), "the weights of the best evaluation need a folder: -o DIR"),
        (("--tests", "3", "-o", "a.pt"), "the weights of the best evaluation need a folder: -o DIR"),
        (("--validate", "0.2", "--resume"), "the run was begun with held_out 0.1, not 0.2"),
    ],
)
def test_misuse_is_one_line(options, message, validated, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    resumed = options[-1] == "--resume"
    arguments = (*options, validated) if resumed else ("digits", *SHORT, *LENGTH, "-o", "run", *options)
    assert run(*arguments) == 2
    written = capsys.readouterr()
    assert (written.out, written.err.count("\n")) == ("", 1)
    assert message in written.err
    assert not list(tmp_path.iterdir())
