"""The paper as data: complete, true to what is printed, and every row a recipe that can be run."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from cifar import shared_file

from slimnet.data import ImageData, load_data
from slimnet.errors import ArchitectureError, DataError, UsageError
from slimnet.models import build
from slimnet.models.basicnet import WIDTHS
from slimnet.reproduction import catalogue, images, measure, results
from slimnet.reproduction.catalogue import READINGS, by_worth, figures, tables
from slimnet.reproduction.pruned import Convolution, convolutions_of, share_pruned
from slimnet.reproduction.scales import describe_scale, recipe_of
from slimnet.training import Recipe

ROWS = {
    "table1": 35, "table2": 8, "table3": 7, "table4": 3, "table5": 4, "table6": 2, "table7": 4, "table8": 3,
    "table9": 3, "table10": 3, "supp-table1": 8, "supp-table2": 8, "supp-table3": 5, "supp-table4": 9,
}  # fmt: skip
"""How many rows the paper prints."""

ENTRIES = by_worth()
BASICNET = ((64, 25), (128, 9), (128, 9), (256, 9), (256, 9), (512, 9), (512, 9))
"""Outputs and taps of C1 to C7."""


def numbers(value):
    """All numbers in nested data, as a sorted list."""
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, int | float):
        return [float(value)]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sorted(number for part in parts for number in numbers(part))


def test_every_printed_row_has_a_cell():
    found = {name: len({entry.row for entry in table.entries}) for name, table in tables().items()}
    assert found == ROWS
    assert {entry.name for table in tables().values() for entry in table.entries} == {each.name for each in ENTRIES}
    assert len({entry.name for entry in ENTRIES}) == sum(len(table.entries) for table in tables().values())


def test_the_numbers_are_those_that_were_collected_from_the_paper():
    """Oracle: the collection that the tables were written down from, row by row for table 1, all of table 2."""
    printed = json.loads(shared_file("../paper_numbers.json").read_text())["seed"]
    ours = {entry.row: {} for entry in tables()["table1"].entries}
    for entry in tables()["table1"].entries:
        ours[entry.row][entry.data] = entry.paper
    rows = [
        row
        for kind in ("L2", "WD")
        for optimiser in printed["table1_basicnet_optimizer_reg"][kind].values()
        for row in optimiser
    ]
    assert len(rows) == len(ours)
    for row, (label, found) in zip(rows, ours.items(), strict=True):
        assert float(label.rpartition(" ")[2]) == row["lambda"]
        for data, prefix in (("cifar10", "c10"), ("cifar100", "c100")):
            values = [row[f"{prefix}_{name}"] for name in ("gamma", "act", "err")]
            assert [found[data][name] for name in ("gamma", "activation", "error")] == values
    for row, entry in zip(printed["table2_layerwise_c100"]["rows"], tables()["table2"].entries, strict=True):
        checks = {"check_params_pruned_from_layerwise", "check_total_from_layerwise", "lambda"}
        assert numbers({k: v for k, v in row.items() if k not in checks}) == numbers(dict(entry.paper))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_row_is_a_recipe_at_every_scale_or_says_whose_it_is(entry):
    assert set(entry.paper) <= set(READINGS)
    for scale in ("full", "middle", "small"):
        recipe = recipe_of(entry, scale)
        assert (recipe is None) == (entry.of is not None)
        if recipe is not None:
            assert Recipe.from_json(recipe.to_json()) == recipe
            with torch.device("meta"):
                network = build(recipe.arch, recipe.arch_args)
            assert convolutions_of_widths(network) or recipe.arch == "basicnet"


def convolutions_of_widths(network):
    return [module.out_channels for module in network.modules() if isinstance(module, torch.nn.Conv2d)]


def test_a_full_recipe_is_the_papers_schedule():
    """406,250 iterations whatever the batch size, the drop after 250 of 325 epochs (section 3)."""
    for batch in (20, 40, 80):
        recipe = recipe_of(catalogue.entry("table3", f"L2 1e-3, batch {batch}", "cifar100"), "full")
        assert (recipe.iterations, recipe.drops, recipe.batch_size) == (406_250, (312_500,), batch)
        assert (recipe.optimiser, recipe.lr, recipe.l2, recipe.flips) == ("adam", 1e-3, 1e-3, True)
        assert recipe.arch_args == {"num_classes": 100}
    decay = recipe_of(catalogue.entry("table1", "SGD, WD 5e-4", "cifar10"), "full")
    assert (decay.weight_decay, decay.l2, decay.lr, decay.momentum) == (5e-4, 0, 0.1, 0.9)


def test_a_small_recipe_is_narrower_but_less_so_in_the_first_layer():
    """What the small scale says of itself, for one row: λ and Adam's learning rate tenfold, SGD's as it is."""
    small = catalogue.document("experiments.json")["small"]
    full, less, other = (
        recipe_of(catalogue.entry(*place, "cifar10"), scale)
        for place, scale in (
            (("table4", "64-0.5x"), "full"),
            (("table4", "64-0.5x"), "small"),
            (("table1", "SGD, WD 5e-4"), "small"),
        )
    )
    assert less.arch_args["widths"] == [round(64 * small["first_width"]), 8, 8, 16, 16, 32, 32]
    assert (less.l2, less.lr) == pytest.approx((small["strength"] * full.l2, small["lr"]["adam"] * full.lr))
    assert (other.weight_decay, other.lr) == pytest.approx((small["strength"] * 5e-4, 0.1))
    assert recipe_of(catalogue.entry("table1", "Adam, L2 1e-6", "cifar10"), "small").l2 == 1e-5
    narrow = recipe_of(catalogue.entry("table7", "Adam, L2 1e-4, batch 40", "cifar10"), "small")
    assert narrow.arch_args["width"] == small["width"]


def test_a_middle_recipe_is_narrower_and_shorter_and_else_the_papers():
    """On all images; table 1's network has the widths of table 4's narrowest, and its own optimiser and precision."""
    middle = catalogue.document("experiments.json")["middle"]
    for row in ("Adam, L2 1e-3", "SGD, WD 5e-4"):
        full, less = (recipe_of(catalogue.entry("table1", row, "cifar10"), scale) for scale in ("full", "middle"))
        share = less.iterations / full.iterations
        assert less.iterations == middle["iterations"]
        assert less.drops[0] == pytest.approx(full.drops[0] * share, abs=1)
        assert less.arch_args == {"num_classes": 10, "widths": list(WIDTHS["32-0.25x"])}
        strengths = {name: getattr(full, name) * middle["strength"] for name in ("l2", "weight_decay")}
        assert {name: getattr(less, name) for name in strengths} == pytest.approx(strengths)
        assert (
            replace(less, **{name: getattr(full, name) for name in ("arch_args", "iterations", "drops", *strengths)})
            == full
        )


@pytest.mark.parametrize("scale", ["middle", "small"])
def test_a_scale_says_how_it_differs_from_the_paper(scale):
    text, reduction = describe_scale(scale), catalogue.document("experiments.json")[scale]
    assert text.startswith(f"{scale.capitalize()} scale, which is not the paper's: {reduction['width']:g} of the width")
    assert f"{reduction['iterations']:,} iterations in place of 406,250" in text
    assert ("all images" in text) == ("images" not in reduction)
    assert ("SGD's learning rate cannot be higher" in text) == bool(reduction["lr"])


def test_rows_of_two_tables_are_one_recipe():
    one, two = (recipe_of(catalogue.entry(name, "Adam, WD 2e-4", "cifar100"), "full") for name in ("table1", "table2"))
    assert one == two


@pytest.mark.parametrize("name", ["table2", "supp-table1"])
def test_the_share_of_pruned_parameters_comes_out_as_printed(name):
    """All 16 rows from their printed layers, to under a point; the layers are printed in whole per cents."""
    for entry in tables()[name].entries:
        kept = [(1 - dead / 100) * width for dead, (width, _) in zip(entry.paper["layers"], BASICNET, strict=True)]
        chain = [Convolution(width, left, taps) for (width, taps), left in zip(BASICNET, kept, strict=True)]
        assert 100 * share_pruned(chain) == pytest.approx(entry.paper["pruned_params"], abs=0.99)


def test_the_total_follows_from_the_layers():
    """Doubtful rows are marked in the notes; none is off by more than the rounding of its layers."""
    for table in tables().values():
        for entry in table.entries:
            if "layers" in entry.paper and len(entry.paper["layers"]) == len(BASICNET):
                dead = sum(d * width for d, (width, _) in zip(entry.paper["layers"], BASICNET, strict=True)) / 1856
                assert dead == pytest.approx(entry.paper["gamma"], abs=1.0), entry.name


def test_figures_show_cells_of_tables():
    assert set(figures()) == {"fig2", "fig3", "fig5", "supp-fig1", "supp-fig2"}
    assert all(entry in tables()[entry.table].entries for figure in figures().values() for entry in figure.entries)


def test_the_most_telling_cells_come_first():
    """The order of worth: table 1's four rows on both data sets, then VGG-16."""
    first = [(entry.table, entry.row, entry.data) for entry in ENTRIES[:10]]
    rows = ("Adam, L2 1e-4", "Adam, L2 1e-3", "SGD, L2 1e-3", "Adam, WD 1e-4")
    assert first[:8] == [("table1", row, data) for row in rows for data in ("cifar10", "cifar100")]
    assert [each[0] for each in first[8:]] == ["table7"] * 2


