"""LayerNorm over a stream with constant channels: they go, and what they add to mean and variance stays.

The oracle is the network itself in double precision, whose γ are exactly zero: `wiring.slim` compares both.
"""

import copy
import dataclasses
from collections.abc import Iterable, Sequence

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from wiring import reasons, refused, slim, wired

import slimnet
from slimnet.compat import torchvision
from slimnet.errors import PlanError
from slimnet.models.compensated_norm import CompensatedLayerNorm, CompensatedLayerNorm2d, compensate

WIDTH = 8


class Block(nn.Module):
    """A residual block on tokens: LayerNorm, two linear layers, and a scale of every channel."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.up, self.down = norm, nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)
        self.scale = nn.Parameter(torch.rand(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * self.down(functional.gelu(self.up(self.norm(x))))


class Stream(nn.Module):
    """Tokens `(N, T, 5)` through two blocks on one residual stream, with a LayerNorm behind it."""

    def __init__(self, **norm: object) -> None:
        super().__init__()
        self.stem = nn.Linear(5, WIDTH)
        self.blocks = nn.Sequential(Block(nn.LayerNorm(WIDTH, **norm)), Block(nn.LayerNorm(WIDTH, **norm)))
        self.last, self.head = nn.LayerNorm(WIDTH, **norm), nn.Linear(WIDTH, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.last(self.blocks(self.stem(x))).mean(1))


def stream(dead: Iterable[int], seed: int = 0, **norm: object) -> Stream:
    """A `Stream` some channels of which are constant in the stem and in every block, and dead in every LayerNorm."""
    channels = sorted(dead)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = Stream(**norm).double().eval()
        for module in model.modules():
            if isinstance(module, nn.LayerNorm) and module.weight is not None:
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_()
                module.weight[channels] = 0.0
        model.stem.weight[channels] = 0.0
        for block in model.blocks:
            block.scale[channels] = 0.0
    return model


def tokens(batch: int = 2, count: int = 6) -> torch.Tensor:
    return torch.randn(batch, count, 5, dtype=torch.float64)


def normalised_over(model: nn.Module) -> list[tuple[int, ...]]:
    """The shape that every LayerNorm normalises over."""
    return [tuple(module.normalized_shape) for module in model.modules() if isinstance(module, nn.LayerNorm)]


def test_constant_channels_of_a_stream_go_from_every_layer_that_touches_them():
    slimmed = slim(stream([1, 4, 6]), tokens())
    assert normalised_over(slimmed.model) == [(5,)] * 3
    assert slimmed.model.stem.out_features == slimmed.model.head.in_features == 5
    assert [each.total for each in slimmed.plan.compensations] == [WIDTH] * 3
    assert "last: removed constants stay in its mean and variance" in str(slimmed.plan)


@settings(max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(dead=st.sets(st.integers(0, WIDTH - 1)), seed=st.integers(0, 3))
def test_any_channels_may_be_constant(dead, seed):
    """All that are constant go, but for two: a single channel would be broadcast."""
    assert normalised_over(slim(stream(dead, seed), tokens()).model) == [(max(2, WIDTH - len(dead)),)] * 3


@pytest.mark.parametrize("spoilt", ["stem", "blocks.1", "last"])
def test_a_channel_that_varies_in_one_place_stays(spoilt):
    """A filter, a scale or a γ that is not zero keeps the channel in the whole stream."""
    model = stream([1, 4])
    with torch.no_grad():
        module = model.get_submodule(spoilt)
        (module.scale if spoilt == "blocks.1" else module.weight)[1] = 0.5
    slimmed = slim(model, tokens())
    assert normalised_over(slimmed.model) == [(WIDTH - 1,)] * 3
    assert "0 of" not in str(slimmed.plan).splitlines()[1]


def test_without_affine_parameters_every_channel_varies_and_stays():
    slimmed = slim(stream([1, 4], elementwise_affine=False), tokens())
    assert normalised_over(slimmed.model) == [(WIDTH,)] * 3
    assert not slimmed.plan.compensations


def test_without_affine_parameters_what_nobody_reads_goes():
    """The reader has no weights for them, so that their varying values reach nothing."""
    model = stream([1, 4], elementwise_affine=False)
    with torch.no_grad():
        for reader in (*(block.up for block in model.blocks), model.head):
            reader.weight[:, [1, 4]] = 0.0
    assert normalised_over(slim(model, tokens()).model) == [(WIDTH - 2,)] * 3


def test_a_layer_norm_without_bias():
    slimmed = slim(without_bias(stream([2, 3])), tokens())
    assert normalised_over(slimmed.model) == [(WIDTH - 2,)] * 3


def without_bias(model: Stream) -> Stream:
    """The network with LayerNorms of γ alone."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.bias = None
    return model


def test_a_layer_norm_that_runs_twice_stays():
    """Its constants might differ between the runs, and it has one set of statistics to add."""
    model = stream([1, 4])
    model.blocks[1].norm = model.blocks[0].norm
    slimmed = slim(model, tokens())
    assert normalised_over(slimmed.model)[0] == (WIDTH,)
    assert "normalised over its channels at native_layer_norm" in reasons(slimmed)


