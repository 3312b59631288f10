"""The rival engine gets the same network, and is counted like the others."""

import pytest
import rivals
import torch

from slimnet.benchmark import macs
from slimnet.models import build

EXAMPLE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build("resnet20").eval()


def test_the_shortcut_as_a_convolution_computes_the_same_and_is_not_counted(network):
    """Oracle: the network with its padding."""
    same = rivals.with_projections(network)
    with torch.no_grad():
        assert torch.equal(same(EXAMPLE), network(EXAMPLE))
    assert macs(same, EXAMPLE) > rivals.counted(same, EXAMPLE) == macs(network, EXAMPLE)


def test_it_is_brought_within_the_macs_and_its_network_runs(network):
    most = 0.6 * macs(network, EXAMPLE)
    cut = rivals.brought_to("MagnitudePruner", rivals.with_projections(network), EXAMPLE[:1], most)
    assert 0.9 * most < cut.macs <= most
    with torch.no_grad():
        assert cut.model(EXAMPLE).shape == (2, 10)


def test_the_largest_cut_within_the_macs_is_found_although_some_crash():
    def cut_at(ratio: float) -> rivals.Cut:
        if ratio > 0.8:
            raise RuntimeError("crash")
        return rivals.Cut(torch.nn.Identity(), round(1000 * (1 - ratio)), ratio)

    found = rivals.bisected(cut_at, most=300, close=1)
    assert 299 <= found.macs <= 300
