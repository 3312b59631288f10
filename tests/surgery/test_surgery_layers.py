"""The surgery on every kind of layer, on other ways of being dead, and what it keeps of the network itself."""

from collections.abc import Sequence

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune
from wiring import chain, double, norm, planes, reasons, slim, widths, wired

from slimnet.surgery.plan import SurgeryPlan


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# Networks without BatchNorm, and other ways of being dead


def test_a_network_without_batch_norm_has_nothing_to_remove_and_stays_as_it_is():
    model = chain(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 3))
    slimmed = slim(model, planes())
    assert slimmed.plan.removed_channels == slimmed.plan.dead_channels == 0
    assert torch.equal(slimmed.model[0].weight, model[0].weight)
    assert "nothing to remove" in str(slimmed)


@pytest.mark.parametrize("bias", [False, True])
def test_an_all_zero_filter_is_dead_without_any_batch_norm(bias):
    model = chain(nn.Conv2d(2, 6, 3, bias=bias), nn.ReLU(), nn.Conv2d(6, 3, 3))
    with torch.no_grad():
        model[0].weight[[1, 4]] = 0.0
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [4, 3]
    assert len(slimmed.plan.folds) == int(bias and (model[0].bias[[1, 4]] > 0).any())


def test_a_filter_that_reads_only_dead_channels_is_dead_too():
    model = chain(
        nn.Conv2d(2, 4, 3), norm(4, [1, 2], 0.4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Conv2d(5, 3, 1)
    )
    with torch.no_grad():
        model[3].weight[0, [0, 3]] = 0.0
    assert widths(slim(model, planes()).model) == [2, 4, 3]


def test_filters_masked_by_torchs_own_pruning_go_with_their_masks():
    model = chain(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 3))
    prune.ln_structured(model[0], "weight", amount=2, n=1, dim=0)
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [4, 3]
    assert slimmed.model[0].weight_mask.shape == slimmed.model[0].weight_orig.shape == (4, 2, 3, 3)
    prune.remove(slimmed.model[0], "weight")
    assert slimmed.model[0].weight.shape == (4, 2, 3, 3)


def loader(*batches: torch.Tensor) -> list[torch.Tensor]:
    return list(batches)


def silent(channels: Sequence[int], module: nn.Module) -> nn.Module:
    """The layer with a bias so negative that these channels never pass a ReLU."""
    with torch.no_grad():
        module.bias[list(channels)] = -100.0
    return module


def test_channels_that_are_zero_on_all_the_data_are_dead_by_activation():
    model = chain(silent([0, 3], nn.Conv2d(2, 5, 3)), nn.ReLU(), nn.Conv2d(5, 3, 3, padding=1))
    slimmed = slim(model, planes(), criterion="activation", loader=loader(planes(), planes()))
    assert torch.equal(slimmed.model[0].weight, model[0].weight[[1, 2, 4]])


def test_one_example_on_which_a_channel_fires_keeps_it_alive():
    model = chain(silent([0, 3], nn.Conv2d(2, 5, 3)), nn.ReLU(), nn.Conv2d(5, 3, 3, padding=1))
    loud = torch.full((1, 2, 6, 6), 1000.0, dtype=torch.float64) * model[0].weight[0].sum((1, 2)).sign()[:, None, None]
    slimmed = slim(model, planes(), criterion="activation", loader=loader(planes(), loud))
    assert 0 not in {channel for kept in slimmed.plan.kept for channel in kept.channels}
    assert torch.equal(slimmed.model[0].weight[0], model[0].weight[0])


def test_a_dead_channel_that_must_stay_still_reads_what_makes_it_dead():
    """The network returns relu(c − b − a) = 0 of three equal channels; a and b are read by nothing else."""
    model = wired(
        lambda m, x: functional.relu(m.second(functional.relu(m.first(x)))),
        first=nn.Conv2d(2, 5, 1),
        second=nn.Conv2d(5, 2, 1),
    )
    with torch.no_grad():
        model.first.weight[[1, 2]] = model.first.weight[3].clone()
        model.first.bias[[1, 2]] = model.first.bias[3].clone()
        model.second.weight[:, :, 0, 0] = torch.tensor([[0.0, -1, -1, 1, 0], [1, 0, 0, 1, 1]])
        model.second.bias[:] = torch.tensor([0.0, 1])
    slimmed = slim(model, planes(), criterion="activation", loader=loader(planes()))
    assert widths(slimmed.model) == [5, 2]


