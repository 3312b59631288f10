"""Figure 4 and supplementary figure 3: closed forms, recursions in plain Python, and the paper's order."""

import itertools
import json
import math
from xml.etree import ElementTree

import pytest
import scalars
import torch

from slimnet.errors import UsageError
from slimnet.report.drawing.svg import standalone
from slimnet.report.paper.scalar_figures import draw_scalars
from slimnet.reproduction.scalar_text import markdown
from slimnet.reproduction.scalars import (
    FIGURE_4,
    SUPPLEMENTARY_FIGURE_3,
    LowGradients,
    claims,
    figure_4,
    first_below,
    reading_points,
    scalar_figure,
    scalar_recipe,
    simulate,
    supplementary_figure_3,
)
from slimnet.training import Recipe
from slimnet.training.warm_start import path

STEPS = 300
SILENCE = torch.zeros(STEPS, 1, dtype=torch.float64)


def recipe(**settings):
    return Recipe(arch="scalar", data="noise", iterations=STEPS, **settings)


def simulated(recipe, gradients=SILENCE):
    return simulate(recipe, gradients)[:, 0].tolist()


def test_plain_sgd_with_l2_is_a_geometric_sequence():
    ours = simulated(recipe(optimiser="sgd", momentum=0.0, lr=0.1, l2=0.03))
    assert ours == pytest.approx([(1 - 0.1 * 0.03) ** step for step in range(STEPS + 1)], rel=1e-12)


def test_sgd_with_momentum_and_l2_is_the_sum_of_two_geometric_sequences():
    """θ(t+1) = (1 + μ − ηλ)·θ(t) − μ·θ(t−1), whose roots say how it goes."""
    lr, momentum, l2 = 0.1, 0.9, 0.01
    ours = simulated(recipe(optimiser="sgd", lr=lr, momentum=momentum, l2=l2))
    middle = (1 + momentum - lr * l2) / 2
    root = math.sqrt(middle**2 - momentum)
    slow, fast = middle + root, middle - root
    share = (1 - lr * l2 - fast) / (slow - fast)
    closed = [share * slow**step + (1 - share) * fast**step for step in range(STEPS + 1)]
    assert ours == pytest.approx(closed, rel=1e-9)


@pytest.mark.parametrize("optimiser", FIGURE_4 + SUPPLEMENTARY_FIGURE_3)
def test_weight_decay_alone_is_geometric_under_every_optimiser_and_slows_with_the_schedule(optimiser):
    ours = simulated(recipe(optimiser=optimiser, weight_decay=0.02, drops=(200,)))
    closed = [0.98 ** min(step, 200) * (1 - 0.002) ** max(step - 200, 0) for step in range(STEPS + 1)]
    assert ours == pytest.approx(closed, rel=1e-9)


def test_decoupled_decay_is_geometric_in_lr_times_lambda():
    ours = simulated(recipe(optimiser="adam", lr=0.01, decoupled=0.5))
    assert ours == pytest.approx([0.995**step for step in range(STEPS + 1)], rel=1e-9)


@pytest.mark.parametrize("l2", [1e-2, 1e-4, 1e-6])
def test_adam_with_l2_moves_by_lr_a_step_whatever_lambda_is(l2):
    """The first step is lr·λ/(λ + ε) exactly; as long as the gradient hardly changes, the others are as long."""
    ours = simulated(recipe(optimiser="adam", lr=1e-4, l2=l2))
    assert 1 - ours[1] == pytest.approx(1e-4 * l2 / (l2 + 1e-8), rel=1e-9)
    moves = [before - after for before, after in itertools.pairwise(ours)]
    assert moves == pytest.approx([1e-4] * STEPS, rel=0.03)


@pytest.mark.parametrize("optimiser", FIGURE_4 + SUPPLEMENTARY_FIGURE_3)
def test_without_noise_it_goes_as_the_forecast_of_a_warm_start_does(optimiser):
    """Oracle: the recursions in plain Python that forecasts are made with."""
    settings = scalar_recipe(optimiser, "l2", 3e-3, STEPS)
    forecast = list(itertools.islice(path(1.0, settings), STEPS + 1))
    assert simulated(settings) == pytest.approx(forecast, rel=1e-7)


