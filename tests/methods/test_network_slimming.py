"""Network Slimming in several passes: what each trains, removes and leaves."""

import itertools

import pytest
import torch
from runs import TINY, images, recipe

from slimnet.errors import UsageError
from slimnet.methods import Budget, passes, score_channels, select_within_budget
from slimnet.methods.network_slimming import tuned
from slimnet.models import build
from slimnet.training import evaluate

DATA = images(30)
SPARSE = recipe(l1_gamma=1e-2, iterations=4, lr=1e-2)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build("basicnet", TINY | {"widths": [8, 12]}).eval()


@pytest.fixture(scope="module")
def two():
    return list(itertools.islice(passes(network(), DATA, SPARSE, 0.7, threads=1), 2))


def test_each_pass_leaves_its_share_of_the_channels_before_it(two):
    """Oracle: the widths of the networks; the head's outputs are no channels that could go."""
    widths = [[layer.channels_after for layer in each.plan.layers[:-1]] for each in two]
    before = [layer.channels_before for layer in two[0].plan.layers[:-1]]
    for wide, narrow in itertools.pairwise([before, *widths]):
        assert sum(narrow) <= 0.7 * sum(wide)
    assert [layer.channels_before for layer in two[1].plan.layers[:-1]] == widths[0]


def test_a_pass_is_what_its_steps_make_of_the_network(two):
    """Oracle: the steps by hand."""
    trained = tuned(network(), SPARSE, DATA, 1)
    inputs, _ = next(DATA.batches("test", 16))
    chosen = select_within_budget(trained, inputs, score_channels("liu2017", trained, inputs), Budget("channels", 0.7))
    assert two[0].plan.criterion == str(chosen)
    assert two[0].trained == 1 - evaluate(trained, DATA).top1
    assert two[0].error == 1 - evaluate(two[0].model, DATA).top1


def test_the_network_given_is_not_touched():
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    next(passes(model, DATA, SPARSE, 0.9, threads=1))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_recipe_without_l1_is_refused():
    with pytest.raises(UsageError, match="L1 on γ"):
        next(passes(network(), DATA, recipe(), 0.5))