def test_a_functional_activation_is_measured_at_each_of_its_calls():
    model = wired(
        lambda m, x: m.out(functional.relu(m.second(functional.relu(m.first(x))))),
        first=silent([1], nn.Conv2d(2, 5, 3)),
        second=silent([0, 2], nn.Conv2d(5, 5, 3)),
        out=nn.Conv2d(5, 3, 1),
    )
    slimmed = slim(model, planes(), criterion="activation", loader=loader(planes()))
    assert torch.equal(slimmed.model.first.bias, model.first.bias[[0, 2, 3, 4]])
    assert torch.equal(slimmed.model.second.bias, model.second.bias[[1, 3, 4]])


# Kinds of layers


def test_synchronised_batch_norm_is_batch_norm():
    bn = nn.SyncBatchNorm.convert_sync_batchnorm(norm(5, [1, 3], 0.7))
    slimmed = slim(chain(nn.Conv2d(2, 5, 3), bn, nn.ReLU(), nn.Conv2d(5, 3, 3)), planes())
    assert widths(slimmed.model) == [3, 3]
    assert slimmed.model[1].num_features == 3
    assert type(slimmed.model[1]) is nn.SyncBatchNorm


def test_a_batch_norm_without_scale_passes_constants_on():
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1, 3], 0.7), nn.BatchNorm2d(5, affine=False), nn.Conv2d(5, 3, 3))
    model[2].running_mean.normal_()
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [3, 3]
    assert slimmed.model[2].running_var.shape == (3,)


def test_a_batch_norm_without_statistics_normalises_by_the_batch():
    model = chain(
        nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5, track_running_stats=False), nn.ReLU(), nn.Conv2d(5, 3, 3, padding=1)
    )
    with torch.no_grad():
        model[1].weight[[0, 2]] = 0.0
        model[1].bias[[0, 2]] = 0.3
    assert widths(slim(model, planes()).model) == [4, 3]


@pytest.mark.parametrize("settings", [{}, {"affine": True}, {"track_running_stats": True}])
def test_instance_norm_knows_how_many_channels_are_left(settings):
    """Oracle: torch, which warns of an InstanceNorm that expects another number, also while it is traced."""
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1, 3], 0.7), nn.InstanceNorm2d(5, **settings), nn.Conv2d(5, 3, 3))
    slimmed = slim(model, planes())
    assert (slimmed.model[2].num_features, slimmed.model[0].out_channels) == (3, 3)
    assert SurgeryPlan.from_json(slimmed.plan.to_json()) == slimmed.plan


def test_filters_with_scales_of_their_own_are_cut_and_keep_what_they_read():
    """weight_norm: what a filter reads is in its norm, so that nothing of it may go, dead as it is."""
    model = chain(
        nn.Conv2d(2, 5, 3),
        norm(5, [2], -0.5),
        nn.ReLU(),
        parametrizations.weight_norm(nn.Conv2d(5, 6, 3)),
        norm(6, [0, 4], 0.5),
        nn.Conv2d(6, 3, 1),
    )
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [5, 4, 3]
    assert "normalised with its filter at _weight_norm_interface in 3.parametrizations" in reasons(slimmed)


def test_dead_filters_of_a_weight_that_cannot_be_cut_are_named():
    """They stay, since what is done to the weight is not known; the plan counts them and says why."""
    model = wired(
        lambda m, x: m.last(m.norm(functional.conv2d(x, m.weight.cumprod(1))).relu()),
        norm=norm(5, [1, 3], -0.5),
        last=nn.Conv2d(5, 3, 1),
    )
    model.weight = nn.Parameter(torch.randn(5, 2, 3, 3, dtype=torch.float64))
    slimmed = slim(model, planes())
    assert slimmed.plan.dead_channels == 2
    assert "combined with a weight that belongs to no layer in convolution in the network itself" in reasons(slimmed)


def test_prelu_slopes_are_cut_with_their_channels():
    model = chain(nn.Conv2d(2, 5, 3), norm(5, [1, 3], -0.7), nn.PReLU(5), nn.Conv2d(5, 3, 3))
    with torch.no_grad():
        model[2].weight.normal_()
    slimmed = slim(model, planes())
    assert torch.equal(slimmed.model[2].weight, model[2].weight[[0, 2, 4]])
    assert slimmed.model[2].num_parameters == 3


