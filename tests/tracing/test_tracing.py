"""What a trace leaves: sets of labels, known values, and nothing to collect."""

import gc

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import nn
from wiring import chain, planes, wired

import slimnet
from slimnet.graph.labels import connected_sets, unique
from slimnet.tracing.trace import trace


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pairs", [0, 1, 30, 200])
def test_labels_are_united_as_a_graph_of_the_pairs_connects_them(pairs, seed):
    left, right = np.random.default_rng(seed).integers(0, 100, (2, pairs))
    graph = coo_matrix((np.ones(pairs), (left, right)), (100, 100))
    assert np.array_equal(connected_sets(100, left, right), connected_components(graph, directed=False)[1])


@pytest.mark.parametrize("center", [0, 50, 99])
def test_labels_that_all_meet_one_are_one_set_whichever_it_is(center):
    assert not connected_sets(100, np.full(100, center), np.arange(100)[::-1].copy()).any()


@pytest.mark.parametrize("shape", [0, 1, 7, (4, 5)])
def test_values_are_listed_once_each_and_in_order(shape):
    numbers = np.random.default_rng(0).integers(-3, 4, shape)
    assert np.array_equal(unique(numbers), np.unique(numbers))


def test_a_trace_leaves_nothing_that_must_be_collected():
    model = chain(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 3))
    graph = trace(model, planes())
    del graph
    gc.collect()
    gc.disable()
    try:
        gc.set_debug(gc.DEBUG_SAVEALL)
        graph = trace(model, planes())
        del graph
        gc.collect()
        assert not [each for each in gc.garbage if isinstance(each, nn.Module | torch.Tensor | np.ndarray)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_a_constant_that_is_changed_through_a_view_is_no_longer_the_one_it_was():
    def forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        table = torch.zeros(4)
        table[:2] += x.sum()
        if table.sum() > 0:
            return model.last(x)
        return model.last(x) * 2

    model = wired(forward, last=nn.Conv2d(2, 3, 3))
    with pytest.raises(slimnet.errors.TraceError, match="depends on data"):
        trace(model, planes())
