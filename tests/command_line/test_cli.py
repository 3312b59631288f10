"""The command line: what goes where, exit codes, help, and the commands that need no bundle."""

import dataclasses
import json
import shlex
import signal
import subprocess
import sys

import bundles
import pytest
import slimnet_cli
import torch
from processes import LONGEST_WAIT, read_to_progress
from slimnet_cli.commands.inspect import histogram
from slimnet_cli.options.network import usual_shape
from torch import nn

from slimnet import benchmark
from slimnet.checkpoint import load_checkpoint
from slimnet.data import load_data
from slimnet.models import build
from slimnet.surgery.plan import SurgeryPlan

COMMANDS = (
    *("slim", "inspect", "export", "verify", "benchmark", "compare"),
    *("train", "analyse", "sweep", "demo", "checks"),
)
ARGS = {"in_channels": 1, "width": 0.125, "hidden": 24}
ARCH = ("--arch", "basicnet", "--arch-args", json.dumps(ARGS), "--input-shape", "1,16,16")


def narrow_net(dead: float = 0.4) -> nn.Module:
    """A BasicNet with the first part of every layer's channels dead."""
    torch.manual_seed(0)
    model = build("basicnet", ARGS).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.weight.data[: round(dead * len(module.weight))] = 1e-6
    return model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("checkpoint") / "net.pt"
    torch.save(narrow_net().state_dict(), path)
    return str(path)


def program(*arguments: str, **options) -> subprocess.CompletedProcess:
    """The command line in a process of its own."""
    command = [sys.executable, "-c", "import slimnet_cli; slimnet_cli.main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_WAIT, **options)


def test_help_imports_no_torch():
    """So that it answers at once. Oracle: the modules that are loaded."""
    script = "import sys, slimnet_cli; slimnet_cli.run(['--help']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command, capsys):
    assert slimnet_cli.run([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"slimnet {command} " in text.split("Examples:")[1]
    assert "--json" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_takes_more_than_eight_parameters(command):
    """Options that are one thing together (a network) count as one."""
    callback = slimnet_cli.commands.commands[command].callback
    inner = getattr(callback, "__wrapped__", callback)
    assert inner.__code__.co_argcount <= 8


def test_no_command_at_all_shows_the_help(capsys):
    assert slimnet_cli.run([]) == 0
    assert capsys.readouterr().out.startswith("Usage: slimnet")


def test_the_help_of_the_program_names_every_command(capsys):
    assert slimnet_cli.run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {command} " in text for command in COMMANDS)
    assert "..." not in text.split("Commands:")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["slimm"], "No such command 'slimm'"),
        (["slim"], "Missing argument 'CKPT|RUN|BUNDLE|F.onnx'"),
        (
            ["slim", "x.pt", "-o", "out"],
            "x.pt is a checkpoint; name its network with --arch, or pass --trust for a pickled module",
        ),
        (["slim", "x.pt", "--arch", "resnet20"], "-o DIR"),
        (["slim", "x.pt", "--arch", "resnet20", "-o", "."], "is not empty"),
        (["slim", "x.pt", "--arch", "resnet20", "--dry-run"], "x.pt"),
        (["slim", "x.pt", "--arch", "resnet20", "-o", "slim", "--image-size", "10"], "--data"),
        (["slim", "x.pt", "--arch", "resnet20", "-o", "slim", "--data", "letters"], "letters"),
        (["slim", "x.pt", "--arch", "resnet20", "--dry-run", "--round", "often"], "'often' is not a width to round to"),
        (["slim", "x.pt", "--arch", "resnet20", "--dry-run", "--round", "0"], "'0' is not a width to round to"),
        (["inspect", "x.pt", "--arch", "resnet20", "--arch-args", "{'a': 1}"], "is not JSON"),
        (["inspect", "x.pt", "--arch", "resnet20", "--arch-args", "[1]"], "is not a JSON object"),
        (["inspect", "x.pt", "--arch", "resnet20", "--input-shape", "3,-1,2"], "positive whole numbers"),
        (["inspect", "x.pt", "--arch", "resnet20", "--input-shape", ""], "positive whole numbers"),
        (["inspect", "x.pt", "--arch", "resnot20"], "unknown architecture 'resnot20'; did you mean resnet20"),
        (["train", "digits", "-o", "missing/net.pt"], "there is no folder missing"),
        (["train", "digits", "-o", "."], ". holds a.onnx and no run; name another folder"),
        (["train", "letters", "-o", "net.pt"], "letters"),
        (["train", "digits", "-o", "net.pt", "--l2", "nan"], "l2"),
        (["train", "digits", "-o", "net.pt", "--iterations", "0"], "iterations"),
        (["benchmark", "a.onnx", "b.onnx", "--batch", "1,x"], "positive whole numbers"),
        (["benchmark", "a.pt", "b.onnx"], "--arch"),
        (["benchmark", "a.onnx", "b.onnx"], "a.onnx"),
        (["benchmark", "a.onnx", "b.onnx", "--seconds", "0"], "positive"),
        (["demo", "--out", "taken"], "taken"),
        (["export", "nothing", "-o", "net.onnx"], "nothing"),
        (["verify", "nothing"], "nothing"),
    ],
)
def test_misuse_is_one_line_on_stderr_and_exit_code_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there = ["a.onnx", "a.pt", "b.onnx", "taken", "x.pt"]
    for name in there:
        (tmp_path / name).write_text("mine")
    assert slimnet_cli.run(arguments) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("error: ")
    assert written.err.count("\n") == 1
    assert message in written.err
    assert sorted(path.name for path in tmp_path.iterdir()) == there


