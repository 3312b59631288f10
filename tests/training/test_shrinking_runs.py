"""A run that takes dead filters out as it trains: interrupted after a cut, reported, and used like any other."""

import dataclasses
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import slimnet_cli
import torch
from recomputed import capture_by_recomputing
from runs import TINY, everything, finished, images, recipe, same
from slimnet_cli.progress.live_run import described
from test_resume import keep, metrics

import slimnet
from slimnet.errors import UsageError
from slimnet.training import Recipe, TrainingRun, save_checkpoint, sparsity_by_gamma, train
from slimnet.training.analysis.metrics import batchnorm_scales
from slimnet.training.loop.cuda_graph_step import wanted
from slimnet.training.loop.distributed import ALONE, Ranks
from slimnet.training.recipe.machine_settings import Tuning
from slimnet.training.run.run_folder import read_history

WIDTHS = {**TINY, "widths": [8, 12], "hidden": 16}
FIRST, SECOND = slice(0, 8, 3), slice(1, None, 4)
"""Channels that are dead from the start, and those whose γ falls below the threshold within some twenty steps."""

CUTS = (6, 18)
"""Where they are removed, at the third look that finds them dead; 0.99 ^ 14 · 1.15e-3 is the first below 1e-3."""


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> str:
    """A checkpoint in which some channels are always 0: β is far below what γ can make up for in a batch of five."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = slimnet.build("basicnet", WIDTHS)
    with torch.no_grad():
        for name in batchnorm_scales(model):
            norm = model.get_submodule(name)
            for channels, size in ((FIRST, 5e-4), (SECOND, 1.15e-3)):
                norm.weight[channels], norm.bias[channels] = size, -0.04
    path = tmp_path_factory.mktemp("start") / "start.pt"
    return str(save_checkpoint(model, path, recipe(arch_args=WIDTHS), 0))


def dying(start: str, **changes: object) -> Recipe:
    """SGD whose L2 takes a hundredth of a dead γ at each step."""
    own = {"arch_args": WIDTHS, "iterations": 31, "shrink_every": 2, "warm_start": start}
    return recipe(**own | {"optimiser": "sgd", "momentum": 0.0, "lr": 0.1, "l2": 0.1} | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"cost_aware": "macs", "flips": True},
        {"momentum": 0.9, "lr": 0.02, "precision": "bf16"},
        {"optimiser": "adam", "lr": 1e-3, "eps": 1e-2, "weight_decay": 1e-2, "l2": 0.0},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_a_run_that_stops_right_after_a_cut_goes_on_bit_for_bit(start, tmp_path, changes):
    plan = dying(start, **changes)
    whole = keep(tmp_path / "whole", plan, images())
    for iteration in CUTS:
        parts = keep(tmp_path / "parts", plan, images(), until=iteration)
        assert parts.run.iteration == iteration
        assert parts.run.plan is not None
    parts = keep(tmp_path / "parts", plan, images())
    assert all(map(torch.equal, everything(whole.run), everything(parts.run)))
    assert same(whole.run.model.state_dict(), parts.run.model.state_dict())
    assert whole.run.plan == parts.run.plan
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    first, second = read_history(tmp_path / "whole"), read_history(tmp_path / "parts")
    assert same(first.scales, second.scales)
    assert {name: values.shape[1] for name, values in first.scales.items()} == {
        name: gamma.numel() for name, gamma in batchnorm_scales(slimnet.build("basicnet", WIDTHS)).items()
    }


def test_removed_filters_count_as_dead_and_reports_say_what_is_left(start):
    run = train(dying(start), images(), every=1, threads=1)
    reports = list(run)
    counts = [report.channels_removed for report in reports]
    rises = [report.iteration for report, (one, two) in zip(reports[1:], pairwise(counts), strict=True) if one != two]
    assert rises == list(CUTS)
    assert run.plan is not None
    assert sum(parameter.numel() for parameter in run.model.parameters()) == run.plan.params_after
    assert reports[-1].macs_left == run.plan.macs_after < run.plan.macs_before == reports[-1].macs
    share = round(100 * run.plan.macs_after / run.plan.macs_before)
    assert f"{run.plan.removed_channels} channels removed, {share} % of the MACs left" in described(reports[-1])
    assert "removed" not in described(reports[0])
    assert reports[4].sparsity == reports[5].sparsity == 6 / 20
    assert reports[-1].sparsity == run.sparsity() == sparsity_by_gamma(run.dense_model()) > sparsity_by_gamma(run.model)


def test_a_run_that_has_shrunk_is_the_one_that_has_not(start):
    """Truly dead channels change nothing: in float32 losses are those of the dense run but for rounding."""
    narrow, dense = (list(train(dying(start, shrink_every=n), images(), every=1, threads=1)) for n in (2, 0))
    losses = [torch.tensor([report.loss for report in reports]) for reports in (narrow, dense)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)


def test_the_finished_model_is_of_the_dense_shape_and_computes_what_the_narrow_one_does(start, tmp_path):
    kept = keep(tmp_path / "run", dying(start), images())
    for file in ("model.pt", "checkpoints/00000031.pt"):
        dense = slimnet.load_checkpoint(tmp_path / "run" / file, "basicnet", arch_args=WIDTHS)
        assert {name: value.shape for name, value in dense.state_dict().items()} == {
            name: value.shape for name, value in slimnet.build("basicnet", WIDTHS).state_dict().items()
        }
        inputs = torch.randn(9, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        wanted = kept.run.model.double().eval()(inputs)
        torch.testing.assert_close(dense.double().eval()(inputs), wanted, rtol=1e-13, atol=1e-13)
    slimmed = slimnet.slim(dense, inputs)
    assert slimmed.plan.params_after <= kept.run.plan.params_after


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": slimnet.build("basicnet", TINY)}, "only the network that the recipe builds"),
        ({"tuning": Tuning(cuda_graph=True)}, "no CUDA graph is possible"),
    ],
)
def test_what_cannot_shrink_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        TrainingRun(recipe(shrink_every=5), images(), **given)


def test_a_compiled_network_is_compiled_again_after_each_cut(start, monkeypatch):
    """torch's own tracing compiler runs, without a code generator behind it. Oracle: the run that is not compiled."""
    compiled, resets = [], []
    compile, reset = torch.compile, torch.compiler.reset

    def compile_eagerly(forward):
        compiled.append([tuple(parameter.shape) for parameter in forward.parameters()])
        return compile(forward, backend="eager")

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(len(compiled)) or reset())
    run = train(dying(start), images(), threads=1, tuning=Tuning(compiled=True))
    plain = train(dying(start), images(), threads=1)
    torch.testing.assert_close(finished(run), finished(plain), rtol=1e-4, atol=1e-6)
    assert run.plan == plain.plan
    assert resets == [1, 2]
    assert [shapes != compiled[-1] for shapes in compiled] == [True, True, False]


