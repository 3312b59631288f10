"""Sparsity by γ and by activation, and the universality of each feature (section 2)."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from slimnet.data import ImageData
from slimnet.errors import SlimnetError
from slimnet.graph.channel_graph import ActivationKey
from slimnet.modules.copying import copy_with
from slimnet.modules.example_inputs import Inputs
from slimnet.modules.forward_path import module_paths
from slimnet.modules.network import Network
from slimnet.planning.dead_channels import ACTIVATION_LIMIT, PeakMeter
from slimnet.torch_state.devices import device_of, usable
from slimnet.torch_state.precision import float32_products, in_double
from slimnet.tracing.trace import trace_whole
from slimnet.training.analysis.features import FeatureLayer, feature_layers
from slimnet.training.analysis.metrics import DEAD_BELOW, check_fits

RESPONDS_ABOVE = 1e-3
"""A feature responds to an image if the response exceeds this fraction of the feature's largest response.

The value is a reconstruction of section 2.3. It agrees with the one number that the text prints, 64 % of C6's features
at universality 0, if those are the inactive features.
"""

MEMORY = 2**30
"""Bytes for the responses; if a data set needs more, a second pass over its images is made."""

Numbers = tuple[float, ...]
ProgressCallback = Callable[[int, int], None]
"""Called with the number of images so far and their total."""


@dataclass(frozen=True)
class LayerAnalysis:
    """The features of one convolution layer; values that could not be measured are None.

    Attributes:
        layer: the path of the convolution (or of the BatchNorm, see `FeatureLayer`).
        norm: the path of its BatchNorm; None without one.
        gammas: |γ| of each feature; None without BatchNorm.
        peaks: the largest |a| of each feature, over its plane and all images, after the activation; None if
            another operand is added before the activation, such as the shortcut of a ResNet.
        universalities: the share of the images, 0..1, to which each feature responds; None with `peaks`.
    """

    layer: str
    norm: str | None
    features: int
    gammas: Numbers | None
    peaks: Numbers | None
    universalities: Numbers | None

    @property
    def dead_by_gamma(self) -> int | None:
        """How many features have |γ| < 1e-3 (section 2.1)."""
        return None if self.gammas is None else sum(gamma < DEAD_BELOW for gamma in self.gammas)

    @property
    def dead_by_activation(self) -> int | None:
        """How many features never exceed |a| = 1e-12 (section 2.1)."""
        return None if self.peaks is None else sum(peak <= ACTIVATION_LIMIT for peak in self.peaks)

    @property
    def universality(self) -> float | None:
        """Mean universality, 0..1, of the features that respond to any image; None if there are none."""
        alive = [each for each in self.universalities or () if each > 0]
        return sum(alive) / len(alive) if alive else None


@dataclass(frozen=True)
class Analysis:
    """Every layer of convolution features of a network, in execution order, measured on `images` images of `data`."""

    data: str
    images: int
    layers: tuple[LayerAnalysis, ...]

    @property
    def sparsity_by_gamma(self) -> float | None:
        """Share, 0..1, of the features with |γ| < 1e-3 among those with a BatchNorm; None without BatchNorm."""
        return _share([(layer.dead_by_gamma, layer.features) for layer in self.layers])

    @property
    def sparsity_by_activation(self) -> float | None:
        """Share, 0..1, of the features that are zero on all the data among those that were measured."""
        return _share([(layer.dead_by_activation, layer.features) for layer in self.layers])


def analyse(
    model: nn.Module,
    data: ImageData,
    *,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    progress: ProgressCallback | None = None,
    memory: int = MEMORY,
) -> Analysis:
    """Measure sparsity and universality on the training images without augmentation, in eval mode.

    The response of a feature to an image is the largest |a| on its plane after the activation. A feature is dead by
    activation if no training image gives a response above 1e-12, and by γ if |γ| < 1e-3 (section 2.1). Its
    universality is the share of the training images whose response, divided by the largest one, exceeds 1e-3
    (section 2.3); that of a dead feature is 0. Classes are not used: selectivity, 1 minus universality, is that of
    section 2.3 and not class selectivity.

    The network is not changed; a copy runs on `device` (default: that of the network). `progress` is called with the
    number of images so far and the total. Responses take 4 bytes per feature and image; if they exceed `memory`
    bytes, only the largest are stored, and a second pass is made, with the same results.

    Raises:
        DataError: the network does not take the images.
        TraceError: its forward depends on data, so that its features cannot be traced.
        SlimnetError: an activation is not finite.
        UsageError: the batch size is below 1, or the device does not exist.
    """
    check_fits(model, data)
    target = None if device is None else usable(device)
    copied = copy_with(model, lambda _, tensor: tensor.to(target or tensor.device)).eval()
    place = device_of(copied)
    example, _ = next(data.batches("train", 1, place))
    layers = feature_layers(trace_whole(copied, example))
    survey = Survey(copied, data, layers, batch_size, progress)
    peaks, shares = survey.measure(fits=4 * len(data.x_train) * sum(layer.size for layer in layers) <= memory)
    parameters = Network.of(copied).state
    found = [
        LayerAnalysis(
            layer=layer.name,
            norm=layer.gamma.rpartition(".")[0] if layer.gamma else None,
            features=layer.size,
            gammas=_numbers(parameters[layer.gamma].abs()) if layer.gamma else None,
            peaks=_numbers(peaks.get(layer)),
            universalities=_numbers(shares.get(layer)),
        )
        for layer in layers
    ]
    return Analysis(data.name, len(data.x_train), tuple(found))


Responses = dict[FeatureLayer, torch.Tensor]
"""The response of every feature to some images, `(N, C)` by layer."""


class Survey:
    """Runs a network over the training images and measures its activations."""

    def __init__(
        self,
        model: nn.Module,
        data: ImageData,
        layers: Iterable[FeatureLayer],
        batch_size: int,
        progress: ProgressCallback | None,
    ) -> None:
        self.model, self.data, self.layers, self.batch_size = model, data, tuple(layers), batch_size
        self.progress = progress
        self.done = 0

    def measure(self, *, fits: bool) -> tuple[Responses, Responses]:
        """Largest responses and universalities `(C,)` by layer; `fits` is whether all responses fit into memory."""
        total = len(self.data.x_train) * (1 if fits else 2)
        seen: Iterable[Responses] = self.responses(total)
        if fits:
            seen = list(seen)
        peaks = largest(seen)
        return peaks, shares_above(seen if fits else self.responses(total), peaks)

    def responses(self, total: int) -> Iterator[Responses]:
        """The responses to each batch."""
        meter = ResponseMeter(key for layer in self.layers for key in layer.activations)
        with torch.no_grad(), module_paths(Network.of(self.model).modules, meter.path):
            for images, _ in self.data.batches("train", self.batch_size, device_of(self.model)):
                meter.calls.clear()
                meter.seen.clear()
                with meter, float32_products(tf32=False):
                    Inputs.of(images).call(self.model)
                yield {layer: found for layer in self.layers if (found := meter.of(layer, len(images))) is not None}
                self.done += len(images)
                if self.progress is not None:
                    self.progress(self.done, total)


class ResponseMeter(PeakMeter):
    """Records, during a forward, the largest |a| of every requested channel for each image."""

    def __init__(self, wanted: Iterable[ActivationKey]) -> None:
        super().__init__()
        self.wanted = frozenset(wanted)
        self.seen: dict[ActivationKey, torch.Tensor] = {}

    def note(self, key: ActivationKey, out: torch.Tensor) -> None:
        """Reduce the output of one activation, `(N, C, ...)`, to `(N, C)` in float32 or float64."""
        if key in self.wanted:
            pooled = out.abs().flatten(2).amax(2) if out.ndim > 2 else out.abs()
            self.seen[key] = pooled.float() if pooled.dtype.itemsize < 4 else pooled

    def of(self, layer: FeatureLayer, images: int) -> torch.Tensor | None:
        """The responses `(images, C)` of a layer; None if none of its activations ran once for each image."""
        calls = [self.seen[key] for key in layer.activations if key in self.seen]
        fitting = [pooled for pooled in calls if pooled.shape == (images, layer.size)]
        return torch.stack(fitting).amax(0) if fitting and len(fitting) == len(calls) else None


def largest(seen: Iterable[Responses]) -> Responses:
    """The largest response `(C,)` of every feature.

    Raises:
        SlimnetError: one is not finite.
    """
    peaks: Responses = {}
    for batch in seen:
        for layer, responses in batch.items():
            peak = responses.amax(0)
            peaks[layer] = torch.maximum(peaks[layer], peak) if layer in peaks else peak
    for layer, peak in peaks.items():
        if not peak.isfinite().all():
            raise SlimnetError(
                f"the activations of {layer.name} are not finite; the network has diverged, train it anew"
            )
    return peaks


def shares_above(seen: Iterable[Responses], peaks: Responses) -> Responses:
    """The universality `(C,)` of every feature, from its responses and the largest of them."""
    counts = {layer: torch.zeros_like(peak, dtype=torch.int64) for layer, peak in peaks.items()}
    images = 0
    for batch in seen:
        for layer, responses in batch.items():
            counts[layer] += (responses / peaks[layer] > RESPONDS_ABOVE).sum(0)
        images += len(next(iter(batch.values()), ()))
    alive = {layer: peak > ACTIVATION_LIMIT for layer, peak in peaks.items()}
    return {layer: in_double(torch.where(alive[layer], count, 0)) / images for layer, count in counts.items()}


def _numbers(values: torch.Tensor | None) -> Numbers | None:
    return None if values is None else tuple(in_double(values.detach()).tolist())


def _share(counts: Iterable[tuple[int | None, int]]) -> float | None:
    known = [(dead, features) for dead, features in counts if dead is not None]
    return sum(dead for dead, _ in known) / sum(features for _, features in known) if known else None
