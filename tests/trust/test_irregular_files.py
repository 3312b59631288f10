"""No reader waits for a named pipe: each refuses what is no regular file, in one line."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import slimnet_cli
from bundles import FILES, MANIFEST

import slimnet
from slimnet.benchmark.runtimes.onnxruntime_session import onnx_session
from slimnet.data import load_data
from slimnet.errors import ExportError
from slimnet.export.onnx_file import read_onnx
from slimnet.export.onnx_runner import OnnxRunner
from slimnet.export.pt2.runner import ProgramRunner
from slimnet.reproduction.results import read as read_result
from slimnet.sweep import Store, read_grid
from slimnet.training.run import checkpoints
from slimnet.training.run.images_file import read_images
from slimnet.training.run.run_folder import read_history, reopen_run
from slimnet.training.run.run_status import status_of
from slimnet.training.warm_start import with_digest

Reader = Callable[[Path], object]
NETWORK = ("--arch", "resnet20")
SECONDS = 120


@pytest.fixture(autouse=True)
def none_waits_for_ever() -> Iterator[None]:
    """A reader that waits for the other end of a pipe is ended, and its test fails."""

    def end(_: int, __: object) -> None:
        raise AssertionError("it waits for a pipe that nobody writes to")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> Path:
    """A named pipe in the place of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def onnx_runs(path: Path) -> object:
    return onnx_session(path, 1)


READERS: dict[str, tuple[str, Reader]] = {
    "a checkpoint": ("net.pt", lambda path: slimnet.load_checkpoint(path, "resnet20")),
    "safetensors": ("net.safetensors", lambda path: slimnet.load_checkpoint(path, "resnet20")),
    "the checkpoint of a run": ("00000001.pt", checkpoints.read),
    "an .npz": ("images.npz", lambda path: load_data(str(path))),
    "the images of a run": ("images.json", lambda path: read_images(path.parent)),
    "a grid": ("grid.toml", read_grid),
    "a sweep": ("sweep.sqlite", Store),
    "a result": ("result.json", read_result),
    "an ONNX file to count": ("net.onnx", read_onnx),
    "an ONNX file to time": ("net.onnx", onnx_runs),
    "an ONNX file of a bundle": ("model.onnx", OnnxRunner),
    "a program of a bundle": ("model.pt2", ProgramRunner),
    "the metrics of a run under way": ("metrics.jsonl", lambda path: status_of(path.parent)),
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("make", [pipe, Path.mkdir], ids=["pipe", "folder"])
def test_a_reader_refuses_what_is_no_file(kind, make, tmp_path):
    """A folder as well: it cannot be read, and what is said of it must not be a traceback either."""
    name, read = READERS[kind]
    make(tmp_path / name)
    with pytest.raises((slimnet.SlimnetError, OSError)) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_bundle_with_a_pipe_in_it_is_refused(name, basic, copy):
    folder = copy(basic)
    pipe(folder / name)
    with pytest.raises(slimnet.SlimnetError, match="named pipe"):
        slimnet.load(folder)


@pytest.mark.parametrize(
    "name", ["recipe.json", "metrics.jsonl", "history/00000020.safetensors", "history/00000040.safetensors"]
)
def test_a_run_with_a_pipe_in_it_is_refused(name, begun, tmp_path):
    folder = shutil.copytree(begun, tmp_path / "copy")
    pipe(folder / name)
    with pytest.raises((slimnet.SlimnetError, OSError)) as caught:
        read_history(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["recipe.json", "metrics.jsonl", "sessions.jsonl", "lock"])
def test_a_run_does_not_go_on_where_one_of_its_files_is_a_pipe(name, begun, tmp_path, capsys):
    folder = shutil.copytree(begun, tmp_path / "copy")
    pipe(folder / name)
    assert slimnet_cli.run(["train", "--resume", str(folder), "--no-report"]) in (1, 2)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "readable recipe.json" in last if name == "recipe.json" else "named pipe" in last


def test_a_checkpoint_that_is_a_pipe_is_set_aside_like_a_damaged_one(begun, tmp_path):
    folder = shutil.copytree(begun, tmp_path / "copy")
    newest = max((folder / "checkpoints").glob("*.pt"))
    pipe(newest)
    with reopen_run(folder) as run:
        found = run.checkpoint()
    assert found is not None
    assert [path.name for path in found.damaged] == [f"{newest.name}.damaged"]


COMMANDS: dict[str, tuple[str, ...]] = {
    "inspect": ("inspect", "PIPE", *NETWORK),
    "slim": ("slim", "PIPE", *NETWORK, "-o", "OUT"),
    "slim with data": ("slim", "PIPE", *NETWORK, "--data", "PIPE.npz", "-o", "OUT"),
    "ladder": ("ladder", "PIPE", *NETWORK, "-o", "OUT"),
    "export": ("export", "PIPE", *NETWORK, "-o", "OUT.onnx"),
    "report": ("report", "PIPE"),
    "sweep": ("sweep", "PIPE", "-o", "OUT"),
    "train": ("train", "PIPE.npz", "-o", "OUT"),
    "train by a recipe": ("train", "--recipe", "PIPE", "-o", "OUT"),
    "train from": ("train", "digits", *NETWORK, "--from", "PIPE", "-o", "OUT"),
    "analyse": ("analyse", "PIPE", *NETWORK, "--data", "digits"),
    "benchmark": ("benchmark", "PIPE.onnx", "PIPE.onnx"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_given_a_pipe_says_so_in_one_line(command, tmp_path, capsys):
    for name in ("PIPE", "PIPE.npz", "PIPE.onnx"):
        pipe(tmp_path / name)
    arguments = [str(tmp_path / word) if word.startswith(("PIPE", "OUT")) else word for word in COMMANDS[command]]
    assert slimnet_cli.run(arguments) in (1, 2)
    written = capsys.readouterr()
    assert written.out == ""
    (line,) = [line for line in written.err.splitlines() if line.startswith("error: ")]
    assert "PIPE" in line


def test_a_recipe_of_a_warm_start_that_is_a_pipe_is_refused(tmp_path):
    recipe = slimnet.training.Recipe(arch="resnet20", data="digits", iterations=1, warm_start=str(pipe(tmp_path / "p")))
    with pytest.raises(slimnet.SlimnetError, match="a named pipe"):
        with_digest(recipe)


def test_an_onnx_model_of_a_bundle_opens_no_other_file(tmp_path):
    """onnxruntime would look for it, where the model says so."""
    weights = onnx.numpy_helper.from_array(np.ones(1, dtype=np.float32), "w")
    given = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    made = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", [given], [made], [weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "whole.onnx")
    OnnxRunner(tmp_path / "whole.onnx")
    onnx.external_data_helper.convert_model_to_external_data(model, location="weights", size_threshold=0)
    onnx.save(model, tmp_path / "parts.onnx")
    pipe(tmp_path / "weights")
    with pytest.raises(ExportError, match="the weights 'w' are in another file"):
        OnnxRunner(tmp_path / "parts.onnx")
