"""Methods choose channels and the surgery removes them: the oracle is the silenced network, and counts by hand."""

import pytest
import torch
from torch import nn

from slimnet.baselines import METHODS, Budget, Selection, rank, remove, silenced, within
from slimnet.errors import UsageError
from slimnet.models import CifarResNet

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def lively(model: nn.Module) -> nn.Module:
    """γ, β and statistics as after training: different for every channel, so that nothing cancels by chance."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low in ((module.weight, 0.3), (module.bias, -0.5), (module.running_var, 0.5)):
                tensor.data = torch.rand(tensor.shape, generator=generator) + low
            module.running_mean.data = torch.randn(module.running_mean.shape, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return lively(CifarResNet(8))


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(IMAGES, torch.tensor([0, 1, 2, 3]))]


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_chooses_is_removed_exactly(resnet, method):
    """The certificate is against the silenced network; the budget is met by MACs that the plan counts."""
    ranking = rank(method, resnet, IMAGES, batches=batches())
    selection = within(resnet, IMAGES, ranking, Budget("macs", 0.6))
    slimmed = remove(resnet, IMAGES, selection)
    assert 0.4 < slimmed.plan.macs_after / slimmed.plan.macs_before <= 0.6
    quiet = silenced(resnet, IMAGES, selection)
    with torch.no_grad():
        expected, actual = quiet(IMAGES), slimmed.model(IMAGES)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, resnet(IMAGES))
    removed = {layer.name: layer.channels_before - layer.channels_after for layer in slimmed.plan.layers}
    assert {layer: count for layer, count in removed.items() if count} == {
        layer: len(channels) for layer, channels in selection.channels.items()
    }


def test_a_silenced_network_is_a_copy(resnet):
    state = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    quiet = silenced(resnet, IMAGES, Selection("mine", {"layer1.0.conv1": (1, 3)}))
    for tensor in quiet.parameters():
        tensor.data.zero_()
    assert all(torch.equal(tensor, state[name]) for name, tensor in resnet.state_dict().items())


def test_unknown_methods_suggest_the_nearest(resnet):
    with pytest.raises(UsageError, match=r"there is no method 'liu2018'; did you mean liu2017\?"):
        rank("liu2018", resnet, IMAGES)
