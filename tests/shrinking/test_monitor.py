"""Monitor: its readings are what slimming would do, in the middle of training, and it leaves no trace."""

import pytest
import torch
from bundles import SHAPE, assert_same_snapshot, basic_net, snapshot
from torch import nn

import slimnet
from slimnet.errors import InputError, TraceError, UsageError


def x() -> torch.Tensor:
    return torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))


def test_a_reading_is_what_slimming_would_do():
    """Oracle: slim."""
    model = basic_net().train()
    found, slimmed = slimnet.Monitor(model, x()).read(), slimnet.slim(model, x())
    assert found.removable == slimmed.plan.removed_channels > 0
    assert (found.macs, found.macs_if_slimmed) == (slimmed.plan.macs_before, slimmed.plan.macs_after)
    assert found.macs_dense == found.macs
    assert found.channels == sum(layer.channels for layer in found.layers)
    assert found.dead == sum(layer.dead for layer in slimmed.plan.layers)
    share = round(100 * found.macs_if_slimmed / found.macs)
    assert str(found) == (
        f"{found.dead} of {found.channels} channels are dead, {found.removable} can be removed; "
        f"{share} % of the dense network's MACs if slimmed now"
    )


def test_it_touches_nothing_and_follows_the_weights():
    model = basic_net().train()
    monitor = slimnet.Monitor(model, x())
    before, random = snapshot(model), torch.get_rng_state()
    first = monitor.read()
    assert_same_snapshot(before, snapshot(model))
    assert torch.equal(torch.get_rng_state(), random)
    with torch.no_grad():
        model.features.bn1.weight[-1] = 1e-9
    assert monitor.read().dead == first.dead + 1


def test_after_a_cut_it_counts_from_the_network_as_it_was_built():
    model = basic_net()
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                norm.bias[:] = norm.bias.abs().neg()
    dense = slimnet.Monitor(model, x()).read()
    shrinker = slimnet.Shrinker(model, torch.optim.Adam(model.parameters()), x(), patience=1)
    assert shrinker.step() is not None
    found = slimnet.Monitor(model, x()).read()
    assert found.macs_dense == dense.macs
    assert found.macs < dense.macs
    assert found.scalars()["slimnet/macs"] == pytest.approx(found.macs / dense.macs)


def test_a_logger_gets_names_and_numbers():
    found = slimnet.Monitor(basic_net(), x()).read()
    scalars = found.scalars("net/", layers=True)
    assert scalars["net/dead"] == found.dead
    assert scalars["net/macs_if_slimmed"] == pytest.approx(found.macs_if_slimmed / found.macs_dense)
    assert sum(value for name, value in scalars.items() if name.startswith("net/dead/")) == found.dead
    assert all(isinstance(value, int | float) for value in scalars.values())
    assert set(found.scalars()) == {
        f"slimnet/{n}" for n in ("channels", "dead", "removable", "macs", "macs_if_slimmed")
    }


class Undecided(nn.Module):
    """Its forward depends on the values of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) if x.mean() > 0 else x


def test_what_cannot_be_read_is_refused():
    with pytest.raises(UsageError, match="threshold is -1"):
        slimnet.Monitor(basic_net(), x(), threshold=-1)
    with pytest.raises(InputError):
        slimnet.Monitor(basic_net(), [])
    with pytest.raises(TraceError):
        slimnet.Monitor(Undecided(), torch.ones(1, 2)).read()
