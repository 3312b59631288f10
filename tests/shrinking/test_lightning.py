"""The callbacks for PyTorch Lightning: what they log and cut, and what they refuse; whole trainings are in examples."""

from types import SimpleNamespace

import pytest
import torch
from networks import lively

import slimnet
from slimnet import compat
from slimnet.errors import UsageError

# Lightning imports torchvision, which only comes in by this door where its compiled library does not load.
compat.torchvision()
pytest.importorskip("pytorch_lightning")

from pytorch_lightning import LightningModule  # noqa: E402

from slimnet.callbacks.lightning import Monitoring, Shrinking  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

ARGS = {"widths": [6, 8], "pool_after": [1], "hidden": 8, "in_channels": 1}
IMAGES = torch.zeros(2, 1, 8, 8)


class Module(LightningModule):
    """A network of which two channels of the first layer are dead."""

    def __init__(self) -> None:
        super().__init__()
        self.model = lively(slimnet.build("basicnet", ARGS))
        norm = next(module for module in self.model.modules() if isinstance(module, torch.nn.BatchNorm2d))
        norm.weight.data[:2], norm.bias.data[:2] = 0, 0
        self.logged: dict[str, float] = {}

    def log_dict(self, values, *_, **__) -> None:
        self.logged |= values


def trainer(module: Module, step: int = 4, processes: int = 1, optimisers: int = 1) -> SimpleNamespace:
    made = [torch.optim.Adam(module.model.parameters()) for _ in range(optimisers)]
    return SimpleNamespace(global_step=step, world_size=processes, optimizers=made)


def test_the_monitor_logs_what_a_reading_says():
    """Oracle: a `Monitor` of the network."""
    module = Module()
    callback = Monitoring(IMAGES, 2, network="model", layers=True)
    callback.on_train_batch_end(trainer(module, step=3), module)
    assert callback.reading is None
    callback.on_train_batch_end(trainer(module, step=4), module)
    expected = slimnet.Monitor(module.model, IMAGES).read()
    assert callback.reading == expected
    assert module.logged == expected.scalars(layers=True)
    assert module.logged["slimnet/dead"] == 2


def test_the_shrinker_cuts_after_three_looks_and_leaves_its_plan():
    """The plan in the state makes a fresh network as narrow as the one that trained."""
    module, lines = Module(), []
    callback = Shrinking(IMAGES, 2, network="model", report=lines.append)
    assert callback.state_dict() == {"plan": None}
    callback.on_train_start(trainer(module), module)
    for step in range(1, 9):
        callback.on_train_batch_end(trainer(module, step), module)
    callback.on_train_end(trainer(module), module)
    assert len(lines) == 1
    assert lines[0].startswith("step 6: ")
    plan = slimnet.SurgeryPlan.from_json(callback.state_dict()["plan"])
    narrow = slimnet.apply_plan(slimnet.build("basicnet", ARGS), plan)
    shapes = [parameter.shape for parameter in module.model.parameters()]
    assert [parameter.shape for parameter in narrow.parameters()] == shapes
    assert shapes[0][0] == 4


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({"network": "net"}, {}, "Module has no module 'net'; name the path of the network"),
        ({"network": "model", "also": ["average"]}, {}, "Module has no module 'average'"),
        ({"network": "model"}, {"processes": 2}, "2 processes train"),
        ({"network": "model"}, {"optimisers": 2}, "2 optimisers train the module, and a shrinker needs one"),
        ({"network": "model"}, {"optimisers": 0}, "0 optimisers train the module"),
    ],
)
def test_what_cannot_shrink_is_refused_when_training_starts(options, given, message):
    module = Module()
    with pytest.raises(UsageError, match=message):
        Shrinking(IMAGES, **options).on_train_start(trainer(module, **given), module)


@pytest.mark.parametrize("callback", [Monitoring, Shrinking])
def test_an_interval_of_no_steps_is_refused(callback):
    with pytest.raises(UsageError, match="every is 0; it must be at least 1"):
        callback(IMAGES, 0)