def test_adam_under_noise_goes_as_its_definition_says():
    gradients = LowGradients(iterations=STEPS, seeds=1, noise=1e-4).gradients()
    settings = recipe(optimiser="adam", l2=1e-4, weight_decay=1e-3)
    value, mean, square, expected = 1.0, 0.0, 0.0, [1.0]
    for step, noise in enumerate(gradients[:, 0].tolist(), 1):
        gradient = noise + 1e-4 * value
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.99 * square + 0.01 * gradient**2
        value -= 1e-3 * (mean / (1 - 0.9**step)) / (math.sqrt(square / (1 - 0.99**step)) + 1e-8)
        value *= 1 - 1e-3
        expected.append(value)
    assert simulated(settings, gradients) == pytest.approx(expected, rel=1e-9)


def test_sgd_under_noise_goes_as_its_definition_says():
    gradients = LowGradients(iterations=STEPS, seeds=1).gradients()
    value, velocity, expected = 1.0, 0.0, [1.0]
    for noise in gradients[:, 0].tolist():
        velocity = 0.9 * velocity + noise + 1e-3 * value
        value -= 0.1 * velocity
        expected.append(value)
    assert simulated(recipe(optimiser="sgd", l2=1e-3), gradients) == pytest.approx(expected, rel=1e-9)


def test_the_trainers_own_precision_changes_little():
    gradients = LowGradients(iterations=1500, seeds=4).gradients()
    settings = scalar_recipe("adam", "l2", 1e-4, 1500)
    assert simulate(settings, gradients.float()).double() == pytest.approx(simulate(settings, gradients), abs=2e-3)


def test_gradients_have_the_noise_asked_for_and_a_seed_is_the_same_in_any_company():
    low = LowGradients(iterations=4000, seeds=3, noise=2e-5, early_noise=1e-2, early=1000)
    drawn = low.gradients()
    assert drawn[:1000].std().item() == pytest.approx(1e-2, rel=0.05)
    assert drawn[1000:].std().item() == pytest.approx(2e-5, rel=0.05)
    alone = LowGradients(iterations=4000, seeds=2, noise=2e-5, early_noise=1e-2, early=1000).gradients()
    assert torch.equal(drawn[:, :2], alone)
    assert not torch.equal(drawn[:, 0], drawn[:, 1])


def test_the_first_step_below_a_limit_is_the_median_over_the_seeds():
    falling = torch.tensor([[1.0, 1, 1], [0.4, 1, 1], [0.6, 0.4, 1], [0.4, 0.4, 1]])
    assert first_below(falling, 0.5) == 2
    assert first_below(falling[:, 1:], 0.5) is None
    assert first_below(falling, 2.0) == 0
    assert reading_points(3) == [0, 1, 2, 3]
    assert reading_points(1000)[-1] == 1000


@pytest.mark.parametrize(("name", "wrong"), [("iterations", 0), ("seeds", 0)])
def test_a_simulation_of_nothing_is_refused(name, wrong):
    with pytest.raises(UsageError, match=f"{name} is 0"):
        LowGradients(**{name: wrong})


@pytest.fixture(scope="module")
def figure():
    return figure_4(LowGradients(iterations=1800, seeds=5), strengths=(1e-2, 1e-3, 1e-4, 1e-5))


@pytest.mark.parametrize("strength", [1e-3, 1e-4, 1e-5])
def test_adam_with_l2_decays_fastest_from_lambda_1e_3_down(figure, strength):
    """Even the slowest of its seeds is, at the end, below the fastest of every other setting's."""
    adam, *others = figure.order(strength)
    assert (adam.optimiser, adam.regulariser) == ("adam", "l2")
    assert all(adam.high[-1] < other.low[-1] for other in others)