def test_inspect_shows_layers_and_a_histogram(checkpoint, capsys):
    assert slimnet_cli.run(["inspect", checkpoint, *ARCH]) == 0
    text = capsys.readouterr().out
    assert "features.conv7" in text
    assert "threshold 0.001" in text
    assert "can be removed" in text


def test_inspect_says_what_helps_against_what_stays(tmp_path, capsys):
    """Dead channels of a constant that padding meets need a carrier, once for each layer."""
    torch.save(bundles.basic_net().state_dict(), tmp_path / "net.pt")
    network = ("--arch", "basicnet", "--arch-args", json.dumps(bundles.ARGS), "--input-shape", "1,8,8")
    assert slimnet_cli.run(["inspect", str(tmp_path / "net.pt"), *network]) == 0
    lines = capsys.readouterr().out.splitlines()
    helped = [line for line in lines if line.endswith(": β ≤ 0 in front of a ReLU")]
    (ranking,) = [number for number, line in enumerate(lines) if line.startswith("layer that keeps most")]
    assert lines[ranking + 1].split()[:2] == ["features.conv1", "1"]
    assert any(line.endswith("are kept since they carry constants.") for line in lines)
    assert helped
    assert all(line.startswith("carrier of constants for features.conv") for line in helped)
    assert len(set(helped)) == len(helped)


