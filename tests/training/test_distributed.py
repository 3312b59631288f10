"""Several processes train as one would: the same batches, and the same weights where no BatchNorm tells them apart."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import slimnet_cli
import torch
from processes import LONGEST_WAIT, below, environment_of, forkserver
from runs import DROPPING, finished, images, recipe
from slimnet_cli.progress.live_run import stop_on_interrupt
from slimnet_cli.progress.signals import Terminated
from slimnet_cli.progress.training_run import single_error_report
from torch import nn

from slimnet.errors import SlimnetError, UsageError
from slimnet.training import Recipe, TrainingRun, train
from slimnet.training.loop.batches import ResidentBatches
from slimnet.training.loop.distributed import Ranks, joined, lost_peers_reported
from slimnet.training.run.checkpoints import newest
from slimnet.training.run.resumable_run import Interval, KeptRun
from slimnet.training.run.run_folder import create_run, reopen_run

PLAIN = {"arch": f"{__name__}:Plain", "arch_args": {}}
EVALUATING = {"arch": f"{__name__}:Evaluating", "arch_args": {}}
NARROW = ("--arch", "basicnet", "--arch-args", '{"widths": [4, 8], "pool_after": [1], "hidden": 8}')
GONE = (
    "error: one of the 2 processes of this run has ended, so the others stop; resume a run in a folder with --resume, "
    "with any number of processes"
)
Work = Callable[[Ranks], Any]


class Plain(nn.Module):
    """A convolution and a linear layer, with nothing between them that looks at the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.unused = nn.Linear(2, 2)
        self.scores = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(self.conv(x).relu().mean((2, 3)))


class Evaluating(nn.Module):
    """A network whose BatchNorm stays in evaluation mode, as when one is fine-tuned."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.scores = nn.Linear(4, 3)

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(self.norm(self.conv(x)).relu().mean((2, 3)))


def one_of(number: int, count: int, port: int, work: Work, answers: Any) -> None:
    """A process as torchrun starts it."""
    torch.set_num_threads(1)
    places = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in places.items()}, MASTER_ADDR="localhost")
    with joined("cpu") as ranks, lost_peers_reported(ranks):
        answers.put((number, work(ranks)))


def together(work: Work, count: int = 2) -> list[Any]:
    """What each of several processes finds; `work` has to be picklable."""
    context = forkserver()
    answers = context.SimpleQueue()
    port = free_port()
    processes = [context.Process(target=one_of, args=(n, count, port, work, answers)) for n in range(count)]
    for process in processes:
        process.start()
    # Small answers fit into the pipe, so a process ends whether they have been read or not.
    for process in processes:
        process.join(LONGEST_WAIT)
    assert [process.exitcode for process in processes] == [0] * count
    found = dict(answers.get() for _ in processes)
    return [found[number] for number in range(count)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


class Weights:
    """Trains a recipe and answers with its weights as plain lists, and with the reports."""

    def __init__(self, plan: Recipe) -> None:
        self.plan = plan

    def __call__(self, ranks: Ranks) -> tuple[dict[str, list], list[tuple[float, float]]]:
        run = train(self.plan, images(), every=3, ranks=ranks)
        reports = [(progress.loss, progress.accuracy) for progress in run]
        return {name: value.tolist() for name, value in run.model.state_dict().items()}, reports


@pytest.mark.parametrize("network", [PLAIN, EVALUATING], ids=["no BatchNorm", "BatchNorm in eval mode"])
def test_two_processes_end_with_the_weights_of_one(network):
    """Oracle: one process. The batch size is that of both together, across the end of a pass and with flips."""
    plan = recipe(batch_size=10, iterations=8, lr=0.01, l2=0.01, flips=True, crop=1, drops=(5,), **network)
    (weights, reports), (others, their_reports) = together(Weights(plan))
    alone, own_reports = Weights(plan)(Ranks())
    assert weights == others
    for name, value in alone.items():
        torch.testing.assert_close(torch.tensor(weights[name]), torch.tensor(value), rtol=1e-4, atol=1e-6)
    assert reports == their_reports
    torch.testing.assert_close(torch.tensor(reports), torch.tensor(own_reports), rtol=1e-4, atol=1e-6)


def first_gradients(ranks: Ranks) -> dict[str, list]:
    """The gradients of the first step of a network with BatchNorm."""
    run = train(recipe(batch_size=10), images(), ranks=ranks)
    run._advance(0)
    return {name: parameter.grad.tolist() for name, parameter in run.model.named_parameters()}


def test_with_batchnorm_gradients_are_the_mean_over_the_parts_of_the_batch():
    """Oracle: the plain network on each half of the batch by itself, as its own statistics have it."""
    first, second = together(first_gradients)
    assert first == second
    plan, data = recipe(batch_size=10), images()
    expected: dict[str, list[torch.Tensor]] = {}
    for part in range(2):
        model = train(plan, data).model
        batches = ResidentBatches(data, plan, torch.device("cpu"), (part, 2))
        pixels, labels = batches.assemble(batches.bring(0))
        nn.functional.cross_entropy(model(pixels), labels).backward()
        for name, parameter in model.named_parameters():
            expected.setdefault(name, []).append(parameter.grad)
    for name, halves in expected.items():
        torch.testing.assert_close(torch.tensor(first[name]), torch.stack(halves).mean(0), rtol=1e-4, atol=1e-6)


def drawn_masks(ranks: Ranks) -> list[list[bool]]:
    """What dropout takes from the first layer in two steps: it tells the processes' random streams apart."""
    run = train(recipe(**DROPPING, batch_size=2), images(), ranks=ranks)
    masks: list[list[bool]] = []
    run.model.dropout.register_forward_hook(lambda _, __, out: masks.append((out == 0).flatten().tolist()))
    for _ in range(2):
        next(run)
    return masks


