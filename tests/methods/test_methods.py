"""Methods choose channels and the surgery removes them: the oracle is the masked network, and counts by hand."""

import sys

import numpy as np
import pytest
import torch
from masking import difference, outputs
from networks import BLOCKS, images, lively
from networks import Recipe as Drawn
from networks import build as random_network
from torch import nn

from slimnet.errors import DataError, UsageError
from slimnet.methods import (
    METHODS,
    Budget,
    Ranking,
    Selection,
    mask_selected,
    plan_for,
    remove_selected,
    score_channels,
    select_within_budget,
)
from slimnet.methods.candidates import Channels
from slimnet.methods.reader_importance import strengths
from slimnet.models import CifarResNet, PreActResNet

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3])
STREAM = ("conv1", "layer1.0.conv2")
"""The layers of a ResNet-8 that write to the first stage's residual stream; zero channels join it to the others'."""


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return lively(CifarResNet(8))


def plain(*widths: int, norm: bool = True) -> nn.Sequential:
    """Convolutions of these widths over three channels, each with a BatchNorm, and a classifier."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in zip((3, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1), *([nn.BatchNorm2d(after)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 5)).eval()


def removed(plan) -> dict[str, int]:
    found = {layer.name: layer.channels_before - layer.channels_after for layer in plan.layers}
    return {layer: count for layer, count in found.items() if count}


def assert_alike(first: nn.Module, second: nn.Module, images: torch.Tensor = IMAGES) -> None:
    with torch.no_grad():
        torch.testing.assert_close(first(images), second(images), rtol=1e-5, atol=1e-5)


# --- silencing and removing ---


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_chooses_is_removed_exactly(resnet, method):
    """The certificate is against the masked network; the budget is met by MACs that the plan counts."""
    ranking = score_channels(method, resnet, IMAGES, batches=[(IMAGES, LABELS)])
    selection = select_within_budget(resnet, IMAGES, ranking, Budget("macs", 0.6))
    slimmed = remove_selected(resnet, IMAGES, selection)
    assert 0.4 < slimmed.plan.macs_after / slimmed.plan.macs_before <= 0.6
    assert slimmed.certificate.holds
    assert "to the dense network with the chosen channels at zero and" in str(slimmed.certificate)
    assert f"chosen by {method} for macs at most 0.6 of the dense network's" in slimmed.plan.criterion
    quiet = mask_selected(resnet, IMAGES, selection)
    assert_alike(slimmed.model, quiet)
    with torch.no_grad():
        assert not torch.allclose(quiet(IMAGES), resnet(IMAGES))
    assert removed(slimmed.plan) == {layer: len(channels) for layer, channels in selection.channels.items()}


def test_a_masked_channel_is_exactly_zero_behind_its_batchnorm(resnet):
    """Oracle: hooks on a real forward; the stream's third channel and two channels within a block."""
    chosen = dict.fromkeys(STREAM, (2,)) | {"layer1.0.conv1": (1, 3)}
    quiet = mask_selected(resnet, IMAGES, Selection("mine", chosen))
    seen = {}
    for name in ("bn1", "layer1.0.bn1", "layer1.0.bn2"):
        quiet.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        quiet(IMAGES)
    dead = {name: torch.nonzero((out == 0).all(3).all(2).all(0)).reshape(-1).tolist() for name, out in seen.items()}
    assert dead == {"bn1": [2], "layer1.0.bn1": [1, 3], "layer1.0.bn2": [2]}


def test_a_masked_network_is_a_copy(resnet):
    state = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    quiet = mask_selected(resnet, IMAGES, Selection("mine", {"layer1.0.conv1": (1, 3)}))
    for tensor in quiet.parameters():
        tensor.data.zero_()
    assert all(torch.equal(tensor, state[name]) for name, tensor in resnet.state_dict().items())


