"""Measurements during training: accuracy, and the γ of BatchNorms, from which dead filters are found."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimnet.accuracy import Accuracy, Hits
from slimnet.data import Batches, ImageData, Split
from slimnet.errors import DataError, reason
from slimnet.torch_state.devices import device_of

DEAD_BELOW = 1e-3
"""A channel whose BatchNorm has |γ| below this counts as dead (section 2.1)."""


def evaluate(
    model: nn.Module,
    data: ImageData,
    split: Split = "test",
    *,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Accuracy:
    """Accuracy of a classifier in eval mode, on the device of its parameters; its modes are restored.

    With fewer than five classes the top five are all of them. `progress` is called with the number of images
    so far, and their total.

    Raises:
        DataError: the network does not take the images, or there are more classes than logits.
        UsageError: there is no such split, or the batch size is below 1.
    """
    check_fits(model, data)
    batches = Batches(data, split, batch_size, device_of(model), progress)
    hits = Hits()
    with evaluating(model), torch.no_grad():
        for images, labels in batches:
            hits.add(model(images), labels)
    assert hits.accuracy is not None, "a split holds at least one image"
    return hits.accuracy


def check_fits(model: nn.Module, data: ImageData, name: str = "the network", *, trained: bool = False) -> None:
    """Check by one image that the network takes the data and has a logit for every class.

    A `trained` network must have exactly one for each class. The advice in the message is other data if it is
    `trained`, otherwise other arguments of the architecture.

    Raises:
        DataError: it does not; with the network's name and the difference.
    """
    images, _ = next(data.batches("test", 1, device_of(model)))
    kind = f"{data.name} ({' x '.join(map(str, images.shape[1:]))}, channels first)"
    with evaluating(model), torch.no_grad():
        try:
            scores = model(images)
        except Exception as error:  # a forward may raise anything
            advice = "give its arch_args the number of channels, or choose one for this size"
            raise DataError(
                f"{name} does not take the images of {kind}: {reason(error)}; "
                f"{'name the data that it was trained on' if trained else advice}"
            ) from error
    classes = len(data.classes)
    scored = scores.shape[1] if isinstance(scores, torch.Tensor) and scores.ndim == 2 else 0
    if scored < classes or (trained and scored != classes):
        given = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        answer = f"{name} answers an image of {kind} with {given}"
        if trained:
            raise DataError(f"{answer}, but the data has {classes} classes; name the data that it was trained on")
        raise DataError(
            f"{answer}; it must be scores (1, {classes}), one for each class: give the number of classes in its "
            "arch_args"
        )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode in the context; the mode of every submodule is restored afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def batchnorm_scales(model: nn.Module) -> dict[str, torch.Tensor]:
    """γ of every BatchNorm that has one, by module path in module order: CPU copies `(channels,)`."""
    return {name: norm.weight.detach().cpu().clone() for name, norm in _norms(model, _BatchNorm)}


def sparsity_by_gamma(model: nn.Module, threshold: float = DEAD_BELOW) -> float:
    """Share, 0..1, of convolution channels with |γ| below the threshold (section 2.1); 0 without BatchNorm.

    As in the paper only convolutions count: BatchNorm1d is excluded.
    """
    dead, present = count_by_gamma(model, threshold)
    return dead / present if present else 0.0


def count_by_gamma(model: nn.Module, threshold: float = DEAD_BELOW) -> tuple[int, int]:
    """How many convolution channels have |γ| below the threshold, and how many have a γ."""
    convolutional = (nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    scales = [norm.weight.detach() for _, norm in _norms(model, convolutional)]
    if not scales:
        return 0, 0
    return int((torch.cat(scales).abs() < threshold).sum()), sum(scale.numel() for scale in scales)


def _norms(model: nn.Module, kinds: type | tuple[type, ...]) -> Iterator[tuple[str, _BatchNorm]]:
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and isinstance(module, kinds) and module.affine:
            yield name, module