def test_names_are_known_in_the_papers_order_and_unknown_ones_suggest_the_nearest():
    assert catalogue.wanted(["table3", "table1", "table3"]) == ("table1", "table3")
    assert catalogue.wanted(["trends", "table3"]) == ("table3", "trends")
    assert catalogue.wanted(["table4-64-1x-cifar10", "table3"]) == ("table3", "table4-64-1x-cifar10")
    assert set(catalogue.wanted(["all"])) == set(tables()) | set(figures()) | {"fig4", "supp-fig3"}
    with pytest.raises(UsageError, match="did you mean supp-table2"):
        catalogue.wanted(["suptable2"])


def pictures(size: int, count: int = 12) -> ImageData:
    pixels = torch.randint(256, (count, size, size, 3), dtype=torch.uint8, generator=torch.manual_seed(0))
    labels = torch.arange(count) % 3
    return ImageData.of("pictures", (pixels, labels), (pixels[:6], labels[:6]), "abc")


def test_a_small_data_set_is_the_same_random_part_every_time(tmp_path):
    """Oracle: each image is the mean of 2 × 2 pixels of one of the originals, with that one's label."""
    data = pictures(8)
    for name in ("one.npz", "two.npz"):
        images.write_small(data, tmp_path / name, size=4, train=5, test=6)
    one, two = (load_data(str(tmp_path / name)) for name in ("one.npz", "two.npz"))
    assert torch.equal(one.x_train, two.x_train)
    assert one.classes == ("a", "b", "c")
    assert (one.x_train.shape, one.x_test.shape) == ((5, 4, 4, 3), (6, 4, 4, 3))
    means = data.x_train.numpy().reshape(12, 4, 2, 4, 2, 3).mean((2, 4))
    for picture, label in zip(one.x_train.numpy(), one.y_train, strict=True):
        nearest = np.abs(means - picture).reshape(12, -1).max(1)
        assert nearest.min() <= 0.5
        assert data.y_train[nearest.argmin()] == label