def test_layers_without_batchnorm_are_masked_by_their_filters():
    model = plain(6, 8, norm=False)
    slimmed = remove_selected(model, IMAGES, Selection("mine", {"0": (0, 5), "2": (7,)}))
    assert removed(slimmed.plan) == {"0": 2, "2": 1}
    quiet = mask_selected(model, IMAGES, Selection("mine", {"0": (0, 5), "2": (7,)}))
    assert not quiet[0].weight[[0, 5]].any()
    assert not quiet[0].bias[[0, 5]].any()
    assert_alike(slimmed.model, quiet)


def test_a_stream_that_many_batchnorms_read_is_cut_as_a_whole():
    """Where BatchNorm comes before the convolution, the writers of a stream have none of their own."""
    model = lively(PreActResNet(11))
    ranking = score_channels("liu2017", model, IMAGES)
    selection = select_within_budget(model, IMAGES, ranking, Budget("macs", 0.5))
    slimmed = remove_selected(model, IMAGES, selection)
    assert removed(slimmed.plan) == {layer: len(channels) for layer, channels in selection.channels.items()}
    assert_alike(slimmed.model, mask_selected(model, IMAGES, selection))


@pytest.mark.parametrize("block", sorted(BLOCKS))
def test_any_wiring_is_cut_as_the_masked_network_says(block):
    """Random networks; a third of the sets of channels are chosen at random, and removed or at least masked."""
    recipe = Drawn(("plain", block, "plain"), seed=3)
    model = random_network(recipe, rate=0.2, beta="random").eval()
    inputs = images(recipe, batch=2, seed=0)
    channels = Channels.of(model, inputs)
    chosen = np.random.default_rng(0).random(channels.pinned.size) < 0.3
    selection = Selection("random", channels.of_sets(chosen & ~channels.pinned))
    slimmed = remove_selected(model, inputs, selection)
    assert difference(outputs(mask_selected(model, inputs, selection), inputs), outputs(slimmed.model, inputs)) < 1e-12
    assert slimmed.plan.removed_channels


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ({"layer9": (0,)}, "no convolution or linear layer layer9"),
        ({"conv1": (16,)}, r"channels of conv1 are chosen outside 0\.\.15"),
        ({"conv1": (-1,)}, r"channels of conv1 are chosen outside 0\.\.15"),
    ],
)
def test_a_selection_for_another_network_is_refused(resnet, channels, message):
    with pytest.raises(UsageError, match=message):
        mask_selected(resnet, IMAGES, Selection("mine", channels))


# --- ranking ---


def test_li2017_ranks_by_the_sum_of_absolute_weights(resnet):
    """Only first convolutions: the others write to a residual stream. Each layer's mean is 1."""
    ranking = score_channels("li2017", resnet, IMAGES)
    assert list(ranking.scores) == ["layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1"]
    for layer, scores in ranking.scores.items():
        norms = resnet.get_submodule(layer).weight.detach().abs().sum((1, 2, 3)).double()
        np.testing.assert_allclose(scores, norms / norms.mean(), rtol=1e-6)


def test_liu2017_ranks_by_gamma_and_means_over_a_stream(resnet):
    scores = score_channels("liu2017", resnet, IMAGES).scores
    np.testing.assert_allclose(scores["layer1.0.conv1"], resnet.layer1[0].bn1.weight.detach().abs(), rtol=1e-6)
    np.testing.assert_array_equal(*(scores[layer][:4] for layer in STREAM))
    assert "linear" not in scores


def part_of_rest(energies: np.ndarray) -> list[float]:
    return [each / sum(other for other in energies if other >= each) for each in energies]


def test_implicit_weighs_what_a_channel_means_to_its_reader_by_what_it_costs():
    """By hand: 3×3 filters over 16×16; a channel of the first layer also frees a slice of the second."""
    model = lively(plain(6, 8))
    for norm in (model[1], model[4]):
        norm.bias.data.fill_(9)
    scores = score_channels("implicit", model, IMAGES).scores
    plane = 9 * 256
    costs = np.array([(3 + 8) * plane, 6 * plane + 5])
    expected = []
    for conv, norm, reader in ((model[0], model[1], model[3]), (model[3], model[4], model[8])):
        own = conv.weight.detach().abs().sum((1, 2, 3))
        heard = reader.weight.detach().square().sum([axis for axis in range(reader.weight.ndim) if axis != 1])
        varies = norm.weight.detach() ** 2  # nothing of it is below 0 where β is 9
        energies = (own / own.mean()) ** 2 * heard * varies / (varies + varies.mean() / 100)
        expected.append(part_of_rest(energies.numpy()))
    mean = (6 * costs[0] + 8 * costs[1]) / 14
    np.testing.assert_allclose(scores["0"], np.array(expected[0]) * mean / costs[0], rtol=1e-3)
    np.testing.assert_allclose(scores["3"], np.array(expected[1]) * mean / costs[1], rtol=1e-3)