def test_processes_draw_their_own_dropout():
    first, second = together(drawn_masks)
    assert first[0] != second[0]
    assert first[0] != first[1]


class InFolder:
    """Trains in a folder, by every process; the first one tells the run to stop after some iterations."""

    def __init__(self, path: Path, plan: Recipe, until: int | None = None) -> None:
        self.path, self.plan, self.until = path, plan, until

    def __call__(self, ranks: Ranks) -> int:
        if not ranks.first:
            return self.trained(None, ranks)
        with reopen_run(self.path) if self.path.exists() else create_run(self.path, self.plan) as folder:
            return self.trained(folder, ranks)

    def trained(self, folder: Any, ranks: Ranks) -> int:
        begin = lambda state: train(self.plan, images(), every=3, ranks=ranks, state=state)  # noqa: E731
        kept = KeptRun(folder, begin, ranks=ranks, interval=Interval(3))
        for progress in kept:
            if ranks.first and progress.iteration == self.until:
                kept.run.stop()
        kept.close()
        return kept.run.iteration


def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    """Two, then one, then three. Oracle: one alone."""
    plan = recipe(batch_size=6, iterations=18, lr=0.01, **PLAIN)
    stopped = together(InFolder(tmp_path / "run", plan, until=6))
    assert stopped == [9, 9]
    assert InFolder(tmp_path / "run", plan, until=12)(Ranks()) == 12
    assert together(InFolder(tmp_path / "run", plan), 3) == [18, 18, 18]
    state = torch.load(tmp_path / "run" / "model.pt", weights_only=True)["state_dict"]
    torch.testing.assert_close(state, finished(train(plan, images())), rtol=1e-4, atol=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [3, 6, 9, 12, 15, 18]
    processes = [
        json.loads(line)["processes"] for line in (tmp_path / "run" / "sessions.jsonl").read_text().splitlines()
    ]
    assert processes == [2, 1, 3]


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UsageError, match="a batch of 5 images cannot be shared by 2 processes") as caught:
        train(recipe(batch_size=5), images(), ranks=Ranks(0, 2))
    assert "\n" not in str(caught.value)


def test_synchronised_batchnorm_needs_gpus():
    with pytest.raises(UsageError, match="sync_batchnorm needs GPUs"):
        train(recipe(batch_size=4, sync_batchnorm=True), images(), ranks=Ranks(0, 2))
    assert train(recipe(batch_size=4, sync_batchnorm=True), images()).iteration == 0


def test_errors_of_other_kinds_are_not_taken_for_a_lost_process():
    with pytest.raises(RuntimeError, match="shape"), lost_peers_reported(Ranks(0, 2)):
        raise RuntimeError("shape '[3]' is invalid")
    with (
        pytest.raises(SlimnetError, match="one of the 2 processes of this run has ended"),
        lost_peers_reported(Ranks(0, 2)),
    ):
        raise RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer")


# ---- under torchrun, as people start it


SLOW = """
import time
import slimnet_cli
from slimnet.training.loop.distributed import Ranks
say_once = Ranks.say_once
def say_late(self, say):
    time.sleep(3)
    say_once(self, say)
Ranks.say_once = say_late
slimnet_cli.main()
"""
"""A command line that takes long to say what went wrong: torchrun looks after its processes ten times a second."""


