"""torch-pruning as another engine: within the budget, equal to the masked network, and a row with a reason if not."""

import json

import pytest
import torch
from runs import images
from test_comparison import HALF, TUNED, done, network, settings
from torch import nn

from slimnet.benchmark import macs
from slimnet.comparison import Results, Study, rival
from slimnet.comparison.rival import RivalError, cut_to_budget
from slimnet.errors import UsageError
from slimnet.methods import Budget, score_channels
from slimnet.models import build
from slimnet.report.methods.text import method_rows, removal_note

BOTH = {"engines": ("torch-pruning",), "methods": ("group-l2", "li2017")}


def drawn(model: nn.Module) -> nn.Module:
    """The network with BatchNorms that all differ."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    return model.eval()


def cut(model: nn.Module, size: int, left: float = 0.5) -> rival.RivalCut:
    example = torch.randn(2, 3, size, size)
    return cut_to_budget(model, example, score_channels("group-l2", model, example), Budget("macs", left))


class Flipped(nn.Module):
    """The second convolution reads the channels of the first in reverse, which torch-pruning does not see."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 4, 3)

    def forward(self, x):
        return self.second(self.norm(self.first(x)).relu().flip(1))


class Returning(nn.Module):
    """What it returns is as wide as what was cut, since slimnet was allowed to cut the second layer."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 4, 3)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        return self.second(x), x


@pytest.mark.parametrize(("arch", "size"), [("torchvision:resnet18", 64), ("torchvision:mobilenet_v2", 64)])
def test_it_meets_the_budget_and_computes_what_the_masked_network_does(arch, size):
    """Oracles: the count of the network, and the dense network in which the same channels are zero."""
    torch.manual_seed(0)
    model = drawn(build(arch))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = cut(model, size)
    example = torch.randn(1, 3, size, size)
    assert 0.45 < macs(found.model, example) / macs(model, example) == found.left <= 0.5
    assert found.difference < 1e-5
    assert not found.flaw
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_channels_that_it_confuses_are_a_flaw_with_its_size():
    torch.manual_seed(0)
    found = cut(drawn(Flipped()), 16)
    assert found.difference > 1e-2
    assert found.flaw == f"its outputs differ from the masked network's by {found.difference:.2g} of the largest"


def test_what_it_raises_is_the_reason_in_one_line():
    """It divides by zero on a channel shuffle."""
    with pytest.raises(RivalError, match=r"^\w+Error: [^\n]+$"):
        cut(drawn(build("torchvision:shufflenet_v2_x0_5")), 64)


def test_outputs_of_another_shape_are_refused(monkeypatch):
    """It would cut what the network returns if it did not know which layers are fixed."""
    model, example = drawn(Returning()), torch.randn(2, 3, 8, 8)
    ranking = score_channels("random", drawn(Flipped()), example)
    monkeypatch.setattr(rival.Channels, "of", lambda *_: type("Free", (), {"layers": {}, "pinned": None}))
    with pytest.raises(
        RivalError, match=r"its network returns 2 × 4 × 4 × 4, 2 × \d+ × 6 × 6, not 2 × 4 .*16 × 6 × 6$"
    ):
        cut_to_budget(model, example, ranking, Budget("macs", 0.5))


def test_a_budget_that_it_cannot_meet_is_a_reason():
    model = drawn(Flipped())
    with pytest.raises(RivalError, match=r"^it leaves 0\.0\d+ of the macs at least, not 0\.001$"):
        cut(model, 16, 0.001)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Results:
    return done(tmp_path_factory.mktemp("both") / "study", **BOTH)


def test_every_method_has_a_row_of_each_engine_with_the_same_fine_tuning(both):
    assert [(each.method, each.engine) for each in both.outcomes] == [
        (method, engine) for method in BOTH["methods"] for engine in ("slimnet", "torch-pruning")
    ]
    for outcome in both.outcomes:
        assert 0.4 < both.left(outcome) <= 0.5
        assert outcome.difference < 1e-5
        assert outcome.course[-1].iteration == TUNED.iterations
        assert outcome.size.counted_by.startswith("fvcore")
    assert Results.from_dict(json.loads(json.dumps(both.to_dict()))) == both
    assert [row.method for row in method_rows(both)][1] == "group-l2 by torch-pruning"


def test_a_failure_is_stored_as_a_row_with_its_reason(tmp_path, monkeypatch):
    def fails(*_):
        raise ZeroDivisionError("integer division\nby zero")

    monkeypatch.setattr(rival, "cut", fails)
    results = done(tmp_path / "study", **BOTH | {"methods": ("li2017",), "finetuning": None})
    assert [each.engine for each in results.outcomes] == ["slimnet"]
    (failure,) = results.failures
    assert (failure.label, failure.budget) == ("li2017 by torch-pruning", HALF)
    assert failure.reason == "ZeroDivisionError: integer division"
    assert f"li2017 by torch-pruning, 50\u202f% of MACs: {failure.reason}." in removal_note(results)
    monkeypatch.undo()
    again = done(tmp_path / "study", **BOTH | {"methods": ("li2017",), "finetuning": None})
    assert again.failures == results.failures, "nothing is done twice"
    assert Results.from_dict(results.to_dict()).failures == results.failures


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engines": ("torch-prunning",)}, "there is no engine 'torch-prunning'; did you mean torch-pruning"),
        ({"budgets": (Budget("latency", 0.5),)}, "brought to budgets of macs or params, not of latency"),
        ({"budgets": (), "methods": ("implicit",)}, "and there is none; give such budgets"),
    ],
)
def test_what_it_cannot_do_is_refused_before_the_work(changes, message):
    with pytest.raises(UsageError, match=message):
        settings(**BOTH | changes)


def test_the_terminal_has_a_row_for_what_failed_and_why(tmp_path, monkeypatch, capsys):
    from slimnet_cli.output import method_table, terminal

    def fails(*_):
        raise RivalError("its network returns nothing")

    monkeypatch.setattr("slimnet.comparison.study.cut_to_budget", fails)
    given = {"engines": ("torch-pruning",), "finetuning": None}
    work = Study("tiny", network(), images(60), settings(**given, methods=("li2017",)), tmp_path / "one")
    list(work)
    method_table.show(terminal.result(), work.results())
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split() == ["li2017", "by", "torch-pruning,", "0.5", "of", "the", "macs", "–", "–", "–"]
    assert "li2017 by torch-pruning, 0.5 of the macs: its network returns nothing" in lines