def test_a_graph_is_captured_again_after_each_cut(start, monkeypatch):
    """A graph needs a GPU; here it is the step that it would replay. Oracle: the run without graphs."""
    plain = train(dying(start), images(), threads=1)
    expected = finished(plain)
    captures = capture_by_recomputing(monkeypatch)
    run = train(dying(start), images(), threads=1)
    assert same(finished(run), expected)
    assert run.plan == plain.plan
    assert len(captures) == 1 + len(CUTS)
    widths = [each.shapes[0][0] for each in captures]
    assert widths == sorted(widths, reverse=True)
    assert wanted(recipe(shrink_every=5), Tuning(cuda_graph=True), torch.device("cuda"), ALONE)


@pytest.mark.parametrize("every", [-1, 2.5, True])
def test_looks_are_a_whole_number_of_iterations_apart(every):
    with pytest.raises(UsageError, match="shrink_every"):
        recipe(shrink_every=every)


def test_recipes_and_states_from_before_are_read():
    text = json.loads(recipe().to_json())
    del text["shrink_every"]
    assert Recipe.from_json(json.dumps(text)) == recipe()
    run = train(recipe(), images(), every=3)
    next(run)
    state = run.state()
    assert "shrinker" not in state
    assert same(finished(train(recipe(), images(), state=state)), finished(run))


def test_a_run_whose_first_cuts_are_not_recorded_goes_on_without_a_record(start):
    """Checkpoints of before hold no record of what was set to zero."""
    run = train(dying(start), images(), every=CUTS[0], threads=1)
    next(run)
    state = run.state()
    assert run.projections.count == 9
    del state["shrinker"]["projections"]
    later = train(dying(start), images(), every=CUTS[0], threads=1, state=state)
    assert [each.projection_change for each in later] == [None] * 5
    assert later.projections is None
    assert same(later.model.state_dict(), finished(run))
    state["shrinker"]["projections"] = "{}"
    with pytest.raises(slimnet.SlimnetError, match="record of what was set to zero lacks"):
        train(dying(start), images(), threads=1, state=state)