def torchrun(*arguments: str, program: Sequence[str] = ("-m", "slimnet_cli")) -> subprocess.Popen[str]:
    """`slimnet train` in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [*command, *program, "train", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_second(process: subprocess.Popen[str]) -> None:
    """Kill the second of the processes that torchrun started."""
    second = next(pid for pid in below(process.pid) if environment_of(pid).get("RANK") == "1")
    os.kill(second, signal.SIGKILL)


def said(errors: str) -> list[str]:
    """What slimnet itself said was wrong."""
    return [line for line in errors.splitlines() if line.startswith("error: ")]


def test_a_dead_process_ends_the_job_with_one_message_and_the_run_goes_on_without_it(tmp_path, capsys):
    """Two processes under torchrun, one killed; then one alone finishes the run.

    The other has torchrun's SIGTERM by the time that it says so, as on a busy machine.
    """
    folder = tmp_path / "run"
    (tmp_path / "slow.py").write_text(SLOW)
    options = ("--iterations", "1000000", "--checkpoint-every", "20", "--threads", "1")
    process = torchrun("digits", *NARROW, *options, "-o", str(folder), program=[str(tmp_path / "slow.py")])
    while process.poll() is None and not list(folder.glob("checkpoints/*.pt")):
        time.sleep(0.05)
    kill_second(process)
    output, errors = process.communicate(timeout=LONGEST_WAIT)
    assert process.returncode != 0
    assert output == ""
    assert said(errors) == [GONE]
    assert "2 processes share each batch of 20 images, 10 each" in errors
    at = newest(folder / "checkpoints").state["iteration"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingRun, "__next__", stopping_after(2, TrainingRun.__next__))
        assert slimnet_cli.run(["train", "--resume", str(folder)]) == 130
    assert f"resuming from iteration {at} of 1000000" in capsys.readouterr().err
    assert newest(folder / "checkpoints").state["iteration"] == at + 40


def stopping_after(reports: int, original: Callable[[TrainingRun], Any]) -> Callable[[TrainingRun], Any]:
    """A run's `__next__` that makes the run stop after some reports."""
    counted = iter(range(1, reports + 1))

    def report(run: TrainingRun) -> Any:
        progress = original(run)
        if next(counted) == reports:
            run.stop()
        return progress

    return report


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_a_failure_does_not_keep_a_process_from_saying_so(by, as_before):
    """In whichever order the two come, and as often as torchrun sends it."""
    wishes: list[None] = []

    def fail() -> None:
        signal.raise_signal(by)
        raise SlimnetError("one is gone")

    with pytest.raises(SlimnetError, match="gone"), stop_on_interrupt(lambda: wishes.append(None), patient=True):
        fail()
    signal.raise_signal(by)
    signal.raise_signal(by)
    assert len(wishes) == 3


class Notes:
    """A store in this process, as `Ranks` uses it."""

    def __init__(self) -> None:
        self.counted, self.set = 0, lambda *_: None

    def add(self, _: str, number: int) -> int:
        self.counted += number
        return self.counted

    def wait(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_torchrun_ends_before_it_has_failed_says_so_unless_another_has(by, capsys):
    """Reading the data, say, where nothing tells it that another one is gone."""
    notes = Notes()
    for number in range(2):
        with pytest.raises(Terminated), single_error_report(Ranks(number, 2, store=notes)):
            raise Terminated(by)
    expected = f"error: ended by {by.name}: another of the 2 processes of this run has ended, or torchrun was asked"
    assert capsys.readouterr().err.splitlines() == [f"{expected} to end"]
    with pytest.raises(Terminated), single_error_report(Ranks()):
        raise Terminated(by)
    assert capsys.readouterr().err == ""


def test_of_several_processes_one_that_is_ended_elsewhere_is_quiet(monkeypatch, capsys, as_before):
    """Before it has found the others it cannot know what they have said."""

    def printed(_: object) -> int:
        raise Terminated(signal.SIGTERM)

    monkeypatch.setattr(slimnet_cli, "run", printed)
    for count, said_so in (("1", ["error: ended by SIGTERM; nothing half-written was left behind"]), ("2", [])):
        monkeypatch.setenv("WORLD_SIZE", count)
        with pytest.raises(SystemExit) as left:
            slimnet_cli.main()
        assert left.value.code == 143
        assert capsys.readouterr().err.splitlines() == said_so


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--batch-size", "21"), 2, "error: a batch of 21 images cannot be shared by 2 processes"),
        (("--cuda-graph",), 2, "error: no CUDA graph is possible"),
        (("--sync-batchnorm",), 2, "error: sync_batchnorm needs GPUs"),
        (("--image-size", "20"), 2, "error: digits has a size of its own"),
    ],
)
def test_what_several_processes_cannot_do_is_said_once(tmp_path, options, code, message):
    process = torchrun("digits", *NARROW, *options, "-o", str(tmp_path / "run"))
    output, errors = process.communicate(timeout=LONGEST_WAIT)
    assert output == ""
    assert [line[: len(message)] for line in said(errors)] == [message]
    assert f"exitcode  : {code}" in errors


@pytest.mark.sweep
def test_an_interrupted_job_saves_and_says_once_how_to_go_on(tmp_path):
    folder = tmp_path / "run"
    process = torchrun("digits", *NARROW, "--iterations", "100000", "-o", str(folder))
    metrics = folder / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=LONGEST_WAIT)
    assert errors.count(f"resume with: slimnet train --resume {folder}") == 1
    assert newest(folder / "checkpoints").state["iteration"] > 0
    assert said(errors) == []
