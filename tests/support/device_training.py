"""Cases of `test_elsewhere`: training, what is measured of networks, and methods that choose channels, on a device."""

import copy
import itertools

import pytest
import torch
from elsewhere import GPU, HERE, is_same, same_plan, without_float64
from torch import nn

from slimnet.benchmark import Settings, compare
from slimnet.comparison import Settings as Contest
from slimnet.comparison import Study
from slimnet.data import Batches, load_data
from slimnet.errors import UsageError
from slimnet.methods import Budget, remove_selected, score_channels, select_within_budget
from slimnet.methods.candidates import Channels
from slimnet.methods.scores import Task, with_gradients
from slimnet.modules.example_inputs import check_inputs
from slimnet.torch_state.random_state import random_number_states
from slimnet.training import Recipe, evaluate, train
from slimnet.training.analysis.universality import analyse
from slimnet.training.finetune import Finetuning, retraining
from slimnet.training.recipe.optimisers import make_optimiser
from slimnet.training.recipe.recipe import BASE_SETTINGS

CPU = torch.device("cpu")
DIGITS = load_data("digits")
NET = {"width": 0.125, "hidden": 16, "in_channels": 1}


def small(dropout=0.0):
    """A network of two convolutions; with dropout it draws random numbers where it is."""
    first = nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()
    second = nn.Conv2d(8, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU()
    return nn.Sequential(*first, *second, nn.Dropout(dropout), nn.Flatten(), nn.Linear(8 * 6 * 6, 10))


def recipe(**changes):
    usual = {"arch": f"{__name__}:small", "data": "digits", "iterations": 6, "batch_size": 16}
    return Recipe(**{**usual, "l2": 1e-3, "flips": True, "crop": 1, **changes})


def trained(place, state=None, reports=None, **changes):
    run = train(recipe(**changes), DIGITS, device=place, every=3, state=state)
    for _ in itertools.islice(run, reports):
        pass
    return run


def assert_same_weights(actual, expected, rounding=0.0):
    for name, tensor in expected.state_dict().items():
        ours = actual.state_dict()[name].cpu()
        near = rounding and torch.allclose(ours, tensor, rtol=rounding, atol=rounding * float(tensor.abs().max()))
        assert near or is_same(ours, tensor), name


@pytest.mark.parametrize(
    "changes",
    [
        *({"optimiser": name} for name in BASE_SETTINGS),
        {"precision": "bf16"},
        {"cost_aware": "macs"},
        {"l1_gamma": 1e-3},
    ],
    ids=str,
)
def test_training_is_that_of_the_cpu(changes):
    if GPU:
        changes = {**changes, "lr": 1e-4}
    # Adagrad's step is another one off the CPU, where torch may have no fused one.
    rounding = 1e-4 if changes.get("optimiser") == "adagrad" else 0.0
    assert_same_weights(trained(HERE, **changes).model, trained(CPU, **changes).model, rounding)


def test_adagrad_has_no_fused_step_on_a_device():
    """Torch 2.11 refuses it on GPUs."""
    optimiser = make_optimiser(recipe(optimiser="adagrad"), nn.Linear(2, 2).to(HERE))
    assert [(group["fused"], group["foreach"]) for group in optimiser.param_groups] == [(False, True)]


@pytest.mark.parametrize(("first", "then"), [*itertools.product((CPU, HERE), repeat=2)], ids=str)
def test_a_run_goes_on_where_it_was_or_elsewhere(first, then):
    state = trained(first, reports=1).state()
    tensors = [each for each in torch.utils._pytree.tree_leaves(state) if isinstance(each, torch.Tensor)]
    assert {each.device.type for each in tensors} == {"cpu"}
    again = trained(then, state=state)
    assert again.iteration == 6
    assert_same_weights(again.model, trained(then).model)


def test_dropout_goes_on_in_the_random_numbers_of_the_device():
    plan = {"arch_args": {"dropout": 0.5}}
    state = trained(HERE, reports=1, **plan).state()
    before = random_number_states([HERE])
    again = trained(HERE, state=state, **plan)
    assert all(map(torch.equal, before, random_number_states([HERE])))
    assert_same_weights(again.model, trained(HERE, **plan).model)
    trained(CPU, state=state, **plan)


@pytest.mark.parametrize("place", [CPU, HERE], ids=str)
def test_a_default_device_changes_nothing(place):
    expected = trained(place)
    with HERE:
        assert load_data("digits").x_train.device == CPU
        ours = trained(place)
    assert_same_weights(ours.model, expected.model)


def model_of(place):
    torch.manual_seed(0)
    return trained(CPU, arch="basicnet", arch_args=NET).model.eval().to(place)


def test_accuracy_and_sparsity_are_those_of_the_cpu():
    ours, theirs = evaluate(model_of(HERE), DIGITS), evaluate(model_of(CPU), DIGITS)
    assert ours == theirs or (GPU and abs(ours.top1 - theirs.top1) < 0.02)
    expected = analyse(model_of(CPU), DIGITS)
    for found in (analyse(model_of(HERE), DIGITS), analyse(model_of(CPU), DIGITS, device=HERE)):
        assert found == expected or GPU


@pytest.mark.parametrize("method", ["implicit", "li2017"])
def test_methods_choose_and_recalibrate_as_on_the_cpu(method):
    found = []
    for place in (CPU, HERE):
        model, images = model_of(place), next(DIGITS.batches("test", 8, place))[0]
        ranking = score_channels(method, model, images, batches=DIGITS.batches("train", 32))
        chosen = select_within_budget(model, images, ranking, Budget("macs", 0.6))
        found.append(remove_selected(model, images, chosen, loader=Batches(DIGITS)))
    assert same_plan(found[1].plan, found[0].plan)
    assert_same_weights(found[1].model, found[0].model)


def test_gradients_for_taylor_are_taken_where_the_network_is():
    found = []
    for place in (CPU, HERE):
        model, images = model_of(place), next(DIGITS.batches("test", 8, place))[0]
        channels = Channels.of(model, check_inputs(model, images))
        found.append(with_gradients(Task(model, channels, DIGITS.batches("train", 512), 0, "macs"), "taylor"))
    assert is_same(found[1].features.conv1.weight.grad, found[0].features.conv1.weight.grad)


def test_a_device_without_double_precision_trains_and_chooses():
    with without_float64():
        model, images = (
            trained(HERE, arch="basicnet", arch_args=NET).model.eval(),
            next(DIGITS.batches("test", 8, HERE))[0],
        )
        analyse(model, DIGITS)
        for method in ("implicit", "liu2017", "li2017"):
            chosen = select_within_budget(model, images, score_channels(method, model, images), Budget("macs", 0.6))
            assert remove_selected(model, images, chosen).certificate.holds


def test_fine_tuning_is_that_of_the_cpu():
    plan = retraining("net", "digits", 4, batch_size=16)
    runs = [Finetuning(model_of(CPU), plan, DIGITS, device=place) for place in (CPU, HERE)]
    for run in runs:
        list(run)
    assert_same_weights(runs[1].model, runs[0].model)
    assert runs[1].course == runs[0].course or GPU


def test_methods_are_compared_where_the_network_is(tmp_path):
    """Oracle: the same comparison on the CPU; its folder is not gone on with elsewhere."""
    plan = retraining("net", "digits", 4, batch_size=16)
    contest = Contest(methods=("li2017",), budgets=(Budget("macs", 0.7),), finetuning=plan, seconds=0, threads=1)
    found = []
    for place in (CPU, HERE):
        study = Study("net", model_of(place), DIGITS, contest, tmp_path / place.type)
        list(study)
        found.append([(row.method, row.error, row.size, row.course) for row in study.results().outcomes])
    assert found[1] == found[0] or GPU
    with pytest.raises(UsageError, match="was begun with device None"):
        list(Study("net", model_of(HERE), DIGITS, contest, tmp_path / "cpu"))


def test_networks_on_a_device_are_measured_on_the_cpu():
    model, images = model_of(HERE), next(DIGITS.batches("test", 2, HERE))[0]
    settings = Settings((1,), 1, 0.05, runtimes=("torch",), layers=True)
    found = compare({"dense": model, "slim": copy.deepcopy(model)}, images, settings, data=DIGITS)
    assert found.latencies[0].device == "cpu"
    assert next(model.parameters()).device == HERE


def test_what_is_not_there_is_refused_in_one_line():
    with pytest.raises(UsageError, match="there is no device 'meta' here"):
        train(recipe(), DIGITS, device="meta")


def test_a_linear_layer_does_not_take_what_is_elsewhere():
    """The double does what a GPU does; without this the other cases would show nothing."""
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        nn.Linear(2, 2).to(HERE)(torch.ones(1, 2))
    with pytest.raises(TypeError, match="can't convert"):
        torch.ones(1, device=HERE).numpy()
