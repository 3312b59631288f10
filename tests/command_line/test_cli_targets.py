"""slimnet slim with a budget: it says that it is not exact, and what is left; misuse is one line."""

import dataclasses
import json

import pytest
import slimnet_cli
import torch
from networks import lively

from slimnet.benchmark import Latency
from slimnet.bundle.bundle import load, read_blueprint, read_certificate, verify_bundle
from slimnet.bundle.model_card import model_card
from slimnet.data import load_data
from slimnet.errors import UsageError
from slimnet.methods import Budget, remove_selected, score_channels, select_within_budget, synthesise_images
from slimnet.models import build
from slimnet.training import evaluate

ARGS = {"widths": [8, 12], "pool_after": [1], "hidden": 16, "in_channels": 1}
NETWORK = ["--arch", "basicnet", "--arch-args", json.dumps(ARGS), "--input-shape", "1,16,16"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("dense") / "net.pt"
    torch.save(lively(build("basicnet", ARGS)).state_dict(), path)
    return str(path)


def said(capsys, *arguments: str) -> tuple[int, str, str]:
    code = slimnet_cli.run([*arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_bundle_to_a_budget_says_what_it_is_relative_to(checkpoint, tmp_path, capsys, monkeypatch):
    """Accuracy before and after on the digits; the plan records the budget, and the certificate what it is against."""
    monkeypatch.setattr(slimnet_cli.output.terminal, "SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setattr(slimnet_cli.output.phases, "FIRST_LINE", 0)
    folder = tmp_path / "half"
    code, out, err = said(
        capsys, "slim", checkpoint, *NETWORK, "--target-macs", "0.5", "--data", "digits", "-o", str(folder)
    )
    assert code == 0
    words = " ".join(out.split())
    assert "This is not exact:" in words
    assert "the accuracy above is before any fine-tuning" in words
    assert "test images" in words
    assert "The remaining weights were fitted on 256 training images, without labels." in words
    assert "fitting weights: " in err
    for what in ("certificate", "accuracy of the dense network"):
        assert f"{what} 100 %, 359 of 359 images" in err
    plan, certificate = read_blueprint(folder).plan, read_certificate(folder)
    assert 0.3 < plan.macs_after / plan.macs_before <= 0.5
    assert "chosen by implicit for macs at most 0.5 of the dense network's" in plan.criterion
    assert (
        certificate.reference == "the dense network with the chosen channels at zero and the remaining weights fitted"
    )
    check_accuracies(checkpoint, folder, certificate)
    assert sum(p.numel() for p in load(folder).parameters()) == plan.params_after
    verify_bundle(folder)
    with pytest.raises(UsageError, match="remaining weights fitted; verify it without the dense one"):
        verify_bundle(folder, dense=build("basicnet", ARGS))


def check_accuracies(checkpoint, folder, certificate):
    """Oracle: the dense network, evaluated here. The card has its accuracy as the one before, and so has verify."""
    dense = build("basicnet", ARGS)
    dense.load_state_dict(torch.load(checkpoint))
    expected = evaluate(dense.eval(), load_data("digits"))
    masked, slim = certificate.accuracies
    assert certificate.dense_accuracy == certificate.accuracy_before == expected != masked
    before, after = (f"{100 * each.top1:.2f} %" for each in (expected, slim))
    assert f"accuracy {before} → {after}" in str(certificate)
    assert f"| Top-1 accuracy on {expected.n} images | {before} | {after} | |" in model_card(folder)


def test_the_network_is_corrected_on_as_many_images_as_one_says(checkpoint, tmp_path, capsys):
    """Oracle: the library's removal, with as many training images, with images made without any, and with none."""
    model, data = build("basicnet", ARGS), load_data("digits")
    model.load_state_dict(torch.load(checkpoint))
    example, _ = next(data.batches("test", 8))
    ranking = dataclasses.replace(score_channels("implicit", model.eval(), example, threshold=1e-3), threshold=1e-3)
    chosen = select_within_budget(model, example, ranking, Budget("macs", 0.5))
    made = synthesise_images(model, example)
    for number, (options, given, words) in enumerate(
        [
            (["--measure-on", "0"], {}, ""),
            (["--measure-on", "40", "--no-refit"], {"images": data.sample(40)}, "measured on 40 training images"),
            (["--measure-on", "40"], {"images": data.sample(40), "refit": True}, "fitted on 40 training images"),
            (["--measure-on", "0", "--refit"], {"images": made, "refit": True}, "made from BatchNorm statistics"),
        ]
    ):
        oracle = remove_selected(model, example, chosen, **given).model.state_dict()
        folder = tmp_path / str(number)
        line = ("slim", checkpoint, *NETWORK, "--target-macs", "0.5", "--data", "digits", *options)
        code, out, _ = said(capsys, *line, "-o", str(folder))
        assert code == 0
        found = " ".join(out.split())
        assert words in found
        assert bool(words) is ("training images" in found or "made from" in found)
        for name, tensor in load(folder).state_dict().items():
            torch.testing.assert_close(tensor, oracle[name], rtol=1e-3, atol=1e-4)


def test_a_dry_run_prints_the_plan_and_the_warning(checkpoint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = said(capsys, "slim", checkpoint, *NETWORK, "--target-params", "0.6", "--dry-run")
    assert code == 0
    assert "This is not exact:" in out
    assert "see what that costs with --data" in out
    assert not list(tmp_path.iterdir())


def test_machines_get_the_target_and_how_much_was_chosen(checkpoint, tmp_path, capsys):
    code, out, _ = said(
        capsys, "slim", checkpoint, *NETWORK, "--target-params", "0.6", "--method", "li2017", "--json", "-o",
        str(tmp_path / "small"),
    )  # fmt: skip
    document = json.loads(out)
    assert code == 0
    assert document["target"]["method"] == "li2017"
    assert document["target"]["exact"] is False
    removed = document["channels"]["before"] - document["channels"]["after"]
    assert document["target"]["chosen_channels"] == removed > 0
    assert document["parameters"]["after"] <= 0.6 * document["parameters"]["before"]


def test_dead_channels_alone_may_meet_the_budget(tmp_path, capsys):
    model = lively(build("basicnet", ARGS))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data[::2] = 0.0
    torch.save(model.state_dict(), tmp_path / "net.pt")
    code, out, _ = said(capsys, "slim", str(tmp_path / "net.pt"), *NETWORK, "--target-macs", "0.8", "--dry-run")
    assert code == 0
    assert "Dead channels alone meet the budget: this is exact." in out


def test_the_latency_of_what_was_made_is_measured_and_kept(checkpoint, tmp_path, capsys, monkeypatch):
    """In the words of the command, in its JSON, and in the bundle; a budget that is missed is said to be."""
    monkeypatch.setattr("slimnet.methods.latency_budget.measure", slower_than_asked)
    folder = tmp_path / "fast"
    wanted = ["--target-latency", "1", "--runtime", "torch", "-o", str(folder)]
    code, out, err = said(capsys, "slim", checkpoint, *NETWORK, *wanted)
    assert code == 0
    assert "latency under torch, batch 1, 1 thread: 2 → 3 ms, 1.50 of the dense network's" in out
    assert "1 was asked: the budget is missed" in out
    assert "slimnet slim --round auto:torch" in err
    kept = read_certificate(folder).latency
    assert kept is not None
    assert (kept.asked, kept.left, kept.missed) == (1.0, 1.5, True)
    verify_bundle(folder)


def slower_than_asked(contenders, inputs, settings):
    """The latency of networks of which the second always takes 1.5 times as long."""
    times = ((2.0,) * 11, (3.0,) * 11)[: len(contenders)]
    return [Latency("torch", 1, 1, tuple(each.name for each in contenders), times)]


def test_a_budget_of_latency_is_measured(checkpoint, capsys):
    """Nothing is slower than the whole of what the dense network takes, to within what a busy machine adds."""
    code, out, _ = said(
        capsys, "slim", checkpoint, *NETWORK, "--target-latency", "1", "--runtime", "torch", "--dry-run"
    )
    assert code == 0
    assert "exact" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target-macs", "1.5"], "a budget of 1.5 is not a fraction of the dense network's macs in (0, 1]"),
        (["--target-params", "0"], "a budget of 0.0 is not a fraction of the dense network's params in (0, 1]"),
        (
            ["--target-macs", "0.001"],
            "implicit cannot leave 0.001 of the dense network's macs: the smallest possible is",
        ),
        (["--target-macs", "0.5", "--target-params", "0.5"], "there can be one budget"),
        (["--target-macs", "0.5", "--method", "liu"], "there is no method 'liu'; did you mean liu2017?"),
        (["--target-macs", "0.5", "--method", "taylor"], "taylor needs labelled images"),
        (["--target-macs", "0.5", "--method", "group-taylor"], "group-taylor needs labelled images"),
        (["--target-macs", "0.5", "--measure-on", "9"], "no images to measure BatchNorm statistics on; give"),
        (["--measure-on", "9"], "--measure-on is for a network at a budget"),
        (["--no-refit"], "--refit is for a network at a budget"),
        (["--method", "random"], "--method ranks channels for a budget"),
        (["--target-macs", "0.5", "--runtime", "torch"], "--runtime is for --target-latency; give that too"),
        (["--target-latency", "0.5", "--runtime", "torhc"], "torhc"),
    ],
)
def test_misuse_is_one_line(checkpoint, arguments, message, capsys):
    code, out, err = said(capsys, "slim", checkpoint, *NETWORK, *arguments, "--dry-run")
    assert code == 2
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
