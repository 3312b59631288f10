"""slimnet train: what it leaves behind, how it is interrupted and goes on, and what it refuses."""

import dataclasses
import itertools
import json
import resource
import shlex
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import slimnet_cli
import torch
from command_line import SHORT, TINY, recipe_of, run
from processes import LONGEST_WAIT, read_to_progress
from runs import everything
from slimnet_cli.progress import live_run

from slimnet.data import load_data
from slimnet.models import build
from slimnet.training import Progress, Recipe, train
from slimnet.training.recipe.recipe import DIGITS_DEMO
from slimnet.training.run.checkpoints import newest
from slimnet.training.run.run_folder import read_history, reopen_run

HEADER = 4
"""The lines before the first progress: network and device, images, length, schedule."""

# ---- what is left behind


def test_a_run_leaves_its_folder_and_says_what_is_in_it(tmp_path, capsys):
    """Oracle: the files themselves; the report is one HTML page."""
    folder = tmp_path / "new" / "run"
    assert run("digits", *TINY, "--iterations", 40, "-o", folder) == 0
    written = capsys.readouterr().out
    for name in ("model.pt", "report.html"):
        assert f"{folder / name}\n" in written
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert len(read_history(folder).progress) == 2
    command = shlex.split(written.split("next: ")[1])
    assert slimnet_cli.run([*command[1:], "--dry-run"]) == 0


def test_for_machines_it_says_where_everything_is(tmp_path, capsys):
    folder = tmp_path / "run"
    assert run("digits", *SHORT, "--iterations", 20, "-o", folder, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["checkpoint"] == str(folder / "model.pt")
    assert document["folder"] == str(folder)
    assert document["report"] is None
    assert document["seconds"] > 0
    assert Recipe(**document["recipe"]) == recipe_of(folder)


def test_a_file_holds_the_checkpoint_and_nothing_else_is_written(tmp_path):
    assert run("digits", *SHORT, "--iterations", 3, "-o", tmp_path / "net.pt") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]


def test_a_file_is_replaced_by_force_alone(tmp_path, capsys):
    file = tmp_path / "net.pt"
    file.write_bytes(b"of somebody")
    assert run("digits", *SHORT, "--iterations", 3, "-o", file) == 2
    what_to_do = "name another file, or replace it with --force (see 'slimnet train --help')"
    assert capsys.readouterr().err == f"error: {file} exists; {what_to_do}\n"
    assert file.read_bytes() == b"of somebody"
    assert run("digits", *SHORT, "--iterations", 3, "-o", file, "--force") == 0
    assert "state_dict" in torch.load(file, weights_only=True)


def test_a_run_in_a_folder_ends_with_the_weights_of_the_library(begun):
    """Oracle: the library, given the recipe that the folder holds."""
    expected = train(recipe_of(begun), load_data("digits"), threads=1)
    for _ in expected:
        pass
    state = torch.load(begun / "model.pt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[name]) for name, value in expected.model.state_dict().items())


# ---- interrupted, and going on


def interrupted(folder: Path, *, by: signal.Signals, iterations: int) -> subprocess.CompletedProcess:
    """A real process that is sent a signal once it has reported."""
    script = "import slimnet_cli, slimnet_cli.output.terminal as t; t.SECONDS_BETWEEN_LINES = 0; slimnet_cli.main()"
    command = [sys.executable, "-c", script, "train", "digits", *SHORT, "--iterations", str(iterations)]
    process = subprocess.Popen([*command, "-o", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    read_to_progress(process.stderr)
    process.send_signal(by)
    out, err = process.communicate(timeout=LONGEST_WAIT)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.mark.parametrize("by", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.sweep)])
def test_an_interrupted_run_says_how_to_go_on_and_does_so_bit_for_bit(tmp_path, by, capsys):
    """Oracle: the library's run that is left alone, up to some steps after the interruption."""
    folder = tmp_path / "a run"
    ended = interrupted(folder, by=by, iterations=100_000)
    assert ended.returncode == 130
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    at = newest(folder / "checkpoints").state["iteration"]
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"interrupted after {at} of 100000 iterations; resume with: slimnet train --resume")
    until = (at // 20 + 3) * 20
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_run, "described", stop_at(until))
        assert slimnet_cli.run(shlex.split(last.split("resume with: slimnet ")[1])) == 130
    assert f"resuming from iteration {at} of 100000" in capsys.readouterr().err
    alone = train(recipe_of(folder), load_data("digits"), every=20, threads=1)
    while next(alone).iteration < until:
        pass
    found = newest(folder / "checkpoints").state
    expected = alone.state()
    assert found["iteration"] == until
    assert all(torch.equal(value, found["state_dict"][name]) for name, value in expected["state_dict"].items())
    assert everything(alone)[-1].equal(found["random"][0][-1])


