"""The examples run: they train, shrink the network and its averaged copy, and save what can be loaded again."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import slimnet
from slimnet import compat
from slimnet.torch_state.process import torch_threads

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An example whose run is short, since a third of its channels is dead from the start."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    build = slimnet.build

    def build_dying(*arguments: object) -> nn.Module:
        model = build(*arguments)
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d):
                norm.weight.data[::3], norm.bias.data[::3] = 1e-8, -1.0
        return model

    monkeypatch.setattr(slimnet, "build", build_dying)
    for constant, value in (("STEPS", 12), ("DROP", 6), ("SHRINK_EVERY", 2)):
        monkeypatch.setattr(module, constant, value)
    return module


def numbers(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.usefixtures("operators_read_once")
def test_the_loop_shrinks_and_saves_a_bundle(tmp_path, monkeypatch, capsys):
    loop = example("shrinking_loop", monkeypatch)
    with torch.random.fork_rng(devices=[]), torch_threads(1):
        loop.main(tmp_path / "slim")
    said = capsys.readouterr().out
    assert "step 6: " in said
    assert "channels removed, MACs" in said
    assert "certificate holds" in said
    assert 0 < numbers(slimnet.load(tmp_path / "slim")) < numbers(slimnet.build("basicnet", loop.NETWORK)) / 2


@pytest.mark.filterwarnings("ignore")
def test_lightning_trains_with_a_callback_that_shrinks(tmp_path, monkeypatch, capsys):
    """Oracle: the averaged copy after the run, which is what was saved, is as narrow as the network and computes."""
    if importlib.util.find_spec("pytorch_lightning") is None:
        pytest.skip("PyTorch Lightning is not installed: pip install pytorch-lightning")
    # Lightning imports torchvision, which only comes in by this door where its compiled library does not load.
    compat.torchvision()
    lightning = example("shrinking_lightning", monkeypatch)
    callbacks = []
    begin = lightning.Shrinking.on_train_start
    monkeypatch.setattr(
        lightning.Shrinking,
        "on_train_start",
        lambda self, *given: begin(self, *given) or callbacks.append((self, given[1])),
    )
    with torch.random.fork_rng(devices=[]), torch_threads(1):
        lightning.main(tmp_path / "digits.pt")
    assert "channels removed, MACs" in capsys.readouterr().out
    ((callback, module),) = callbacks
    saved, images = lightning.load(tmp_path / "digits.pt").eval(), torch.rand(5, 1, 8, 8)
    assert numbers(saved) == numbers(module.model) == callback.shrinker.plan.params_after
    assert numbers(saved) < callback.shrinker.plan.params_before / 2
    torch.testing.assert_close(saved(images), module.average.module.eval()(images))


@pytest.mark.sweep
@pytest.mark.filterwarnings("ignore")
def test_the_trainer_of_transformers_shrinks(tmp_path, monkeypatch, capsys):
    """Its callbacks are tested in tests/shrinking; this is the example, to the network that it reads again."""
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed: pip install transformers accelerate")
    compat.torchvision()
    trainer = example("shrinking_trainer", monkeypatch)
    with torch.random.fork_rng(devices=[]), torch_threads(1):
        trainer.main(tmp_path)
    said = capsys.readouterr().out
    assert "channels removed, MACs" in said
    assert "test images are classified correctly" in said
    assert numbers(trainer.load(tmp_path / "checkpoint-12")) < numbers(slimnet.build("basicnet", trainer.NETWORK)) / 2