def test_data_that_is_not_there_says_what_to_provide(tmp_path):
    for name, data in catalogue.datasets().items():
        with pytest.raises(DataError, match=f"{data.title} is not in") as caught:
            images.source_of(data, tmp_path)
        assert "\n" not in str(caught.value)
        (tmp_path / data.places[-1]).mkdir()
        found = images.source_of(data, tmp_path)
        assert found == (f"{name}:{tmp_path}" if name.startswith("cifar") else str(tmp_path / data.places[-1]))


@pytest.fixture(scope="module")
def pruned_by_hand():
    """A network with one dead channel in four in its first layer and two in its second, as constants above zero."""
    torch.manual_seed(1)
    args = {"widths": [4, 8], "pool_after": [1], "hidden": 6, "num_classes": 3}
    network = build("basicnet", args).eval()
    with torch.no_grad():
        network.features.bn1.weight[0] = 1e-5
        network.features.bn1.bias[0] = 0.5
        network.features.bn2.weight[:2] = 0.0
        network.features.bn2.bias[:2] = -1.0
    return network


def test_what_is_read_off_a_network_is_what_was_done_to_it(pruned_by_hand):
    found = measure.measure(pruned_by_hand, pictures(8))
    read = found.readings
    assert read["layers"] == [25.0, 25.0]
    assert read["gamma"] == pytest.approx(25)
    assert read["features_pruned"] == 3
    assert read["activation"] == pytest.approx(100 * 2 / 12)
    # Kept inputs × kept outputs × k²: 3·3·25 + 3·6·9 of 3·4·25 + 4·8·9.
    assert read["pruned_params"] == pytest.approx(100 * (1 - (225 + 162) / (300 + 288)))
    assert read["pruned_error"] == read["error"]
    assert read["pruned_top5_error"] == read["top5_error"] == 0
    assert found.difference < 1e-3
    assert found.removed >= 2
    assert found.macs[1] < found.macs[0]
    assert [layer["features"] for layer in found.layers] == [4, 8]
    assert sum(found.layers[1]["bins"]) == 6


def test_measuring_says_how_many_images_it_has_looked_at(pruned_by_hand):
    data, shown = pictures(8), []
    measure.measure(
        pruned_by_hand, data, batch_size=4, progress=lambda what: lambda *counts: shown.append((what, *counts))
    )
    test = len(data.x_test)
    assert [what for what, done, of in shown if done == of] == [
        "features",
        "training error",
        "test error",
        "test error after pruning",
    ]
    assert [(done, of) for what, done, of in shown if what == "test error"] == [
        (min(done, test), test) for done in range(4, test + 4, 4)
    ]