def test_at_a_small_lambda_only_adam_with_l2_gets_anywhere(figure):
    assert figure.curve("adam", "l2", 1e-5).half is not None
    for optimiser, regulariser in (("adam", "weight_decay"), ("sgd", "l2"), ("sgd", "weight_decay")):
        assert figure.curve(optimiser, regulariser, 1e-5).median[-1] > 0.9


def test_at_a_large_lambda_adams_learning_rate_holds_l2_back(figure):
    """lr is the longest step that Adam takes: half of 1 needs 500 of them, while decay by 1 % needs 69."""
    assert figure.curve("adam", "l2", 1e-2).half > 500 > figure.curve("adam", "weight_decay", 1e-2).half


def test_the_papers_claims_say_where_they_hold(figure):
    assert [claim.holds for claim in claims(figure)] == [False, True, True, True, True]
    assert "Adam with weight decay never" in claims(figure)[3].found


def test_sgds_l2_and_the_papers_weight_decay_are_as_fast_as_each_other(figure):
    """lr / (1 − momentum) is 1 at the paper's settings, so both take λ of the number in every step."""
    coupled, decayed = figure.curve("sgd", "l2", 1e-4), figure.curve("sgd", "weight_decay", 1e-4)
    assert coupled.median[-1] == pytest.approx(decayed.median[-1], rel=0.01)


def test_a_curve_that_was_not_drawn_is_said_to_be_missing(figure):
    with pytest.raises(UsageError, match=r"no curve of rmsprop with l2 0\.01"):
        figure.curve("rmsprop", "l2", 1e-2)


def test_the_supplementary_figure_has_the_other_five_optimisers():
    figure = supplementary_figure_3(LowGradients(iterations=5, seeds=2), strengths=(1e-3,))
    assert figure.optimisers == SUPPLEMENTARY_FIGURE_3
    assert len(figure.curves) == 10


def test_in_words_a_figure_says_when_curves_reach_half_and_what_holds(figure):
    text = markdown(figure)
    assert "| half after | λ = 0.01 | λ = 0.001 | λ = 0.0001 | λ = 1e-05 |" in text
    assert f"| {figure.curve('adam', 'l2', 1e-5).half:,} |" in text
    assert f"| SGD with L2 | {figure.curve('sgd', 'l2', 1e-2).half} |" in text
    assert "% left |" in text
    assert text.count("does not hold") == 1
    assert "reconstructed" in text


def test_drawings_name_every_panel_and_every_lambda():
    figure = scalar_figure("A figure", ("adam", "rmsprop"), LowGradients(iterations=5, seeds=2), (1e-3, 1e-5))
    drawn = draw_scalars(figure)
    for svg in (drawn.wide, drawn.narrow):
        for text in ("Adam, weight decay", "RMSprop, L2", "λ = 10⁻⁵"):
            assert text in svg


def test_a_drawing_by_itself_brings_its_colours_for_light_and_dark():
    figure = scalar_figure("A figure", ("sgd",), LowGradients(iterations=5, seeds=1), (1e-3,))
    page = standalone(draw_scalars(figure).narrow)
    root = ElementTree.fromstring(page)
    assert root.attrib["width"] == "330"
    style = root.find("{http://www.w3.org/2000/svg}style").text
    assert style.count("--muted") == 2
    assert "prefers-color-scheme: dark" in style


def test_the_benchmark_writes_what_it_reads_and_draws_both_figures(tmp_path):
    figures = scalars.measure(LowGradients(iterations=6, seeds=2), other_noises=(1e-4,))
    scalars.write(scalars.as_data(figures), tmp_path / "scalars.json")
    results = json.loads((tmp_path / "scalars.json").read_text())
    again = scalars.read(results)
    assert [figure.title for figure in again] == ["Figure 4", "Supplementary figure 3", "Figure 4"]
    assert again[0].curves[0].median == pytest.approx(figures[0].curves[0].median, rel=1e-3)
    assert again[0].gradients == figures[0].gradients
    assert "does not hold" in scalars.table(results)
    assert {path.name for path in tmp_path.glob("*.svg")} == {"figure-4.svg", "supplementary-figure-3.svg"}
