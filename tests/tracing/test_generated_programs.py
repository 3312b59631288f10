"""Whatever stands between the layers of a network: no channel that the network uses is cut.

The oracle is the dense network, whose dead channels have γ = 0, run by torch alone in double precision. A plan is
looked at without its certificate, which would hide a wrong cut as a refusal.
"""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from program_ops import OPS
from programs import Program, build, probe, programs
from torch import nn

import slimnet
from slimnet.graph.channel_graph import ChannelGraph
from slimnet.modules.example_inputs import Inputs
from slimnet.pipeline import plan_and_apply
from slimnet.planning.dead_channels import DeadChannels, dead_by_scale
from slimnet.planning.slim_cost import is_plain

EXACT = 1e-10
STEADY = 1e-11
"""How far outputs may move where the input moves by 1e-13: what turns rounding into more than that proves nothing."""

quickly = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
thoroughly = settings(quickly, max_examples=2000)
PROGRAMS = programs(sorted(OPS))


def relative(left: torch.Tensor, right: torch.Tensor) -> float:
    assert left.shape == right.shape
    return float((left - right).abs().max() / right.abs().max().clamp(min=1e-3))


def cases(network: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Fresh inputs, of another batch size as well, with what the network computes; less those that prove nothing."""
    found = []
    for x in (probe(2, seed=5), probe(3, seed=6)):
        try:
            y = network(x)
        except (RuntimeError, IndexError):  # a number in the program is the batch size
            continue
        if y.isfinite().all() and relative(network(x * (1 + 1e-13)), y) < STEADY:
            found.append((x, y))
    return found


def check_program(program: Program) -> None:
    """Plans, tried on the network and trusted alike, cut nothing that is used; and so the certificate holds."""
    network = build(program, OPS)
    expected = cases(network)
    graphs: list[ChannelGraph] = []

    def find(graph: ChannelGraph) -> DeadChannels:
        graphs.append(graph)
        return dead_by_scale(graph, 1e-3)

    for retrace in (False, True):
        narrow, plan = plan_and_apply(network, Inputs.of(probe()), find, retrace=retrace)
        assert all(relative(narrow(x), y) < EXACT for x, y in expected), plan
        if not is_plain(graphs[0]):
            break
    if expected and program.seed % 4 == 0:
        slimmed = slimnet.slim(network, expected[0][0])
        assert all(relative(slimmed.model(x), y) < EXACT for x, y in expected)


@quickly
@given(program=PROGRAMS)
@torch.no_grad()
def test_no_channel_that_a_drawn_program_uses_is_cut(program: Program) -> None:
    check_program(program)


@pytest.mark.sweep
@thoroughly
@given(program=PROGRAMS)
@torch.no_grad()
def test_no_channel_that_any_drawn_program_uses_is_cut(program: Program) -> None:
    check_program(program)


@pytest.mark.sweep
@pytest.mark.parametrize("name", sorted(OPS))
@torch.no_grad()
def test_no_channel_that_goes_through_one_op_is_cut(name: str) -> None:
    for seed in range(6):
        for rate in (0.4, 0.9):
            check_program(Program(((name,),), seed, rate))


@torch.no_grad()
def test_programs_are_of_ops_that_run_and_lose_channels() -> None:
    """The programs prove something: most ops can be built, and dead channels go on their way through many."""
    removed = 0
    for seed, name in enumerate(sorted(OPS)[::8]):
        network = build(Program(((name,),), seed, 0.7), OPS)
        assert len(network.parts) > 1
        assert cases(network)
        removed += slimnet.slim(network, probe()).plan.removed_channels > 0
    assert removed >= 8