def test_inspect_for_machines_agrees_with_the_weights(checkpoint, capsys):
    """Oracle: γ in the checkpoint itself."""
    assert slimnet_cli.run(["inspect", checkpoint, *ARCH, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    state = torch.load(checkpoint, weights_only=True)
    layer = next(layer for layer in document["layers"] if layer["name"] == "features.conv3")
    assert layer["gammas"] == pytest.approx(state["features.bn3.weight"].tolist())
    assert layer["dead"] == (state["features.bn3.weight"] < 1e-3).sum()
    kept = sum(sum(layer["kept_because"].values()) for layer in document["layers"])
    assert document["shares"]["dead"] == document["shares"]["removed"] + kept == document["dead_channels"]
    assert document["lines_of_code"] == []
    assert document["counted"]["macs"] == document["macs"]["before"] == sum(each["macs"] for each in document["layers"])
    assert document["counted"]["counted_by"].startswith("fvcore")


def test_slim_rounds_widths_where_it_is_asked_to(checkpoint, capsys, monkeypatch):
    assert slimnet_cli.run(["slim", checkpoint, *ARCH, "--dry-run", "--json", "--round", "8"]) == 0
    plan = SurgeryPlan.from_json(capsys.readouterr().out)
    assert plan.rounding == "multiples of 8"
    assert plan.removed_channels > 0
    assert all(each.channels_after % 8 == 0 or each.channels_after == each.channels_before for each in plan.layers)
    busy = dataclasses.replace(benchmark.environment(), other_work=1.5)
    monkeypatch.setattr(benchmark, "environment", lambda: busy)
    assert slimnet_cli.run(["slim", checkpoint, *ARCH, "--dry-run", "--json", "--round", "auto:torch"]) == 0
    shown = capsys.readouterr()
    assert "other programs keep 1.5 cores busy" in shown.err
    chosen = SurgeryPlan.from_json(shown.out)
    assert chosen.trials[0].rounding == "dense"
    assert chosen.trials[0].runtime == "torch"
    assert slimnet_cli.run(["slim", checkpoint, *ARCH, "--dry-run", "--json", "--round", "none"]) == 0
    assert SurgeryPlan.from_json(capsys.readouterr().out).rounding == "none"


def test_dry_run_prints_a_plan_that_can_be_read_back(checkpoint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert slimnet_cli.run(["slim", checkpoint, *ARCH, "--dry-run", "--json"]) == 0
    text = capsys.readouterr().out
    plan = SurgeryPlan.from_json(text)
    assert plan.removed_channels > 0
    assert json.loads(text)["shares"] == plan.shares.to_data()
    assert slimnet_cli.run(["slim", checkpoint, *ARCH, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("surgery plan for BasicNet")
    assert f"  {plan.shares}" in lines
    assert list(tmp_path.iterdir()) == []


def test_a_negative_threshold_is_refused(checkpoint, capsys):
    assert slimnet_cli.run(["inspect", checkpoint, *ARCH, "--threshold", "-1"]) == 2
    assert "threshold" in capsys.readouterr().err


def test_markup_in_names_is_shown_as_it_is(capsys, tmp_path):
    assert slimnet_cli.run(["inspect", str(tmp_path / "[red]x[/red].pt"), *ARCH]) == 2
    assert "[red]x[/red].pt" in capsys.readouterr().err


def test_the_histogram_counts_every_channel_and_parts_dead_from_alive():
    """Oracle: the numbers behind the bars."""
    lines = histogram([0.0, 1e-7, 9.9e-4, 1e-3, 0.5, 0.5, 2.0], 1e-3)
    edge = next(number for number, line in enumerate(lines) if "threshold" in line.plain)

    def counted(part) -> int:
        return sum(int(line.plain.split()[-1]) for line in part if "█" in line.plain)

    assert (counted(lines[:edge]), counted(lines[edge + 1 :])) == (3, 4)


@pytest.mark.parametrize(
    ("arch", "arguments", "shape"),
    [
        ("basicnet", {}, (3, 32, 32)),
        ("basicnet", {"in_channels": 1}, (1, 32, 32)),
        ("resnet56", {}, (3, 32, 32)),
        ("torchvision:resnet50", {}, (3, 224, 224)),
        ("torchvision:inception_v3", {}, (3, 299, 299)),
        ("mypackage.nets:inception_v3", {"in_chans": 4}, (4, 299, 299)),
        ("timm:resnet18", {}, (3, 224, 224)),
    ],
)
def test_inputs_have_the_shape_that_is_usual_for_the_architecture(arch, arguments, shape):
    assert usual_shape(arch, arguments) == shape


def test_checks_names_versions_and_what_works(capsys):
    assert slimnet_cli.run(["checks", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["environment"]["torch"] == torch.__version__
    assert document["checks"]["onnxruntime"]["works"]
    assert slimnet_cli.run(["checks"]) == 0
    assert torch.__version__ in capsys.readouterr().out


def test_train_writes_a_checkpoint_that_loads(capsys, tmp_path):
    path = tmp_path / "net.pt"
    arguments = ["train", "digits", "-o", str(path), "--iterations", "3", "--json", *ARCH[:4]]
    assert slimnet_cli.run(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["recipe"]["iterations"] == 3
    assert document["accuracy"]["n"] == len(load_data("digits").x_test)
    recipe = document["recipe"]
    assert isinstance(load_checkpoint(path, recipe["arch"], recipe["arch_args"]), nn.Module)


def test_train_says_what_to_do_next_and_that_works(capsys, tmp_path):
    """The command that it prints is run as it stands, but for a dry run."""
    import shlex

    path = tmp_path / "a net.pt"
    assert slimnet_cli.run(["train", "digits", "-o", str(path), "--iterations", "2"]) == 0
    command = shlex.split(capsys.readouterr().out.split("next: ")[1])
    assert slimnet_cli.run([*command[1:], "--dry-run"]) == 0


def test_interrupted_training_saves_where_it_got_to(tmp_path):
    """Oracle: the exit code, one line on stderr, and the iteration in a checkpoint that loads."""
    path = tmp_path / "net.pt"
    script = "import slimnet_cli.output.terminal as t; t.SECONDS_BETWEEN_LINES = 0; slimnet_cli.main()"
    command = [sys.executable, "-c", script.replace("import ", "import slimnet_cli, "), "train", "digits"]
    process = subprocess.Popen(
        [*command, "-o", str(path), "--iterations", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    read_to_progress(process.stderr)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LONGEST_WAIT)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert f"saved to {path}" in err.splitlines()[-1]
    assert 0 < torch.load(path, weights_only=True)["iteration"] < 1_000_000


def test_an_interrupt_elsewhere_is_quiet(monkeypatch, capsys):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(slimnet_cli.commands.commands["checks"], "callback", interrupted)
    assert slimnet_cli.run(["checks"]) == 130
    written = capsys.readouterr()
    assert (written.out, written.err.strip()) == ("", "")


def test_a_reader_that_has_had_enough_is_no_error(checkpoint):
    command = [sys.executable, "-c", "import slimnet_cli; slimnet_cli.main()", "inspect", checkpoint, *ARCH]
    process = subprocess.run(["bash", "-c", f"{shlex.join(command)} | true"], capture_output=True, text=True)
    assert "Traceback" not in process.stderr
    assert "Exception" not in process.stderr


def test_a_bug_keeps_its_traceback(monkeypatch):
    """Only what the library refuses becomes one line; anything else must not be hidden."""

    def broken(**_):
        raise ZeroDivisionError

    monkeypatch.setattr(slimnet_cli.commands.commands["checks"], "callback", broken)
    with pytest.raises(ZeroDivisionError):
        slimnet_cli.run(["checks"])


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    def full(**_):
        raise OSError(28, "No space left on device", "slim/model.onnx")

    monkeypatch.setattr(slimnet_cli.commands.commands["checks"], "callback", full)
    assert slimnet_cli.run(["checks"]) == 1
    assert capsys.readouterr().err == "error: slim/model.onnx: No space left on device\n"


@pytest.mark.parametrize(
    "command",
    [
        ["train", "digits", "-o", "out"],
        ["reproduce", "table1", "--dry-run", "--scale", "full", "-o", "out"],
        ["sweep", "grid.toml", "-o", "out"],
        ["compare", "net.pt", "--arch", "basicnet", "--data", "digits", "--budget", "0.5"],
    ],
)
@pytest.mark.parametrize("device", ["abacus", "meta", "mps:3", "cuda:77"])
def test_a_device_that_is_not_there_is_refused_in_one_line(command, device, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.toml").write_text('[base]\narch = "basicnet"\ndata = "digits"\niterations = 1\n')
    (tmp_path / "net.pt").touch()
    assert slimnet_cli.run([*command, "--device", device]) == 2
    written = capsys.readouterr()
    assert written.err.count("\n") == 1
    assert f"there is no device '{device}' here" in written.err
    assert written.out == ""


SIZES_OF_NO_MACHINE = {
    "allocator": lambda: torch.empty(2**60),
    "bytes beyond 64 bits": lambda: torch.empty(2**62),
    "numbers beyond 64 bits": lambda: torch.zeros(1).expand(2**62, 4).clone(),
    "bytes": lambda: bytes(2**62),
    "list": lambda: [0] * 2**60,
}


@pytest.mark.parametrize("make", SIZES_OF_NO_MACHINE.values(), ids=SIZES_OF_NO_MACHINE)
def test_a_machine_without_the_memory_is_one_line(make, capsys, monkeypatch, tmp_path):
    """What torch and Python raise themselves for sizes that no machine has; the work failed, the request was right."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.pt").touch()
    monkeypatch.setattr("slimnet_cli.options.sources.Source.load", lambda _: make())
    assert slimnet_cli.run(["inspect", "net.pt", "--arch", "resnet20"]) == 1
    written = capsys.readouterr().err.splitlines()
    assert len(written) == 1
    assert written[0].startswith("error: not enough memory (")