def test_a_state_without_its_shrinker_is_refused_in_one_line():
    run = train(recipe(shrink_every=5), images(), every=3)
    next(run)
    state = run.state()
    del state["shrinker"]
    with pytest.raises(slimnet.SlimnetError, match="not that of this run"):
        train(recipe(shrink_every=5), images(), state=state)


def test_the_command_line_trains_shrinking_goes_on_and_slims_the_result(start, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = images()
    np.savez("x.npz", x_train=data.x_train, y_train=data.y_train, x_test=data.x_test, y_test=data.y_test)
    Path("r.json").write_text(dying(start).to_json())
    train_it = ["train", "x.npz", "--recipe", "r.json", "--threads", "1", "--no-report"]
    assert slimnet_cli.run([*train_it, "-o", "run", "--json"]) == 0, capsys.readouterr().err
    result = json.loads(capsys.readouterr().out)
    assert result["dead_filters"] > 0.5
    assert result["bundle"] == "run/slim"
    saved = result["savings"]
    assert saved["channels_removed"] == read_history("run").progress[-1].channels_removed
    assert 0 < saved["macs_left"] < saved["macs"]
    assert slimnet_cli.run(["verify", "run/slim", "--dense", "run/model.pt"]) == 0, capsys.readouterr().err
    assert_certified("run", capsys.readouterr().out)
    slim = slimnet.load("run/slim")
    dense = slimnet.load_checkpoint("run/model.pt", "basicnet", arch_args=WIDTHS)
    inputs = torch.randn(4, 2, 8, 8)
    torch.testing.assert_close(slim(inputs), dense.eval()(inputs), rtol=1e-4, atol=1e-5)
    assert 0 < sum(each.numel() for each in slim.parameters()) < sum(each.numel() for each in dense.parameters()) / 2
    assert slimnet_cli.run(["train", "--resume", "run", "--shrink-every", "2", "--no-report"]) == 0
    removed, share = saved["channels_removed"], round(100 * saved["macs_left"] / saved["macs"])
    assert f"\n{removed} channels removed in training, {share} % of the MACs left\n" in capsys.readouterr().out
    slim = ["slim", "run/model.pt", "--arch", "basicnet", "--arch-args", json.dumps(WIDTHS), "--input-shape", "2,8,8"]
    assert slimnet_cli.run([*slim, "-o", "slim"]) == 0, capsys.readouterr().err
    assert not Path("other").exists()


def assert_certified(run: str, said: str) -> None:
    """Check what a bundle says of the projections: their bounds were kept, and they are those that the run removed."""
    record = slimnet.verify_bundle(f"{run}/slim").projections
    assert [cut.iteration for cut in record.cuts] == list(CUTS)
    expected = {f"{name}.weight": {*range(gamma.shape[1])[FIRST]} for name, gamma in read_history(run).scales.items()}
    assert {name: set(channels) for name, channels in record.cuts[0].channels.items()} == expected
    assert all(-0.1 < cut.highest_shift <= record.largest_shift == 1e-3 for cut in record.cuts)
    assert f"{record.count} channels set to zero in training (2 cuts, iterations 6 to 18; β up to " in said
    last = read_history(run).progress[-1]
    assert last.projection_change == record.received is not None


def revived_by_hand(start: str, every: int) -> int:
    """Trains the dense network by itself, and counts what has come back of the channels that the other run removed."""
    run = train(dying(start), images(), every=every, threads=1)
    dense = train(dying(start, shrink_every=0), images(), every=every, threads=1)
    seen: dict[tuple[str, int], bool] = {}
    for _ in zip(run, dense, strict=True):
        for cut in run.plan.cuts if run.plan else ():
            if cut.tensor.endswith("weight") and cut.tensor.rpartition(".")[0] in batchnorm_scales(dense.model):
                gamma = dense.model.get_parameter(cut.tensor).detach().abs()
                for channel in set(range(len(gamma))) - set(cut.keep):
                    if gamma[channel] < 1e-3:
                        seen.setdefault((cut.tensor, channel), False)
                    elif (cut.tensor, channel) in seen:
                        seen[cut.tensor, channel] = True
    return sum(seen.values())


def test_a_shadow_counts_the_removed_filters_that_come_back_in_the_dense_run(start, tmp_path, monkeypatch):
    """A dead γ that grows by 1e-4 a step comes back. Oracle: the dense run alone; the shrinking one is unchanged."""
    plain = train(dying(start), images(), every=1, threads=1)
    reports = list(plain)
    run = train(dying(start), images(), every=1, threads=1, shadow=True)
    beside = list(run)
    assert [dataclasses.replace(each, revived=None, revived_alive=None, seconds=0.0) for each in beside] == [
        dataclasses.replace(each, seconds=0.0) for each in reports
    ]
    assert {(each.revived, each.revived_alive) for each in beside} == {(0, 0)}
    assert revived_by_hand(start, 1) == 0

    advance = TrainingRun._take_step

    def growing(self: TrainingRun) -> None:
        advance(self)
        if not self.recipe.shrink_every and self.iteration > 10:
            with torch.no_grad():
                self.model.features.bn2.weight[3].add_(1e-4)

    monkeypatch.setattr(TrainingRun, "_take_step", growing)
    expected = revived_by_hand(start, 1)
    assert expected == 1
    run = train(dying(start), images(), every=1, threads=1, shadow=True)
    counts = [each.revived for each in run]
    assert counts[-1] == expected
    again = dataclasses.replace(beside[-1], revived=3, revived_alive=1)
    assert "3 came back in the dense run (1 alive)" in described(again)
    state = None
    for _ in range(2):
        run = train(dying(start), images(), every=1, threads=1, shadow=True, state=state)
        halves = [next(run).revived for _ in range(15)]
        torch.save(run.state(), tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert halves == counts[15:30]


def test_rounded_widths_are_exact_at_the_end_whether_or_not_the_run_was_interrupted(start, tmp_path):
    """Oracle for the end: the run without rounding removes the same channels, and computes the same but for rounding.

    Of 8, 12 and 16 channels 3 or 4 are dead at first, and a multiple of 4 stays; 3, 6 and 9 are alive at the end.
    """
    plan = dying(start, shrink_round=4)
    whole, exact = keep(tmp_path / "whole", plan, images()), keep(tmp_path / "exact", dying(start), images())
    removed = {}
    for each in train(plan, images(), every=1, threads=1):
        removed.setdefault(each.channels_removed, each.iteration)
    assert removed == {None: 1, 36 - 24: CUTS[1], 36 - 18: plan.iterations}
    for iteration in (CUTS[0], CUTS[1], plan.iterations - 1, plan.iterations, plan.iterations):
        parts = keep(tmp_path / "parts", plan, images(), until=iteration)
    assert parts.run.iteration == plan.iterations
    assert all(map(torch.equal, everything(whole.run), everything(parts.run)))
    assert whole.run.plan == parts.run.plan
    assert parts.run.projections == whole.run.projections
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert whole.run.plan.cuts == exact.run.plan.cuts
    assert {name: value.shape for name, value in whole.run.model.state_dict().items()} == {
        name: value.shape for name, value in exact.run.model.state_dict().items()
    }
    inputs = torch.randn(9, 2, 8, 8)
    outputs = [run.model.eval()(inputs) for run in (whole.run, exact.run)]
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-4)


def test_a_filter_that_came_back_and_died_again_is_not_alive_at_the_end(start, monkeypatch):
    """One γ of the dense run is as large as this text says at each iteration; the other run has removed its channel."""
    advance = TrainingRun._take_step
    sizes = {
        **dict.fromkeys(range(10, 20), 1.0),
        **dict.fromkeys(range(20, 25), 0.0),
        **dict.fromkeys(range(25, 28), 1.0),
    }

    def step(self: TrainingRun) -> None:
        advance(self)
        if not self.recipe.shrink_every:
            with torch.no_grad():
                self.model.features.bn2.weight[3] = sizes.get(self.iteration, 0.0)

    monkeypatch.setattr(TrainingRun, "_take_step", step)
    found = {}
    for each in train(dying(start), images(), every=1, threads=1, shadow=True):
        found.setdefault((each.revived, each.revived_alive), each.iteration)
    assert found == {(0, 0): 1, (1, 1): 10, (1, 0): 20}


def test_a_shadow_needs_a_run_that_shrinks():
    assert train(recipe(shrink_every=5, shrink_round=4), images(), shadow=True)
    with pytest.raises(UsageError, match="set shrink_every as well"):
        train(recipe(), images(), shadow=True)
    with pytest.raises(UsageError, match="2 processes cannot train a shadow"):
        train(recipe(shrink_every=5, batch_size=4), images(), shadow=True, ranks=Ranks(0, 2))
