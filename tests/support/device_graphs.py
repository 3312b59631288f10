"""Cases of `test_elsewhere`: steps and forwards that are captured as CUDA graphs, on graphs that are lists of ops.

Such a list has of a CUDA graph what code can get wrong: numbers of Python's are what they were at the capture, tensors
stay where they are, nothing is computed while it is captured, and nothing may be read by or brought from the CPU then.
Streams, memory pools and what kernels do cannot be seen here; `test_batches` sees them on a GPU.
"""

from contextlib import nullcontext
from unittest import mock

import pytest
import torch
from device_slimming import IMAGES, network
from device_training import DIGITS, recipe, small
from elsewhere import GPU, HERE, MACHINE
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from slimnet.benchmark.runtimes.torch_graph import graph_run
from slimnet.modules.example_inputs import Inputs
from slimnet.training import train
from slimnet.training.loop import cuda_graph_step
from slimnet.training.loop.batches import HostBatches, batches_of

pytestmark = pytest.mark.skipif(GPU, reason="there is a GPU, on which tests/training/test_batches.py captures")
ATEN = torch.ops.aten


class List(TorchDispatchMode):
    """The ops of a capture in order, each with the tensors that it takes and gives."""

    def __init__(self):
        super().__init__()
        self.ops, self.before, self.made = [], {}, {}

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [each for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        self.refuse(op, given, kwargs.get("device"))
        # BatchNorm writes into its statistics, of which its schema says nothing.
        for tensor in given if op._schema.is_mutable or op is ATEN.native_batch_norm.default else ():
            self.remember(tensor)
        out = op(*args, **kwargs)
        old = {place_of(tensor) for tensor in given}
        for tensor in pytree.tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and place_of(tensor) not in old:
                self.made[place_of(tensor)] = tensor
        self.ops.append((op, args, kwargs, out))
        return out

    @staticmethod
    def refuse(op, given, target):
        """Refuse what a stream that is captured does not permit: values read back, and copies between devices."""
        places = {each.device for each in given if each.ndim} | ({torch.device(target)} if target and given else set())
        if op is ATEN._local_scalar_dense.default or len(places) > 1:
            raise RuntimeError(f"operation not permitted when stream is capturing: {op} on {places}")

    def remember(self, tensor):
        """What was there before the capture, which is to be there after it."""
        if place_of(tensor) not in self.made:
            part = place_of(tensor), tensor.storage_offset(), tensor.shape
            self.before.setdefault(part, (tensor, tensor.detach().clone()))

    def forget(self):
        """Undo what has been computed."""
        for tensor, old in reversed(self.before.values()):
            tensor.detach().copy_(old)

    def replay(self):
        """Do all of it, in the same places."""
        with torch.no_grad():
            for op, args, kwargs, out in self.ops:
                if any(each.alias_info and not each.alias_info.is_write for each in op._schema.returns):
                    continue
                new = op(*args, **kwargs)
                for old, value in zip(pytree.tree_leaves(out), pytree.tree_leaves(new), strict=True):
                    if isinstance(old, torch.Tensor) and old is not value:
                        old.copy_(value)


def place_of(tensor):
    return tensor.untyped_storage()._cdata


class Graph:
    """What stands in for `torch.cuda.CUDAGraph`."""

    def replay(self):
        self.list.replay()


class capture:
    """What stands in for `torch.cuda.graph`: the way into such a list and out of it."""

    def __init__(self, graph, stream=None, capture_error_mode="global"):
        self.graph = graph

    def __enter__(self):
        self.random, self.graph.list = MACHINE.get_rng_state(), List()
        self.graph.list.__enter__()

    def __exit__(self, *problem):
        self.graph.list.__exit__(*problem)
        with torch.no_grad():
            self.graph.list.forget()
        MACHINE.set_rng_state(self.random)


@pytest.fixture(autouse=True)
def lists_for_graphs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, mock.MagicMock())


def trained(*, graph, batches=batches_of, **changes):
    """The weights after eight steps, the rate dropping after the fifth: three to warm up, two captures."""
    run = train(recipe(iterations=8, drops=(5,), weight_decay=1e-3, **changes), DIGITS, device=HERE, every=4)
    if graph:
        given = batches(DIGITS, run.recipe, run.device, run.ranks.part)
        run._advance = cuda_graph_step.CapturedStep(run.recipe, given, run._step, run._tally)
    reports = [progress.loss for progress in run]
    return reports, run.model.state_dict()


def assert_alike(first, second):
    assert first[0] == pytest.approx(second[0], rel=1e-4)
    for name, tensor in first[1].items():
        torch.testing.assert_close(tensor.cpu(), second[1][name].cpu(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        *({"optimiser": name} for name in ("adam", "sgd", "adamax", "adadelta", "rmsprop")),
        *({"precision": "bf16"}, {"cost_aware": "macs"}, {"l1_gamma": 1e-3, "decoupled": 1e-3}),
        {"batches": HostBatches},
        {"arch_args": {"dropout": 0.5}},
    ],
    ids=str,
)
def test_captured_steps_are_the_steps_that_were_captured(changes):
    plain = {name: value for name, value in changes.items() if name != "batches"}
    assert_alike(trained(graph=True, **changes), trained(graph=False, **plain))


def test_what_reads_a_number_cannot_be_captured():
    """So that the other cases show something."""
    assert "adagrad" in cuda_graph_step.NOT_CAPTURED
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"), capture(Graph()):
        float(torch.ones((), device=HERE))
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"), capture(Graph()):
        torch.ones(2).to(HERE)


def test_nothing_is_computed_by_a_capture():
    model = small(0.5).to(HERE)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = MACHINE.get_rng_state()
    with capture(Graph()):
        model.train()(torch.ones(2, 1, 16, 16, device=HERE)).sum().backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(random, MACHINE.get_rng_state())


def test_a_replayed_forward_computes_what_lies_in_its_inputs_now():
    model, place = network().to(HERE), IMAGES.to(HERE)
    with torch.inference_mode():
        replay = graph_run(model, Inputs.of(place))
        place.copy_(IMAGES.flip(0))
        assert torch.equal(replay(), model(place))
        assert isinstance(model, nn.Module)
