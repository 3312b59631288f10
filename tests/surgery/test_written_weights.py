"""Weights that a forward writes in place, or computes by ops that slimnet does not know."""

import pytest
import torch
from torch import nn
from wiring import chain, norm, planes, slim, widths

from slimnet.pipeline import slim as slim_any


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class MaskedConv(nn.Conv2d):
    """The convolution of a PixelCNN: no pixel sees the ones behind it."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        mask = torch.ones_like(self.weight)
        mask[:, :, 1, 2:] = 0
        mask[:, :, 2] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.write_mask()
        return super().forward(x)

    def write_mask(self) -> None:
        raise NotImplementedError


class MaskedThroughData(MaskedConv):
    def write_mask(self) -> None:
        self.weight.data *= self.mask


class MaskedDirectly(MaskedConv):
    def write_mask(self) -> None:
        with torch.no_grad():
            self.weight.mul_(self.mask)


class ClippedNorm(nn.BatchNorm2d):
    """A BatchNorm that keeps its scale from becoming negative."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.weight.data.clamp_(min=0)
        return super().forward(x)


@pytest.mark.parametrize("kind", [MaskedThroughData, MaskedDirectly])
def test_filters_go_from_a_convolution_that_masks_its_weight_in_place(kind):
    model = chain(
        kind(2, 6, 3), norm(6, [0, 4], 0.3), nn.ReLU(), kind(6, 5, 3), norm(5, [1]), nn.ReLU(), nn.Conv2d(5, 3, 1)
    )
    slimmed = slim(model, planes())
    assert widths(slimmed.model) == [4, 4, 3]
    assert slimmed.model[3].mask.shape == slimmed.model[3].weight.shape == (4, 4, 3, 3)


def test_constants_are_not_carried_by_a_weight_that_a_mask_is_written_over():
    """Merged under padding, the weight of the carrier would be masked again in every forward."""
    model = chain(
        nn.Conv2d(2, 6, 3), norm(6, [0, 4], 0.3), nn.ReLU(), MaskedThroughData(6, 5, 3, padding=1), norm(5, []),
        nn.ReLU(), nn.Conv2d(5, 3, 1),
    )  # fmt: skip
    slimmed = slim(model, planes())
    assert not slimmed.plan.merges


def test_a_batch_norm_that_clips_its_scale_in_place_is_exact():
    clipped = ClippedNorm(6)
    clipped.load_state_dict(norm(6, [0, 4], 0.3).state_dict())
    with torch.no_grad():
        clipped.weight[2] = -1.0
    model = chain(nn.Conv2d(2, 6, 3), clipped, nn.ReLU(), nn.Conv2d(6, 3, 1))
    with torch.no_grad():
        model[1].bias[2] = -1.0
    # The scale of channel 2 is zero only once the forward has begun.
    slimmed = slim_any(model, planes())
    assert widths(slimmed.model) == [3, 3]
    assert slimmed.certificate.holds


def fake_quantised(model: nn.Module, inputs: torch.Tensor) -> nn.Module:
    """The network as quantisation-aware training sees it, after one batch."""
    quantization = pytest.importorskip("torch.ao.quantization")
    model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    prepared = quantization.prepare_qat(model.train())
    prepared(inputs)
    return prepared.eval()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_layers_with_fake_quantised_weights_are_counted_and_keep_their_channels():
    model = chain(
        nn.Conv2d(2, 6, 3), norm(6, [0, 4]), nn.ReLU(), nn.Conv2d(6, 3, 1), nn.Flatten(), nn.Linear(48, 5)
    ).float()  # fmt: skip
    inputs = planes().float()
    dense = slim_any(model.eval(), inputs).plan
    plan = slim_any(fake_quantised(model, inputs), inputs).plan
    assert plan.macs_before == plan.macs_after == dense.macs_before > dense.macs_after
    assert [layer.name for layer in plan.layers] == [layer.name for layer in dense.layers]
    assert not plan.removed_channels