def test_loss_and_error_are_torchs_own(pruned_by_hand):
    data = pictures(8)
    answers = pruned_by_hand(data.normalise(data.x_test)).detach()
    found = measure.scores(pruned_by_hand, data, "test", 4)
    assert found.loss == pytest.approx(float(torch.nn.functional.cross_entropy(answers, data.y_test)), rel=1e-5)
    assert found.error == pytest.approx(float((answers.argmax(1) != data.y_test).float().mean()))


def test_parameters_of_what_is_no_chain_are_not_counted():
    with pytest.raises(UsageError, match="chains alone"):
        convolutions_of(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3)))


def test_vgg_is_narrowed_by_a_factor():
    widths = convolutions_of_widths(build("vgg16", {"width": 0.25}))
    assert widths == [16, 16, 32, 32, 64, 64, 64, *[128] * 6]
    with pytest.raises(ArchitectureError, match="factor above 0"):
        build("vgg16", {"width": 0})


def run(readings):
    """A run with these readings, and 0 for every other one."""
    readings = dict.fromkeys(catalogue.READINGS, 0.0) | {"layers": (0.0,)} | readings
    return results.Run(0, readings, (), (2, 1), 0, 0.0, 1.0, 1.0, {"Processor": "P", "Device": "CPU", "Threads": "1"})


def test_results_gather_the_seeds_of_one_recipe(tmp_path):
    recipe = recipe_of(ENTRIES[0], "small")
    for seed, gamma in ((1, 40.0), (0, 50.0), (1, 44.0)):
        one = replace(run({"gamma": gamma, "layers": [gamma, 0.0]}), seed=seed)
        results.add(tmp_path, ["a", "b"], "small", replace(recipe, seed=seed), one)
    found = results.read_all(tmp_path, "small")
    assert set(found) == {"a", "b"}
    assert found["a"].seeds == (0, 1)
    assert found["a"].mean("gamma") == 47
    assert found["a"].mean("layers") == (47, 0)
    assert found["a"].spread("gamma") == 3
    assert results.read_all(tmp_path, "full") == {}
    assert results.holds(tmp_path, ["a"], "small", replace(recipe, seed=1))
    assert not results.holds(tmp_path, ["a"], "small", replace(recipe, seed=2))
    assert not results.holds(tmp_path, ["a"], "small", replace(recipe, l2=0.5))
    assert [path.name for path in tmp_path.iterdir()] == ["a-small.json"]


UNWHOLE = {
    "a reading too few": (lambda one: one["readings"].pop("activation"), "lacks the reading 'activation'"),
    "a number for layers": (lambda one: one["readings"].update(layers=1.0), "has the reading 'layers' once"),
    "layers for a number": (lambda one: one["readings"].update(gamma=[1.0]), "the reading 'gamma' for each layer"),
    "no processor": (lambda one: one["environment"].pop("Processor"), "lacks 'Processor' in its environment"),
    "a layer of nothing": (lambda one: one.update(layers=[{}]), r"runs\[0\].layers: \[0\] lacks"),
    "no features": (
        lambda one: one.update(
            layers=[{"layer": "c", "features": 0, "dead_by_activation": 0, "universality": None, "bins": [0]}]
        ),
        r"layers: \[0\].features is 0",
    ),
}


@pytest.mark.parametrize("what", UNWHOLE)
def test_a_result_that_lacks_what_pages_show_is_refused(what, tmp_path):
    spoil, message = UNWHOLE[what]
    results.add(tmp_path, ["a"], "small", recipe_of(ENTRIES[0], "small"), run({}))
    document = json.loads((tmp_path / "a-small.json").read_text())
    spoil(document["runs"][0])
    (tmp_path / "a-small.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match=message):
        results.read_all(tmp_path, "small")


def test_a_result_is_known_again_whatever_digits_its_recipe_has(tmp_path):
    recipe = replace(recipe_of(ENTRIES[0], "small"), l2=1e-6 * 10, lr=1 / 3)
    results.add(tmp_path, ["a"], "small", recipe, run({"gamma": 1 / 3}))
    assert results.holds(tmp_path, ["a"], "small", recipe)
    assert results.read_all(tmp_path, "small")["a"].mean("gamma") == 0.33333


def test_results_of_another_recipe_than_todays_are_left_out():
    made = results.without_seed(recipe_of(ENTRIES[0], "small"))
    now, then = ENTRIES[0].name, ENTRIES[1].name
    runs = (run({"gamma": 1.0}),)
    known = {
        now: results.Result((now,), "small", made, runs),
        then: results.Result((then,), "small", made | {"iterations": 7}, runs),
        "gone": results.Result(("gone",), "small", made, runs),
    }
    assert results.current(known) == {now: known[now]}


def test_a_damaged_result_is_refused_in_one_line(tmp_path):
    (tmp_path / "a.json").write_text('{"names": ["a"]}')
    with pytest.raises(UsageError, match=r"a\.json holds no result"):
        results.read_all(tmp_path, "full")
