"""synthesise_images: images made from a network's own BatchNorm statistics, where there are no others.

A trained network says what its activations are like on its training images: BatchNorms keep their means and variances.
Noise that is changed until the activations have these statistics is not like a photograph, but the layers of the
network answer to it in much the same way (Yin et al., CVPR 2020, section 3.2, DeepInversion; Cai et al., CVPR 2020,
ZeroQ). No label and no image is needed, and no weight is changed.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from slimnet.errors import UsageError
from slimnet.methods.batchnorm_measure import MEASURABLE
from slimnet.modules.copying import eval_copy
from slimnet.modules.example_inputs import ExampleInputs, Inputs, check_inputs
from slimnet.torch_state.devices import uncompiled
from slimnet.torch_state.random_state import random_numbers_kept

COUNT, STEPS = 128, 60
"""The number of images, and of gradient steps for all of them."""
BATCH = 32
RATE = 0.05
"""Adam's learning rate, for images whose standard deviation is about 1."""
SMALLEST_VARIANCE = 1e-6

Watch = Callable[[int, int], None]
"""Called with the number of finished steps and of all."""


def synthesise_images(
    model: nn.Module,
    example_inputs: ExampleInputs,
    count: int = COUNT,
    *,
    steps: int = STEPS,
    seed: int = 0,
    watch: Watch | None = None,
) -> list[torch.Tensor]:
    """Images `(N, C, H, W)` in batches, on which the inputs of all BatchNorms have about their running statistics.

    They have the shape of the example input. The network is not changed.

    Raises:
        UsageError: the network has no BatchNorm with running statistics, or its input is not one tensor of numbers.
        InputError: as `slimnet.slim` does.
    """
    inputs = check_inputs(model, example_inputs)
    if len(inputs.tensors) != 1 or not inputs.tensors[0].is_floating_point() or inputs.tensors[0].ndim < 3:
        raise UsageError(
            "images can be made for networks whose only input are images `(N, C, H, W)`; give some instead"
        )
    network = eval_copy(model)
    norms = [each for each in network.modules() if isinstance(each, MEASURABLE) and each.running_mean is not None]
    if not norms:
        raise UsageError(
            "images are made from the statistics of BatchNorms, and the network has none; give some instead"
        )
    shape = inputs.tensors[0].shape[1:]
    batches = list(smooth_noise((count, *shape), seed).to(inputs.tensors[0]).split(BATCH))
    with torch.enable_grad(), uncompiled(), random_numbers_kept(network), Statistics(norms) as statistics:
        match_statistics(network, inputs, batches, statistics, steps, watch)
    return [batch.detach() for batch in batches]


def smooth_noise(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Noise with the amplitude 1/f of natural images at the frequency f, mostly grey, mean 0 and variance 1."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(shape, generator=generator)
    axes = tuple(range(2, len(shape)))
    squares = torch.zeros(shape[2:])
    for number, size in enumerate(shape[2:]):
        along = [1] * len(shape[2:])
        along[number] = size
        squares = squares + torch.fft.fftfreq(size).reshape(along) ** 2
    lowest = 1 / max(shape[2:])
    image = torch.fft.ifftn(torch.fft.fftn(noise, dim=axes) / squares.sqrt().clamp(min=lowest), dim=axes).real
    image = 0.8 * image[:, :1] + 0.3 * image
    return (image - image.mean()) / image.std()


class Statistics:
    """Sums over all BatchNorms, during a forward pass, how far the statistics of their inputs are from the stored ones.

    The distance of a BatchNorm is the mean over its channels of (μ - μ₀)² / σ₀² + (σ / σ₀ - 1)².
    """

    def __init__(self, norms: Sequence[nn.Module]) -> None:
        self.distance: torch.Tensor | float = 0.0
        self._hooks = [norm.register_forward_hook(self._add) for norm in norms]

    def __enter__(self) -> "Statistics":
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _add(self, norm: nn.Module, given: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        assert isinstance(norm, MEASURABLE)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        variance, mean = torch.var_mean(given[0], [axis for axis in range(given[0].ndim) if axis != 1], correction=0)
        wanted = norm.running_var + norm.eps
        shift = (mean - norm.running_mean).square() / wanted
        spread = (variance / wanted + SMALLEST_VARIANCE).sqrt() - 1
        self.distance = self.distance + (shift + spread.square()).mean()


def match_statistics(
    network: nn.Module,
    inputs: Inputs,
    batches: list[torch.Tensor],
    statistics: Statistics,
    steps: int,
    watch: Watch | None,
) -> None:
    """Change the images in place, by Adam, until the statistics of the activations are near those of the BatchNorms."""
    for batch in batches:
        batch.requires_grad_(True)
    optimiser = torch.optim.Adam(batches, lr=RATE)
    for step in range(steps):
        for batch in batches:
            statistics.distance = 0.0
            inputs.map(lambda _, batch=batch: batch).call(network)
            assert isinstance(statistics.distance, torch.Tensor)
            (batch.grad,) = torch.autograd.grad(statistics.distance, [batch])
        optimiser.step()
        if watch is not None:
            watch(step + 1, steps)