def stop_at(iteration: int):
    """Raises the signal of a Ctrl-C when the report of an iteration is to be shown."""

    def described(progress: Progress) -> str:
        if progress.iteration == iteration:
            signal.raise_signal(signal.SIGINT)
        return ""

    return described


def test_going_on_with_a_finished_run_tells_its_result_again(begun, capsys):
    capsys.readouterr()
    assert run("--resume", begun, "--no-report", "--json") == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["iterations"] == 40


def test_a_damaged_checkpoint_is_said_out_loud(begun, capsys):
    (begun / "checkpoints" / "00000040.pt").write_bytes(b"half")
    assert run("--resume", begun, "--no-report") == 0
    printed = capsys.readouterr().err
    assert "a checkpoint is damaged and was set aside as" in printed
    assert "resuming from iteration 20 of 40" in printed


def test_threads_and_reports_are_as_before_unless_asked_otherwise(begun):
    for options, threads in (((), 1), (("--threads", "2"), 2)):
        assert run("--resume", begun, "--no-report", *options) == 0
        with reopen_run(begun) as folder:
            session = folder.last_session()
        assert (session.threads, session.every, session.iteration, session.processes) == (threads, 20, 40, 1)


# ---- refused, and failed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits"], "give the run's folder with -o DIR"),
        (["digits", "-o", "a", "--resume", "begun"], "give the run's folder with -o DIR"),
        (["-o", "a"], "name the data to train on"),
        (["digits", "-o", "."], "and no run; name another folder"),
        (
            ["digits", "--from", ".", "--arch", "basicnet", "-o", "run"],
            "train the network of a bundle further with slimnet finetune",
        ),
        (["--resume", "nothing"], "nothing does not exist; check the path"),
        (["--resume", "broken.json"], "broken.json is not the folder of a run"),
        (["--resume", "begun", "--l2", "1"], "the run was begun with l2 0.02, not 1.0"),
        (["letters", "--resume", "begun"], "there is no data set 'letters'"),
        (["--resume", "begun", "--recipe", "other.json"], "the run was begun with iterations 40, not 9"),
        (["digits", "-o", "begun"], "begun already holds a run; resume it with --resume begun"),
        (["--recipe", "nothing.json", "-o", "a"], "nothing.json does not exist; check the path"),
        (["--recipe", "broken.json", "-o", "a"], "broken.json: the recipe is not JSON"),
        (["digits", "--from", "nothing.pt", "-o", "a"], "nothing.pt"),
        (["digits", "--from", "broken.json", "-o", "a"], "broken.json"),
        (["digits", "--betas", "0.9;0.99", "-o", "a"], "is not a list of numbers"),
        (["digits", "--drops", "2,1", "-o", "a"], "drops"),
        (["digits", "--optimiser", "lion", "-o", "a"], "lion"),
        (["digits", "--device", "abacus", "-o", "a"], "there is no device 'abacus' here"),
        (["digits", "--device", "cpu", "--cuda-graph", "-o", "a"], "no CUDA graph is possible: there are none on cpu"),
        (["digits", "--threads", "0", "-o", "a"], "threads"),
        (["digits", "--image-size", "32", "-o", "a"], "image_size"),
        (["digits", "--checkpoint-every", "5", "-o", "a.pt"], "need a folder: -o DIR"),
        (["digits", "--tensorboard", "-o", "a"], "--tensorboard needs the package tensorboard"),
    ],
)
def test_misuse_is_one_line_and_writes_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    Path("broken.json").write_text("{")
    plan = dataclasses.replace(DIGITS_DEMO.lasting(40), arch_args={"widths": [4], "in_channels": 1})
    Path("other.json").write_text(dataclasses.replace(plan, iterations=9).to_json())
    Path("begun").mkdir()
    Path("begun/recipe.json").write_text(plan.to_json())
    assert run(*arguments) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert message in written.err
    assert written.err.count("\n") == 1
    assert written.err.startswith("error: ")
    assert not Path("a").exists() or not list(Path("a").glob("[!l]*"))


def test_a_folder_in_use_is_one_line(begun, capsys):
    capsys.readouterr()
    with reopen_run(begun):
        assert run("--resume", begun) == 2
    assert capsys.readouterr().err == (
        f"error: {begun} is in use: another process is training there; wait for it, or end it\n"
    )


def test_a_run_that_diverges_is_one_line_with_advice(tmp_path, capsys):
    assert run("digits", *SHORT, "--iterations", 40, "--lr", "1e30", "-o", tmp_path / "run") == 1
    *header, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: the loss became nan between iterations 0 and 20; train with a learning rate")
    assert len(header) == HEADER