def test_implicit_gives_up_what_is_nearly_dead_first():
    """|γ| above the threshold, and weights like the others': what hardly varies means little."""
    model = lively(plain(6, 8))
    for norm, channel in ((model[1], 4), (model[4], 5)):
        norm.weight.data[channel], norm.bias.data[channel] = 2e-3, 1.0
    scores = score_channels("implicit", model, IMAGES).scores
    assert [int(np.argmin(scores[layer])) for layer in ("0", "3")] == [4, 5]


def test_implicit_counts_a_stream_by_all_that_read_it(resnet):
    """The first stage's stream goes on through all others, to four layers: four times the sum of four parts."""
    channels = Channels.of(resnet, IMAGES)
    stream = int(channels.layers["conv1"][2])
    read_by = [step.module for step in channels.graph.readers if (channels.sets[step.inputs] == stream).any()]
    assert read_by == ["layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1", "linear"]
    found = strengths(resnet, channels)
    inner = int(channels.layers["layer1.0.conv1"][0])
    assert 0 < found[stream] <= 4 * 4
    assert 0 < found[inner] <= 1


def test_implicit_takes_first_what_is_dead_anyway():
    """Two dead channels whose β shines through go at any budget, exactly: nothing else need be chosen."""
    model = lively(plain(6, 8))
    model[1].weight.data[[0, 1]] = 1e-5
    selection = select_within_budget(model, IMAGES, score_channels("implicit", model, IMAGES), Budget("macs", 0.9))
    assert (selection.channels, selection.threshold) == ({}, 1e-3)
    slimmed = remove_selected(model, IMAGES, selection)
    assert removed(slimmed.plan) == {"0": 1}, "the other carries their constants"
    assert slimmed.certificate.reference == "the dense network"
    with torch.no_grad():
        torch.testing.assert_close(slimmed.model(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-4)


def test_random_depends_on_its_seed_alone(resnet):
    first, again, other = (score_channels("random", resnet, IMAGES, seed=seed).scores["conv1"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_taylor_is_weight_times_gradient():
    """Oracle: the sum of |w · ∂loss/∂w| of each filter, by autograd here."""
    model = plain(6, 8)
    scores = score_channels(
        "taylor", model, IMAGES, batches=[(IMAGES[:2], LABELS[:2]), (IMAGES[2:], LABELS[2:])]
    ).scores
    nn.functional.cross_entropy(model(IMAGES), LABELS, reduction="sum").backward()
    for layer in ("0", "3"):
        weight = model.get_submodule(layer).weight
        expected = (weight * weight.grad).abs().sum((1, 2, 3)).detach()
        np.testing.assert_allclose(scores[layer], expected / expected.mean(), rtol=1e-4)


def test_fpgm_gives_up_the_filter_that_others_replace():
    """Two filters alike lie in the middle of the others."""
    model = plain(6, 8)
    weight = model[0].weight.data
    weight[1] = weight[4] = weight.mean(0)
    scores = score_channels("fpgm", model, IMAGES).scores["0"]
    assert set(np.argsort(scores)[:2].tolist()) == {1, 4}


def test_wrong_requests_are_refused_in_one_line(resnet, monkeypatch):
    bare = plain(6, 8, norm=False)
    for method in ("liu2017",):
        with pytest.raises(UsageError, match=r"Sequential has no BatchNorm whose γ could be ranked; take implicit"):
            score_channels(method, bare, IMAGES)
    with pytest.raises(UsageError, match=r"there is no method 'liu2018'; did you mean liu2017\? \(implicit, li2017,"):
        score_channels("liu2018", resnet, IMAGES)
    with pytest.raises(UsageError, match="taylor needs labelled images"):
        score_channels("taylor", resnet, IMAGES)
    with pytest.raises(DataError, match="taylor was given no batches"):
        score_channels("taylor", resnet, IMAGES, batches=[])
    with pytest.raises(UsageError, match="Linear has no channels that random could rank"):
        score_channels("random", nn.Linear(4, 2), torch.zeros(1, 4))
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(UsageError, match=r"torch_pruning is not installed; pip install torch-pruning"):
        score_channels("fpgm", resnet, IMAGES)


# --- budgets ---


@pytest.mark.parametrize("unit", ["macs", "params"])
def test_no_fewer_channels_would_do(resnet, unit):
    """Oracle: plans with one set of channels fewer, all along the order in which a ranking gives them up."""
    layers = {"layer1.0.conv1": 16, "layer3.0.conv1": 64}
    order = np.random.default_rng(0).permutation(80)
    scores = dict(zip(layers, np.split(order.astype(float), [16]), strict=True))
    selection = select_within_budget(resnet, IMAGES, Ranking("mine", scores), Budget(unit, 0.7))
    chosen = [(layer, channel) for layer, channels in selection.channels.items() for channel in channels]
    last = max(chosen, key=lambda place: scores[place[0]][place[1]])
    fewer = {layer: tuple(c for c in cs if (layer, c) != last) for layer, cs in selection.channels.items()}
    within_budget, over = (plan_for(resnet, IMAGES, Selection("mine", each)) for each in (selection.channels, fewer))
    assert left(within_budget, unit) <= 0.7 < left(over, unit)
    assert sorted(scores[layer][channel] for layer, channel in chosen) == list(range(len(chosen)))


def test_a_percentile_of_gamma_is_a_budget_of_channels():
    """Liu et al. 2017 take the share of all channels with the smallest γ, whatever their layers: of 56 here 28."""
    model = lively(plain(8, 16, 32))
    selection = select_within_budget(model, IMAGES, score_channels("liu2017", model, IMAGES), Budget("channels", 0.5))
    gammas = {layer: model.get_submodule(str(int(layer) + 1)).weight.detach() for layer in ("0", "3", "6")}
    limit = torch.cat(list(gammas.values())).sort().values[28]
    expected = {layer: torch.nonzero(gamma < limit).reshape(-1).tolist() for layer, gamma in gammas.items()}
    assert {layer: list(channels) for layer, channels in selection.channels.items()} == expected


def left(plan, unit: str) -> float:
    return getattr(plan, f"{unit}_after") / getattr(plan, f"{unit}_before")


def test_uniform_takes_the_same_share_of_every_layer():
    model = plain(8, 16, 32)
    scores = {"0": np.arange(8.0), "3": np.arange(16.0) + 100, "6": np.arange(32.0) + 1000}
    ranking = Ranking("mine", scores)
    selection = select_within_budget(model, IMAGES, ranking, Budget("macs", 0.3), scope="uniform")
    shares = [len(selection.channels[layer]) / width for layer, width in (("0", 8), ("3", 16), ("6", 32))]
    assert max(shares) - min(shares) <= 1 / 8
    assert selection.channels["6"] == tuple(range(len(selection.channels["6"])))
    everywhere = select_within_budget(model, IMAGES, ranking, Budget("macs", 0.3))
    assert len(everywhere.channels["0"]) == 7, "one threshold for all empties the first layer but for one channel"


def test_a_layer_never_loses_its_last_channel_and_the_smallest_possible_is_said():
    model = plain(4, 6)
    ranking = score_channels("random", model, IMAGES)
    smallest = (3 * 9 * 256 + 9 * 256 + 5) / (3 * 4 * 9 * 256 + 4 * 6 * 9 * 256 + 30)
    said = np.ceil(smallest * 1e4) / 1e4
    with pytest.raises(UsageError, match=rf"random cannot leave 0.01 of .* macs: the smallest possible is {said:g}$"):
        select_within_budget(model, IMAGES, ranking, Budget("macs", 0.01))
    selection = select_within_budget(model, IMAGES, ranking, Budget("macs", said))
    assert {layer: len(channels) for layer, channels in selection.channels.items()} == {"0": 3, "3": 5}


def test_channels_that_cannot_go_are_not_chosen():
    """The last convolution is the network's output; where a ranking leaves a writer out, its stream stays whole."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
    scores = {"0": np.arange(6.0), "2": np.zeros(4)}
    assert set(select_within_budget(model, IMAGES, Ranking("mine", scores), Budget("macs", 0.5)).channels) == {"0"}


class Gated(nn.Module):
    """Six channels, gated by a layer that reads their mean, or by their mean itself."""

    def __init__(self, *, read: bool):
        super().__init__()
        self.first, self.last = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU()), nn.Conv2d(6, 4, 3)
        self.gate = nn.Conv2d(1, 1, 1) if read else nn.Identity()

    def forward(self, x):
        y = self.first(x)
        return self.last(y * self.gate(y.mean(1, keepdim=True)).sigmoid())


def test_channels_whose_number_counts_in_a_mean_are_not_chosen():
    """Where a layer reads the mean, it makes up for what goes, exactly; where other code does, all six stay."""
    scores = {"first.0": np.arange(6.0)}
    model = Gated(read=True).eval()
    slimmed = remove_selected(
        model, IMAGES, select_within_budget(model, IMAGES, Ranking("mine", scores), Budget("macs", 0.5))
    )
    assert slimmed.certificate.holds
    assert slimmed.model.first[0].out_channels < 4
    with pytest.raises(UsageError, match="the smallest possible is 1"):
        select_within_budget(Gated(read=False), IMAGES, Ranking("mine", scores), Budget("macs", 0.5))


def test_a_writer_that_is_not_ranked_keeps_its_stream(resnet):
    scores = {"conv1": np.zeros(16), "layer1.0.conv1": np.ones(16)}
    selection = select_within_budget(resnet, IMAGES, Ranking("mine", scores), Budget("macs", 0.9))
    assert set(selection.channels) == {"layer1.0.conv1"}


def test_a_budget_of_latency_is_measured_on_slim_networks(resnet):
    """With a stopwatch that counts parameters the answer is that of the budget of parameters, to a 64th."""
    dense = sum(p.numel() for p in resnet.parameters())
    ranking = score_channels("random", resnet, IMAGES)

    def stopwatch(model: nn.Module) -> float:
        return sum(p.numel() for p in model.parameters()) / dense

    timed = select_within_budget(resnet, IMAGES, ranking, Budget("latency", 0.5), latency=stopwatch)
    assert 0.4 < left(plan_for(resnet, IMAGES, timed), "params") <= 0.5
    with pytest.raises(UsageError, match="a budget of latency needs latency="):
        select_within_budget(resnet, IMAGES, ranking, Budget("latency", 0.5))


@pytest.mark.parametrize("value", [0, -0.5, 1.5, float("nan"), "half"])
def test_budgets_outside_0_to_1_are_refused(value):
    with pytest.raises(UsageError, match=r"is not a fraction of the dense network's macs in \(0, 1\]; 0.5 leaves"):
        Budget("macs", value)


def test_wrong_units_scopes_and_scores_are_refused(resnet):
    with pytest.raises(UsageError, match="a budget is in macs, params, channels, latency; got 'flops'"):
        Budget("flops", 0.5)
    with pytest.raises(UsageError, match="scope is 'local'; it must be 'global' or 'uniform'"):
        select_within_budget(resnet, IMAGES, Ranking("mine", {}), Budget("macs", 0.5), scope="local")
    for scores in ({"conv9": np.zeros(16)}, {"conv1": np.zeros(15)}):
        with pytest.raises(UsageError, match="the ranking by mine has scores for conv"):
            select_within_budget(resnet, IMAGES, Ranking("mine", scores), Budget("macs", 0.5))
