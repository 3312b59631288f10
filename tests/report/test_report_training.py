"""The report of a training run: what it says against the run, and what it must never let through."""

import dataclasses
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from pages import EVIL, Tags, check_ids, check_isolation, check_themes
from runs import images, recipe

from slimnet.errors import SlimnetError
from slimnet.report import TrainingRecord, formatting, render_training, write_training_report
from slimnet.report.drawing.axes import thousands
from slimnet.report.drawing.heatmap import STRENGTHS, between, draw_cells, shares
from slimnet.report.training import figures as figures
from slimnet.report.training.text import headline, recipe_rows, sentences, tiles
from slimnet.training import Accuracy, Progress, Recipe, train
from slimnet.training.analysis.universality import Analysis, LayerAnalysis, analyse
from slimnet.training.run.run_folder import RunHistory, read_history

NORMS = {"features.bn1": 4, "features.bn2": 6}


def analysis(names: dict[str, int] = NORMS) -> Analysis:
    """A quarter of each layer is dead by γ; the first feature of each responds to nothing."""
    layers = []
    for norm, size in names.items():
        gammas = (1e-5,) * (size // 4) + (0.5,) * (size - size // 4)
        seen = (0.0, *np.linspace(0.1, 1, size - 1).tolist())
        layers.append(LayerAnalysis(norm.replace("bn", "conv"), norm, size, gammas, seen, seen))
    return Analysis("noise", 12, tuple(layers))


def reports(count: int = 5, total: int = 50) -> tuple[Progress, ...]:
    """Losses 2, 1, 2/3, ...; sparsity from 0 in steps of 0.1; MACs that fall from 1,000 by 150 a report."""
    return tuple(
        Progress(10 * n + 10, total, 2.0 / (n + 1), 0.5 + n / 10, n / 10, n + 1.0, float(n), 1000, 1000 - 150 * n)
        for n in range(count)
    )


def record(names: dict[str, int] = NORMS, **changes: object) -> TrainingRecord:
    """Five reports; γ falls to nothing in a quarter of the channels, and β of the first is above zero."""
    kept = np.arange(10, 60, 10)
    gammas = {name: np.tile(np.linspace(1, 0.5, 5)[:, None], size) for name, size in names.items()}
    for gamma in gammas.values():
        gamma[2:, : gamma.shape[1] // 4] = 1e-7
    betas = {name: np.linspace(0, 0.3, 5)[:, None] * np.linspace(1, -2, size) for name, size in names.items()}
    values = {"progress": reports(), "kept_at": kept, "gammas": gammas, "betas": betas, "analysis": analysis(names)}
    asked = recipe(iterations=50, l2=1e-3, drops=[30])
    return TrainingRecord(**{"recipe": asked, "accuracy": Accuracy(0.75, 1.0, 8), **values, **changes})


@pytest.fixture(scope="module")
def page() -> str:
    return render_training(record())


def test_errors_on_validation_images_are_drawn_and_the_lowest_is_named():
    """Accuracies at the second, third and last of five reports; without any there is neither line nor tile."""
    accuracies = {1: 0.6, 2: 0.8, 4: 0.7}
    validated = tuple(
        dataclasses.replace(report, validation_accuracy=accuracies.get(number))
        for number, report in enumerate(reports())
    )
    found = record(progress=validated)
    assert found.validation == ([20, 30, 50], pytest.approx([0.4, 0.2, 0.3]))
    page = render_training(found)
    assert "Validation error 20.0 % lowest, after 30 iterations" in text(page)
    assert "validation" in labels(page)
    assert "the error on the validation images" in text(page)
    plain = render_training(record())
    assert "alidation" not in text(plain)
    assert "validation" not in labels(plain)


def text(page: str) -> str:
    return " ".join(Tags(page).text.split()).replace("\u202f", " ")


def labels(page: str) -> set[str]:
    """Every text in the drawings."""
    return {
        "".join(element.itertext())
        for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)
        for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    }


def test_the_page_is_whole_and_needs_nothing_else(page):
    assert Tags(page).open == []
    check_ids(page)
    check_isolation(page)
    check_themes(page)


def test_the_page_says_what_the_record_says(page):
    """Oracle: the record's own numbers, by hand."""
    body = text(page)
    assert "40 % of the filters died during training" in body
    assert "Trained with Adam and L2 0.001 for 50 iterations, it classifies 75.00 % of 8 test images correctly." in body
    assert "20 % of the features activate for none of the 12 training images." in body
    assert "A slim network would need 400 of the 1.00 k multiply-accumulates, 2.5 × fewer." in body
    assert "Test error 25.00 % 8 test images" in body
    assert "Training loss 2 → 0.4" in body
    assert "50 (the paper's on CIFAR: 406,250)" in body
    assert "features.conv2 6 17 % 17 %" in body, "one of six by γ and by activation"


def test_every_figure_of_the_issue_is_there(page):
    found = {attributes["id"] for tag, attributes in Tags(page).found if tag == "figure"}
    assert found == {"silhouette", "progress", "layers", "deaths", "gammas", "betas", "universality"}
    assert {"loss", "error, %", "dead, %", "MACs", "lr × 0.1", "features.conv1", "features.conv2"} <= labels(page)
    assert {"1 of 4", "1/4", "25\u202f% dead"} <= labels(page)


def test_every_name_is_escaped():
    """Other people choose names of networks, data and layers."""
    names = {EVIL: 4, f"{EVIL}2": 4}
    asked = dataclasses.replace(record().recipe, arch=EVIL, data=EVIL)
    page = render_training(record(names, recipe=asked, analysis=dataclasses.replace(analysis(names), data=EVIL)))
    assert "<script" not in page
    assert "\x00" not in page
    assert Tags(page).open == []
    assert Tags(page).text.count("<script>alert") >= 4


def test_without_analysis_the_layers_have_the_names_of_their_batch_norms():
    page = render_training(record(analysis=None, accuracy=None))
    assert {"features.bn1", "features.bn2"} <= labels(page)
    assert "universal" not in text(page).lower()
    assert "to a training error of 10.0 %" in text(page)
    assert "The mark is" not in text(page)


def test_layers_that_were_not_measured_have_a_dash():
    (first, second) = analysis().layers
    hidden = dataclasses.replace(first, peaks=None, universalities=None)
    page = render_training(record(kept_at=np.zeros(0), analysis=Analysis("noise", 12, (hidden, second))))
    assert "features.conv1 4 25 % – –" in text(page)
    assert Tags(page).open == []


def test_a_network_without_batch_norm_has_no_figures_of_gamma():
    bare = dataclasses.replace(analysis().layers[0], norm=None, gammas=None)
    page = render_training(record(gammas={}, betas={}, kept_at=np.zeros(0), analysis=Analysis("noise", 12, (bare,))))
    assert "A network without BatchNorm" in text(page)
    assert "Dead filters" not in text(page)
    assert "features.conv1 4 – 25 %" in text(page)


def test_one_report_is_enough():
    page = render_training(TrainingRecord(recipe(), reports(1, total=7)))
    assert Tags(page).open == []
    assert "→" not in text(page).replace("1.00 k → 1.00 k", "")
    with pytest.raises(IndexError):
        render_training(TrainingRecord(recipe(), ()))


def test_a_run_that_is_not_finished_says_so():
    page = text(render_training(TrainingRecord(recipe(), reports(3, total=500))))
    assert "for 30 of 500 iterations" in page
    assert "No filter has died yet" in headline(record(progress=reports(1, total=500)))
    assert headline(record(progress=reports(1, total=10))) == "No filter has died"


def test_nothing_is_said_of_macs_that_nobody_predicted():
    bare = [dataclasses.replace(each, macs=None, macs_if_slimmed=None) for each in reports()]
    page = render_training(record(progress=bare, kept_at=np.zeros(0)))
    assert "Multiply-accumulates" not in [tile.label for tile in tiles(record(progress=bare))]
    assert "A slim network would need" not in text(page)
    assert "MACs" not in labels(page)
    one = [*bare[:-1], reports()[-1]]
    assert "A slim network would need 400" in " ".join(sentences(record(progress=one))).replace("\u202f", " ")
    assert "remove no channel" in " ".join(sentences(record(progress=reports(1))))


@pytest.mark.parametrize("left", [0, 1000])
def test_any_number_of_macs_can_be_left(left):
    ending = dataclasses.replace(reports()[-1], macs_if_slimmed=left)
    assert render_training(record(progress=(*reports()[:-1], ending), gammas={}, analysis=None))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_extremes_can_be_drawn(value):
    """Every filter dead, or none; every loss 0; γ and β the same everywhere."""
    same = {name: np.full((5, size), value) for name, size in NORMS.items()}
    flat = tuple(dataclasses.replace(each, loss=0.0, sparsity=1 - value, accuracy=value) for each in reports())
    page = render_training(record(progress=flat, gammas=same, betas=same))
    assert Tags(page).open == []


def test_many_layers_become_outlines_and_a_table_that_opens():
    names = {f"stage.{number}.bn": 4 for number in range(60)}
    page = render_training(record(names))
    assert "8 of 60 layers are shown." in text(page)
    assert "All 60 layers" in text(page)
    assert "layer, in the order of the network" in labels(page)
    assert len(page) < 1_000_000


def test_the_recipe_is_shown_in_full():
    """Everything that a recipe asks for beyond the usual has its row."""
    asked = Recipe(
        arch="basicnet", data="x", iterations=10, optimiser="sgd", nesterov=True, weight_decay=1e-3, l1_gamma=1e-4,
        l2=2e-3, cost_aware="macs", flips=True, crop=4, precision="bf16",
        gamma_init=0.5, beta_init=-1.0, gamma_lr_scale=2.0, drops=(5, 8), image_size=64,
    )  # fmt: skip
    rows = dict(recipe_rows(TrainingRecord(asked, reports(1, total=10))))
    assert rows["Optimiser"] == "SGD, Nesterov momentum 0.9"
    assert rows["L2"] == "0.002, each γ by its macs"
    assert rows["L1 on γ"] == "0.0001"
    assert rows["Weight decay"] == "0.001"
    assert rows["Batch"] == "40 images, flipped and moved by up to 4 pixels at random"
    assert rows["Learning rate"] == "0.1, × 0.1 at 5 and 8"
    assert (rows["γ begins at"], rows["β begins at"], rows["Learning rate of γ ×"]) == ("0.5", "-1", "2")
    assert (rows["Data"], rows["Precision"]) == ("x, 64 pixels", "bf16")


def test_cells_cover_what_is_marked_and_nothing_else():
    """Oracle: the area under the shapes of each strength against the cells of that strength, unevenly spaced."""
    columns, rows = np.asarray([0.0, 1, 3, 6, 10]), np.asarray([0.0, 2, 3, 7])
    values = np.random.default_rng(0).integers(0, STRENGTHS + 1, (4, 3)) / STRENGTHS
    values[0, 0] = 1e-9
    axes = Figure().add_subplot()
    draw_cells(axes, columns, rows, values, "red")
    areas = np.diff(columns)[:, None] * np.diff(rows)
    strengths = np.ceil(STRENGTHS * values)
    for patch in axes.patches:
        corners = patch.get_path().vertices.reshape(-1, 5, 2)
        covered = ((corners[:, 1, 0] - corners[:, 0, 0]) * (corners[:, 2, 1] - corners[:, 1, 1])).sum()
        assert covered == pytest.approx(areas[strengths == round(STRENGTHS * patch.get_alpha())].sum())
    assert len(axes.patches) == len(set(strengths.ravel()) - {0})


def test_shares_are_counts_by_hand():
    values = np.asarray([[0.1, 0.9, np.nan, 0.2], [0.6, 0.7, 0.8, 5.0]])
    assert shares(values, np.asarray([0, 0.5, 1]), 4).tolist() == [[0.5, 0.25], [0, 0.75]]
    assert between(np.asarray([2, 5])).tolist() == [0, 2, 5]


def test_layers_are_shown_evenly_from_the_first_to_the_last():
    layers = [str(number) for number in range(57)]
    shown = figures._shown(layers)
    assert (shown[0], shown[-1], len(shown)) == ("0", "56", figures.MOST_PANELS)
    assert set(np.diff([int(name) for name in shown])) == {8}
    assert figures._shown(layers[:5]) == layers[:5]


def history(progress: tuple[Progress, ...] = reports()) -> RunHistory:
    names = {name: torch.rand(5, size) for name, size in NORMS.items()}
    return RunHistory(recipe(iterations=50), list(progress), torch.arange(10, 60, 10), names, names)


def test_the_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("earlier")
    assert write_training_report(history(), recipe(), None, path) == path
    assert path.read_text(encoding="utf-8").endswith("</html>")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(SlimnetError, match="cannot write"):
        write_training_report(history(), recipe(), None, tmp_path / "missing" / "report.html")


def test_a_run_that_has_not_reported_has_no_report(tmp_path):
    assert write_training_report(history(()), recipe(), None, tmp_path / "report.html") is None
    assert list(tmp_path.iterdir()) == []


def test_a_run_in_its_folder_can_be_reported(tmp_path):
    """From the trainer to the page: what the run measured is what the page says."""
    from slimnet.training.run.resumable_run import KeptRun
    from slimnet.training.run.run_folder import create_run

    asked = recipe(iterations=12, gamma_init=2e-3, lr=2e-4)
    data = images()
    with create_run(tmp_path / "run", asked) as folder:
        kept = KeptRun(folder, lambda state: train(asked, data, threads=1, every=2, state=state))
        for _ in kept:
            pass
        kept.close()
    printed = read_history(tmp_path / "run")
    found = analyse(kept.run.model, data)
    whole = TrainingRecord.of(printed, found)
    assert whole.iterations == [2, 4, 6, 8, 10, 12]
    assert whole.layers == ["features.bn1", "features.bn2"]
    assert whole.last.sparsity == found.sparsity_by_gamma > 0
    sizes = whole.alive.values()
    assert 1 - sum(alive for _, alive in sizes) / sum(size for size, _ in sizes) == pytest.approx(whole.last.sparsity)
    path = write_training_report(printed, printed.recipe, found, tmp_path / "report.html")
    assert formatting.percent(whole.last.sparsity) in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.25, "250 ms"),
        (43.6, "43.6 s"),
        (59.7, "1 min 0 s"),
        (320, "5 min 20 s"),
        (11_520, "3 h 12 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_long_times_have_two_units(seconds, words):
    assert formatting.long_duration(seconds).replace("\u202f", " ") == words


@pytest.mark.parametrize(("number", "words"), [(0, "0"), (500, "500"), (1500, "1.5 k"), (400_000, "400 k")])
def test_iterations_in_little_room(number, words):
    assert thousands(number).replace("\u202f", " ") == words


def test_a_run_that_removed_dead_filters_says_what_that_saved():
    """Steps of 100 ms up to the cut and 50 ms after it, as the reports' clocks have it; 400 of 1,000 MACs are left."""
    progress = tuple(
        dataclasses.replace(
            each, seconds=(1.0, 2.0, 3.0, 3.5, 4.0)[n], macs_left=left, channels_removed=removed, projection_change=2e-4
        )
        for n, (each, left, removed) in enumerate(
            zip(reports(), (None, None, 400, 400, 400), (None, None, 9, 9, 9), strict=True)
        )
    )
    shown = record(progress=progress, recipe=recipe(iterations=50, shrink_every=10))
    iterations, milliseconds = shown.pace
    assert iterations.tolist() == [20, 30, 40, 50]
    np.testing.assert_allclose(milliseconds, [100, 100, 50, 50])
    assert shown.macs_left == ([30, 40, 50], [400, 400, 400])
    assert (
        "9 dead channels were removed during training, which left 400 of 1.00k multiply-accumulates; a step took "
        "100 ms at the beginning and 50 ms at the end."
    ) in [each.replace("\u202f", "") for each in sentences(shown)]
    change = "Setting them to zero before that changed what a layer receives by at most 2×10⁻⁴ of its largest value."
    assert change in [each.replace("\u202f", "").replace("2.0", "2") for each in sentences(shown)]
    unmoved = dataclasses.replace(progress[-1], projection_change=0.0)
    unchanged = sentences(dataclasses.replace(shown, progress=(*progress[:-1], unmoved)))
    assert "Setting them to zero before that did not change any layer's input." in unchanged
    assert ("Dead filters", "removed every 10 iterations") in recipe_rows(shown)
    last = dataclasses.replace(progress[-1], revived=3, revived_alive=1)
    printed = sentences(dataclasses.replace(shown, progress=(*progress[:-1], last)))
    assert "3 removed channels came back in the dense run beside it; 1 of these were alive at the last look." in printed
    page = render_training(shown)
    assert "The last panel is the time of a step; with fewer filters it can fall" in text(page)
    assert any("ms a step" in label for label in labels(page))
    assert not any("ms a step" in label for label in labels(render_training(record())))


def test_times_of_steps_are_few_and_never_negative():
    """Reports that a killed run made twice, and thousands of them."""
    every = [Progress(n, 5000, 1.0, 0.5, 0.1, n / 10, macs=9, macs_left=3) for n in range(1, 5001)]
    _, milliseconds = record(progress=(*every[:3000], *every[2900:])).pace
    assert 90 <= milliseconds.size <= 100
    assert (milliseconds > 0).all()