def test_a_full_disk_is_one_line(tmp_path, capsys):
    """Files may not grow beyond 8 kB: recipe and metrics have room, a checkpoint has none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        assert run("digits", *SHORT, "--iterations", 40, "--checkpoint-every", 20, "-o", tmp_path / "run") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    *header, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"error: cannot write {tmp_path}/run/checkpoints/00000020.pt: ")
    assert len(header) == HEADER
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


# ---- what is shown


def test_the_first_lines_say_what_is_trained_on_what_and_how(tmp_path, capsys):
    """Oracle: by hand, and the parameters of the same network, built by the library."""
    options = ("--iterations", 40, "--drops", "20,30", "--lr", 0.01)
    assert run("digits", *SHORT, *options, "-o", tmp_path / "net.pt") == 0
    lines = capsys.readouterr().err.splitlines()
    network = build("basicnet", {"widths": [4, 8], "pool_after": [1], "hidden": 8, "in_channels": 1})
    assert lines == [
        f"basicnet: {sum(each.numel() for each in network.parameters()):,} parameters, on cpu with 1 thread",
        "digits: 1,438 training and 359 test images, 16 × 16 × 1, 10 classes",
        "40 iterations of 20 images, 0.56 epochs",
        "adam, learning rate 0.01, × 0.1 at 20 and 30",
    ]


def progress(**changes: object) -> Progress:
    return Progress(**{"iteration": 20, "total": 100, "loss": 0.5, "accuracy": 0.25, "sparsity": 0.125} | changes)


def test_a_report_is_shown_in_the_words_of_people():
    now = progress(seconds=1.0, epoch=2.34, macs=200, macs_if_slimmed=50)
    assert live_run.described(now) == "epoch 2.3, loss 0.500, accuracy 25 %, 12 % of the filters dead"
    assert live_run.share_of_macs(now) == ", 25 % of the MACs if slimmed now"
    assert live_run.share_of_macs(progress(seconds=1.0)) == ""


def test_help_lists_the_options_in_groups(capsys):
    assert run("--help") == 0
    text = capsys.readouterr().out
    headings = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == [
        *("Output:", "Network and length:", "Optimiser:", "Regularisers:", "Images:", "Machine:", "Options:"),
    ]
    assert text.index("Optimiser:") < text.index("--momentum") < text.index("Regularisers:")


def test_tensorboard_gets_every_report(tmp_path, monkeypatch):
    """A stand-in for the package, which records what it is given."""
    written: list[tuple] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            written.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append(("closed",))

    module = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    folder = tmp_path / "run"
    assert run("digits", *SHORT, "--iterations", 40, "--tensorboard", "-o", folder) == 0
    assert written[0] == (f"{folder}/tensorboard", 1)
    assert written[-1] == ("closed",)
    losses = [(value, step) for name, value, step in written[1:-1] if name == "loss"]
    assert losses == [(each.loss, each.iteration) for each in read_history(folder).progress]


# ---- data of one's own


def test_images_of_ones_own_are_trained_on(tmp_path, capsys):
    """Four classes of 12 × 10 images in colour, in an .npz: the network is made to fit them."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 12, 10, 3), dtype=np.uint8)
    labels = np.arange(24) % 4
    np.savez(tmp_path / "photos.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    options = ("--iterations", 4, "--batch-size", 6, "--crop", 2, "--json")
    assert run(tmp_path / "photos.npz", *SHORT, *options, "-o", tmp_path / "run") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["accuracy"]["n"] == 24
    assert document["recipe"]["arch_args"]["num_classes"] == 4
    assert document["recipe"]["arch_args"]["in_channels"] == 3


def test_a_folder_of_images_is_decoded_and_trained_on(tmp_path, capsys):
    """Two classes of grey images of several sizes; what to do next is a command that works."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (20, 20), dtype=np.uint8)
    for split, name, number in itertools.product(("train", "val"), ("cat", "dog"), range(4)):
        (tmp_path / "pets" / split / name).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels[: 12 + number, : 16 + number]).convert("RGB")
        image.save(tmp_path / "pets" / split / name / f"{number}.png")
    options = ("--image-size", 10, "--cache", tmp_path / "cache", "--iterations", 4, "--batch-size", 4)
    assert run(tmp_path / "pets", *SHORT, *options, "-o", tmp_path / "run") == 0
    command = shlex.split(capsys.readouterr().out.split("next: ")[1])
    assert command == ["slimnet", "slim", str(tmp_path / "run"), "-o", "slim/"]
    assert recipe_of(tmp_path / "run").image_size == 10
    slim = [*command[1:-1], str(tmp_path / "slim"), "--cache", str(tmp_path / "cache"), "--json"]
    assert slimnet_cli.run(slim) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"]["before"]["n"] == 8