def test_a_layer_norm_in_the_code_or_of_another_class_stays():
    class Mine(nn.LayerNorm):
        pass

    for norm in (lambda self, x: functional.layer_norm(x, (WIDTH,), self.norm.weight), lambda self, x: self.norm(x)):
        model = wired(
            lambda self, x, norm=norm: self.head(norm(self, self.stem(x))),
            stem=nn.Linear(5, WIDTH),
            norm=Mine(WIDTH),
            head=nn.Linear(WIDTH, 3),
        )
        with torch.no_grad():
            model.stem.weight[:2] = 0.0
            model.norm.weight[:2] = 0.0
        assert "normalised over its channels at native_layer_norm" in reasons(slim(model, tokens()))


def test_a_layer_norm_over_several_axes_stays():
    model = wired(
        lambda self, x: self.head(self.norm(self.stem(x))),
        stem=nn.Linear(5, WIDTH),
        norm=nn.LayerNorm((6, WIDTH)),
        head=nn.Linear(WIDTH, 3),
    )
    with torch.no_grad():
        model.stem.weight[:2] = 0.0
    assert slim(model, tokens()).model.stem.out_features == WIDTH


def kill_stage(model: nn.Module, channels: Sequence[int]) -> None:
    """Make channels of the first stage of torchvision's ConvNeXt constant."""
    stem, stage, downsample = model.features[:3]
    with torch.no_grad():
        stem[0].weight[channels] = 0.0
        for norm in (stem[1], *(block.block[2] for block in stage), downsample[0]):
            norm.weight[channels] = 0.0
            norm.bias.normal_()
        for block in stage:
            block.layer_scale.uniform_(0.5, 1.5)
            block.layer_scale[channels] = 0.0
            block.block[0].weight[channels] = 0.0


def test_the_stream_of_a_convnext_stage():
    """torchvision's ConvNeXt, with LayerNorms over the channels of images and of tokens."""
    torch.manual_seed(0)
    model = torchvision().models.convnext_tiny(weights=None, num_classes=4).double().eval()
    kill_stage(model, range(40))
    slimmed = slim(model, torch.randn(1, 3, 32, 32, dtype=torch.float64))
    stem, stage, downsample = slimmed.model.features[:3]
    assert stem[0].out_channels == stage[0].block[0].out_channels == downsample[1].in_channels == 96 - 40
    assert isinstance(stem[1], CompensatedLayerNorm2d)
    assert isinstance(stage[0].block[2], CompensatedLayerNorm)


def test_a_bundle_and_an_exported_network_keep_the_statistics(tmp_path):
    """Oracle: the bundle's own checks, which run every exported form under its runtime."""
    model = stream([1, 4, 6]).float()
    slimmed = slimnet.slim(model, tokens().float())
    slimnet.save(slimmed, tmp_path / "bundle")
    slimnet.verify_bundle(tmp_path / "bundle", dense=model)
    loaded, fresh = slimnet.load(tmp_path / "bundle", model), tokens().float()
    with torch.no_grad():
        assert torch.equal(loaded(fresh), slimmed.model(fresh))


def test_plans_compose_behind_a_compensation_and_it_is_slimmed_again():
    """Oracle: the two plans applied in turn."""
    dense = stream([1, 4, 6])
    first = slimnet.slim(dense, tokens())
    with torch.no_grad():
        first.model.blocks[0].up.weight[:3] = 0.0
    second = slim(first.model, tokens())
    assert second.model.blocks[0].up.out_features == 9
    once = slimnet.apply_plan(dense, first.plan.then(second.plan))
    assert normalised_over(once) == [(5,)] * 3
    assert once.blocks[0].up.out_features == 9
    assert type(first.plan).from_json(first.plan.to_json()) == first.plan


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_with_nothing_removed_it_is_a_layer_norm(dtype):
    """Oracle: torch's own, in the same type, with large and small inputs."""
    plain = nn.LayerNorm(16).to(dtype)
    nn.init.normal_(plain.weight)
    other = copy.deepcopy(plain)
    compensate(other, "norm", 16, 0.0, 0.0)
    for factor in (1e-2, 1.0, 1e3):
        x = (torch.randn(4, 7, 16) * factor + factor).to(dtype)
        torch.testing.assert_close(
            other(x), plain(x), rtol=4 * torch.finfo(dtype).eps, atol=16 * torch.finfo(dtype).eps
        )


def test_a_plan_that_compensates_something_else_is_refused():
    model = stream([1, 4])
    plan = slimnet.slim(model, tokens()).plan
    (each, *others) = plan.compensations
    for changed, words in (
        (dataclasses.replace(each, module="stem"), "the plan removes channels of stem, which is not a LayerNorm"),
        (dataclasses.replace(each, spread=-1.0), "statistics that it cannot have"),
        (others[0], "2 times"),
    ):
        forged = dataclasses.replace(plan, compensations=(changed, *others))
        assert words in refused(PlanError, 2, lambda forged=forged: slimnet.apply_plan(model, forged))
