"""Accuracy and sparsity of a network against counts by hand."""

import pytest
import torch
from runs import images, recipe, same
from torch import nn

from slimnet.data import ImageData
from slimnet.training import Accuracy, batchnorm_scales, evaluate, sparsity_by_gamma, train

pytestmark = pytest.mark.usefixtures("one_thread")


class Fixed(nn.Module):
    """Ranks seven classes by their distance from the first pixel's value."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -(x[:, 0, 0, :1] - torch.arange(7)).abs()


def test_evaluate_counts_best_and_five_best():
    """Ranks by hand: pixel 0 puts the classes in the order 0 to 6."""
    labels = torch.tensor([0, 0, 1, 4, 5, 6, 0, 3])
    pixels = torch.zeros(8, 1, 1, 1, dtype=torch.uint8)
    data = ImageData("zeros", pixels, labels, pixels, labels, tuple("abcdefg"), (0.0,), (1.0,))
    for batch_size in (3, 8):
        assert evaluate(Fixed(), data, batch_size=batch_size) == Accuracy(3 / 8, 6 / 8, 8)


def test_evaluate_of_few_classes_and_of_the_training_images():
    data = images()
    model = train(recipe(), data).model
    with torch.no_grad():
        right = model.eval()(data.normalise(data.x_train)).argmax(1) == data.y_train
    assert evaluate(model, data, "train") == Accuracy(float(right.double().mean()), 1.0, 12)


def test_evaluate_leaves_modes_statistics_and_gradients_alone():
    model = train(recipe(), images()).model
    model.features.bn1.eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, images())
    assert [module.training for module in model.modules()] == modes
    assert True in modes
    assert False in modes
    assert same(state, model.state_dict())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_sparsity_counts_convolution_channels_below_the_threshold():
    model = train(recipe(), images()).model
    with torch.no_grad():
        model.features.bn1.weight.copy_(torch.tensor([0.5, -0.0009, 0.0, -0.001]))
        model.classifier.bn1.weight.zero_()
    assert sparsity_by_gamma(model) == pytest.approx(2 / 10)
    assert sparsity_by_gamma(model, threshold=0.6) == pytest.approx(4 / 10)
    assert sparsity_by_gamma(nn.Linear(2, 2)) == 0
    assert batchnorm_scales(model)["features.bn1"].tolist() == pytest.approx([0.5, -0.0009, 0.0, -0.001])
