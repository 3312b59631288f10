"""slimnet train: what its options mean, and what a recipe is without them."""

import dataclasses
import json
import math

import click
import torch
from command_line import SHORT, TINY, recipe_of, run
from runs import images
from slimnet_cli.options.recipe import NAMES, RecipeOptions, fitting, recipe_options
from slimnet_cli.progress import live_run

from slimnet.data import load_data
from slimnet.models import build
from slimnet.training import Recipe
from slimnet.training.recipe.recipe import DIGITS_DEMO
from slimnet.training.run.run_folder import read_history


def test_every_field_of_a_recipe_has_an_option():
    """All but the data, which is the argument, and what is computed: the digest, and the lengths of a run before."""
    fields = {field.name for field in dataclasses.fields(Recipe)}
    assert set(NAMES) == fields - {"data", "warm_start_sha256", "lengths_before"}


WANTED = {
    "--batch-size": ("7", "batch_size", 7),
    "--seed": ("3", "seed", 3),
    "--lr": ("0.02", "lr", 0.02),
    "--betas": ("0.8,0.95", "betas", (0.8, 0.95)),
    "--eps": ("1e-6", "eps", 1e-6),
    "--gamma-lr-scale": ("2", "gamma_lr_scale", 2.0),
    "--beta-lr-scale": ("0", "beta_lr_scale", 0.0),
    "--gamma-init": ("0.5", "gamma_init", 0.5),
    "--beta-init": ("-0.1", "beta_init", -0.1),
    "--drops": ("1,2", "drops", (1, 2)),
    "--drop-factor": ("0.5", "drop_factor", 0.5),
    "--l2": ("0.002", "l2", 0.002),
    "--weight-decay": ("1e-4", "weight_decay", 1e-4),
    "--decoupled": ("1e-3", "decoupled", 1e-3),
    "--l1-gamma": ("1e-5", "l1_gamma", 1e-5),
    "--crop": ("2", "crop", 2),
    "--precision": ("bf16", "precision", "bf16"),
    "--cost-aware": ("params", "cost_aware", "params"),
}


def test_options_end_up_in_the_recipe(tmp_path):
    """All at once: what was typed is what the folder says was asked for."""
    typed = [text for option, (value, _, _) in WANTED.items() for text in (option, value)]
    assert run("digits", *SHORT, "--iterations", 2, *typed, "--flips", "-o", tmp_path / "run") == 0
    found = dataclasses.asdict(recipe_of(tmp_path / "run"))
    assert {name: found[name] for _, name, _ in WANTED.values()} == {name: value for _, name, value in WANTED.values()}
    assert found["flips"] is True
    assert found["arch_args"] == json.loads(TINY[3]) | {"num_classes": 10, "in_channels": 1}


def chosen(*arguments: str, source: str = "digits") -> Recipe:
    """The recipe of a command line, with nothing trained."""
    found = []

    @click.command()
    @recipe_options
    def probe(requested: RecipeOptions) -> None:
        data = load_data("digits") if source == "digits" else images()
        found.append(requested.recipe(data, source))

    probe.main(list(arguments), standalone_mode=False)
    return found[0]


def test_without_options_the_digits_are_the_demo_and_anything_else_is_the_paper():
    assert chosen() == DIGITS_DEMO
    paper = chosen(source="photos.npz")
    assert (paper.optimiser, paper.lr, paper.l2, paper.batch_size) == ("adam", 1e-3, 1e-4, 40)
    assert (paper.iterations, paper.drops, paper.flips) == (406_250, (312_500,), True)
    assert (paper.arch, paper.data) == ("basicnet", "photos.npz")
    assert paper.arch_args == {"num_classes": 3, "in_channels": 2}


def test_another_length_keeps_the_drop_at_its_share():
    assert chosen("--iterations", "5000").drops == (3000,)
    assert chosen("--iterations", "5000", "--drops", "10").drops == (10,)


def test_a_cosine_takes_the_place_of_the_usual_drop():
    falling = chosen("--cosine")
    assert (falling.cosine, falling.drops) == (True, ())


def test_another_optimiser_has_the_papers_settings():
    """The demo's learning rate and ε are Adam's; SGD begins at 0.1 with momentum 0.9."""
    sgd = chosen("--optimiser", "sgd", "--momentum", "0.5", "--nesterov")
    assert (sgd.lr, sgd.momentum, sgd.nesterov, sgd.l2) == (0.1, 0.5, True, DIGITS_DEMO.l2)
    assert chosen("--optimiser", "adam").lr == DIGITS_DEMO.lr
    assert chosen("--optimiser", "rmsprop", "--rho", "0.8").rho == 0.8


def test_networks_are_made_to_fit_the_data():
    data = images()
    assert fitting("resnet20", data) == {"num_classes": 3, "in_channels": 2}
    assert fitting("timm:resnet18", data) == {"num_classes": 3, "in_chans": 2}
    assert fitting("torchvision:resnet18", data) == {"num_classes": 3}
    assert fitting("package.module:factory", data) == {}
    for arch in ("vgg11", "densenet40", "timm:resnet18"):
        assert build(arch, fitting(arch, data))(torch.zeros(2, 2, 32, 32)).shape == (2, 3)


def test_a_recipe_file_is_where_options_begin(begun, tmp_path):
    file = str(begun / "recipe.json")
    recipe = recipe_of(begun)
    assert chosen("--recipe", file) == recipe
    assert chosen("--recipe", file, "--l2", "0.5") == dataclasses.replace(recipe, l2=0.5)
    assert run("--recipe", file, "--no-report", "-o", tmp_path / "again") == 0
    assert recipe_of(tmp_path / "again") == recipe
    first, second = (torch.load(path / "model.pt", weights_only=True) for path in (begun, tmp_path / "again"))
    assert all(map(torch.equal, first["state_dict"].values(), second["state_dict"].values()))


def test_a_warm_start_knows_its_network_and_says_how_long_it_will_take(begun, tmp_path, capsys):
    """Oracle for the forecast: SGD without momentum shrinks γ by 1 − lr·λ a step."""
    model = begun / "model.pt"
    sgd = ("--optimiser", "sgd", "--lr", "0.1", "--momentum", "0", "--l2", "0.5")
    assert run("digits", "--from", model, *sgd, "--iterations", 4, "--no-report", "-o", tmp_path / "on") == 0
    scales = read_history(begun).scales.values()
    median = float(torch.cat([scale[-1] for scale in scales]).abs().quantile(0.5))
    printed = capsys.readouterr().err
    assert f"will be dead in {math.ceil(math.log(median / 1e-3) / -math.log(0.95))} iterations" in printed
    assert "this run has 4" in printed
    recipe = recipe_of(tmp_path / "on")
    assert recipe.arch_args == recipe_of(begun).arch_args
    assert recipe.warm_start == str(model)
    assert recipe.warm_start_sha256 is not None


def test_a_warm_start_that_kills_nothing_says_so(begun, tmp_path, capsys):
    options = ("--iterations", 2, "--l2", "0", "--no-report")
    assert run("digits", "--from", begun / "model.pt", *options, "-o", tmp_path / "on") == 0
    assert "nothing in this recipe kills filters" in capsys.readouterr().err


def test_long_steps_are_announced_before_a_report_is_due(tmp_path, monkeypatch):
    """Twenty steps of a large network can take minutes; here every step is too long."""
    monkeypatch.setattr(live_run, "PATIENCE", 0.0)
    assert run("digits", "--iterations", 3, "--no-report", "-o", tmp_path / "run") == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2, 3]