@pytest.mark.parametrize(
    ("groups", "beta", "left"),
    [
        (1, -0.2, [4, 12]),
        (1, 0.2, [5, 12]),
        (2, -0.2, [4, 14]),
        (2, 0.2, [6, 14]),
        (4, -0.2, [4, 8]),
        (8, -0.2, [3, 6]),
        (8, 0.2, [7, 14]),
    ],
)
@pytest.mark.parametrize("padding", [0, 1])
def test_transposed_convolutions_are_read_and_written(groups, padding, beta, left):
    """Each group keeps a carrier where β > 0; two of four groups are dead; of eight, each has one input of its own."""
    model = chain(
        nn.Conv2d(2, 8, 3),
        norm(8, [0, 1, 4, 5], beta),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 16, 3, stride=2, padding=padding, output_padding=padding, groups=groups),
        norm(16, [1, 6, 7, 10], 0.4),
        nn.ReLU(),
        nn.Conv2d(16, 3, 1),
    )
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [*left, 3]


def test_a_depthwise_transposed_convolution_is_cut_with_its_channels():
    model = chain(
        nn.Conv2d(2, 4, 3),
        norm(4),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 4, 2, stride=2, groups=4),
        norm(4, [0, 3], -0.4),
        nn.ReLU(),
        nn.Conv2d(4, 3, 1),
    )
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [2, 2, 3]
    assert slimmed.model[3].groups == 2


@pytest.mark.parametrize("dims", [1, 3])
def test_signals_and_volumes_are_slimmed_like_images(dims):
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[dims]
    bn = norm(5, [1, 3], 0.7, {1: nn.BatchNorm1d, 3: nn.BatchNorm3d}[dims])
    slimmed = slim(
        chain(conv(2, 5, 3), bn, nn.ReLU(), conv(5, 3, 3)), torch.randn(2, 2, *[6] * dims, dtype=torch.float64)
    )
    assert widths(slimmed.model) == [3, 3]


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_a_weight_that_is_computed_stays_exact(wrap):
    model = nn.Sequential(nn.Conv2d(2, 5, 3), norm(5, [1, 3], 0.7), nn.ReLU(), nn.Conv2d(5, 3, 3, padding=1))
    wrap(model[0])
    wrap(model[3])
    slim(double(model), planes())


class Attention(nn.Module):
    """A convolutional stem, tokens, self-attention and a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 3), norm(6, [1, 4], 0.5), nn.ReLU(), nn.Conv2d(6, 8, 1))
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.stem(x).flatten(2).mT)
        return self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1)


def test_a_convolutional_stem_in_front_of_attention_is_slimmed():
    assert widths(slim(double(Attention()), planes()).model)[:2] == [4, 8]


RECURRENT = {
    "gru": lambda: nn.GRU(5, 4, batch_first=True),
    "lstm": lambda: nn.LSTM(5, 4, batch_first=True, num_layers=2, bidirectional=True),
    "cell": lambda: nn.LSTMCell(5, 4),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_a_recurrent_layer_loses_what_it_reads_and_keeps_its_states(name):
    """Oracle: the dense network, at every time step; the constants go into the bias of the first layer."""
    model = wired(
        lambda m, x: m.rnn(m.read(m.norm(m.first(m.front(x)))))[0],
        front=nn.Sequential(nn.Conv2d(2, 4, 1), norm(4, [2], 0.3)),
        first=nn.Conv2d(4, 5, 3),
        norm=norm(5, [1], 0.5),
        rnn=RECURRENT[name](),
    )
    model.read = (lambda x: x.mean((2, 3))) if name == "cell" else (lambda x: x.flatten(2).mT)
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [3, 4]
    assert (slimmed.model.rnn.input_size, slimmed.model.rnn.hidden_size) == (4, 4)


def test_a_parameter_that_is_added_to_the_planes_is_cut_with_them():
    model = wired(
        lambda m, x: m.out(functional.relu(m.norm(m.first(x)) + m.offset)),
        first=nn.Conv2d(2, 5, 3),
        norm=norm(5, [1, 3], -0.7),
        out=nn.Conv2d(5, 3, 3),
    )
    model.offset = nn.Parameter(torch.randn(1, 5, 1, 1, dtype=torch.float64))
    slimmed = slim(model, planes())
    assert torch.equal(slimmed.model.offset, model.offset[:, [0, 2, 4]])


def test_a_layer_that_only_training_runs_is_cut_as_well():
    class Helped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(2, 5, 3), norm(5, [1, 3], -0.7)
            self.out, self.help = nn.Conv2d(5, 3, 1), nn.Conv2d(5, 2, 1)

        def forward(self, x: torch.Tensor) -> object:
            x = self.norm(self.first(x)).relu()
            return (self.out(x), self.help(x)) if self.training else self.out(x)

    slimmed = slim(double(Helped()), planes())
    assert slimmed.model.help.weight.shape == (2, 3, 1, 1)
    assert len(slimmed.model.train()(planes())) == 2
