"""refit_weights: the weights of a masked network fitted to the dense one's activations, without labels or training.

A layer that lost some of its inputs can make up for much of them with those that are left: they are correlated. Its
weights are the least-squares solution that brings its outputs on some images as close as possible to the dense
network's, layer by layer in the order of their calls, so that each also corrects what those before it left over (He,
Zhang and Sun, ICCV 2017, section 3.1; Luo, Wu and Lin, ICCV 2017).
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from slimnet.errors import UsageError
from slimnet.graph.channel_graph import ChannelGraph
from slimnet.methods.batchnorm_measure import MEASURABLE
from slimnet.methods.batchnorm_updates import owned
from slimnet.methods.candidates import Channels
from slimnet.modules.copying import copy_with, eval_copy, shared_copy
from slimnet.modules.example_inputs import Inputs
from slimnet.modules.network import Network
from slimnet.torch_state.devices import device_of, uncompiled
from slimnet.torch_state.random_state import random_numbers_kept

RIDGE = 0.1
"""The weight of the distance to the old weights, relative to the mean variance of a layer's inputs."""
ROWS = 32_768
"""The number of positions, over all images, at which a layer's inputs and outputs are compared."""
SMALLEST_SCALE = 1e-4
"""A BatchNorm's smallest factor γ / σ through which a layer can correct what is added to its output."""

ADDITIONS = (
    torch.add,
    torch.Tensor.add,
    torch.Tensor.add_,
    torch.Tensor.__add__,
    torch.Tensor.__iadd__,
    torch.Tensor.__radd__,
)

Fittable = nn.Linear | nn.Conv1d | nn.Conv2d
FITTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""The kinds of layers that are fitted."""

Watch = Callable[[int, int], None]
"""Called with the number of finished layers and of all."""


@dataclass(frozen=True)
class FittedLayer:
    """A convolution or linear layer that is fitted, and the BatchNorm right behind it ("" for none), by module path."""

    path: str
    norm: str

    @property
    def last(self) -> str:
        """The module whose output goes on to other layers."""
        return self.norm or self.path


def refit_weights(
    dense: nn.Module,
    quiet: nn.Module,
    channels: Channels,
    images: Iterable[Any],
    watch: Watch | None = None,
    *,
    ridge: float = RIDGE,
) -> nn.Module:
    """A copy of a masked network whose remaining weights are fitted to the outputs of the dense network's layers.

    `channels` are those of the dense network, `images` batches of a hundred or more images in all, without labels.
    Where something is added to a layer's output, as in a residual block, the fit also corrects by how much that differs
    from the dense network's. Masked channels stay masked; `ridge` is how much a weight is drawn to what it was. Layers
    that are called more than once, or whose weight is computed or shared, and transposed and three-dimensional
    convolutions are not changed.

    Raises:
        UsageError: there are no images.
    """
    place = device_of(dense)
    batches = [Inputs.of_batch(batch).to(place) for batch in images]
    if not batches:
        raise UsageError("no images to fit the weights on: the loader gave none")
    models = eval_copy(dense), copy_with(quiet, lambda _, tensor: tensor.detach().clone()).eval()
    fitted = fitted_layers(channels.graph, dense)
    with torch.no_grad(), uncompiled(), random_numbers_kept(dense):
        called, added = calls_and_additions(models[0], fitted, batches[0])
        fitted = [layer for layer in fitted if called[layer.path] == 1]
        for number, layer in enumerate(fitted):
            fit(models, layer, batches, ridge, added=layer.path in added)
            if watch is not None:
                watch(number + 1, len(fitted))
    changed = Network.of(models[1]).named
    return shared_copy(quiet, {name: changed[name].detach() for name in names_of(fitted) if name in changed})


def names_of(layers: Sequence[FittedLayer]) -> Iterator[str]:
    """The names of the tensors that are fitted."""
    for layer in layers:
        yield owned(layer.path, "weight")
        yield owned(layer.path, "bias") if not layer.norm else owned(layer.norm, "running_mean")


def fitted_layers(graph: ChannelGraph, model: nn.Module) -> list[FittedLayer]:
    """The layers that can be fitted, in the order of their calls."""
    modules = dict(model.named_modules())
    behind: dict[bytes, str] = {}
    for gamma, norm in graph.norms:
        behind[norm.inputs.tobytes()] = gamma.rpartition(".")[0]
    calls = Counter(layer.module for layer in graph.layers)
    holders = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    norms = [gamma.rpartition(".")[0] for gamma, _ in graph.norms]
    found = []
    for layer in graph.layers:
        module, name = modules.get(layer.module), layer.module
        if not isinstance(module, FITTABLE) or layer.weight != owned(name, "weight"):
            continue
        if calls[name] > 1 or holders[id(module.weight)] > 1:
            continue
        follower = behind.get(layer.outputs.tobytes(), "")
        known = isinstance(modules.get(follower), MEASURABLE) and norms.count(follower) == 1
        found.append(FittedLayer(name, follower if known else ""))
    return found


class Stop(Exception):  # noqa: N818
    """Ends a forward pass when everything was seen that it was run for."""


class Additions(TorchFunctionMode):
    """Calls `seen` with the two summands of every addition of tensors of the same shape."""

    def __init__(self, seen: Callable[[torch.Tensor, torch.Tensor], None]) -> None:
        super().__init__()
        self._seen = seen

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at the operands before the addition, which may be in place."""
        pair = [each for each in args[:2] if isinstance(each, torch.Tensor)]
        if function in ADDITIONS and len(pair) == 2 and not kwargs and pair[0].shape == pair[1].shape:
            self._seen(*pair)
        return function(*args, **(kwargs or {}))


def calls_and_additions(
    model: nn.Module, layers: Sequence[FittedLayer], batch: Inputs
) -> tuple[Counter[str], set[str]]:
    """How often each layer's module is called, and the layers to whose output another tensor is added.

    The output is that of the BatchNorm behind a layer. A layer whose weight is used without its module is not called.
    """
    owners: dict[int, str] = {}
    modules = dict(model.named_modules())
    kept: list[torch.Tensor] = []
    found: set[str] = set()
    calls: Counter[str] = Counter()

    def note(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            kept.append(output)
            owners[id(output)] = path

        return hook

    def count(path: str) -> Callable[..., None]:
        return lambda *_: calls.update([path])

    hooks = [modules[layer.last].register_forward_hook(note(layer.path)) for layer in layers]
    hooks += [modules[layer.path].register_forward_hook(count(layer.path)) for layer in layers]
    try:
        with Additions(lambda one, other: found.update(owners[id(x)] for x in (one, other) if id(x) in owners)):
            batch.map(lambda tensor: tensor[:1]).call(model)
    finally:
        for hook in hooks:
            hook.remove()
    return calls, found


@dataclass
class Seen:
    """What one forward pass shows of a layer: its input, its output, and what is added to what follows from it."""

    given: torch.Tensor
    made: torch.Tensor
    addend: torch.Tensor | None = None


def see(model: nn.Module, layer: FittedLayer, batch: Inputs, *, added: bool) -> Seen:
    """Run a network until one layer was called, and its output was added to another tensor if it is."""
    modules = dict(model.named_modules())
    found: list[Seen] = []
    last: list[torch.Tensor] = []

    def note(
        _: nn.Module, given: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor], output: torch.Tensor
    ) -> None:
        (x,) = given or named.values()
        # What follows may work in place.
        found.append(Seen(x.clone(), output.clone()) if added else Seen(x, output))
        if not added:
            raise Stop

    def addition(one: torch.Tensor, other: torch.Tensor) -> None:
        for mine, foreign in ((one, other), (other, one)):
            if last and mine is last[0]:
                found[0].addend = foreign.clone()
                raise Stop

    hooks = [modules[layer.path].register_forward_hook(note, with_kwargs=True)]
    if added:
        hooks.append(modules[layer.last].register_forward_hook(lambda _, __, output: last.append(output)))
    try:
        with Additions(addition):
            batch.call(model)
    except Stop:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return found[0]


class Moments(NamedTuple):
    """Sums over positions of a layer's inputs x and targets y, for each group.

    `inputs` is Σ x `(groups, K)`, `targets` Σ y `(groups, O)`, `products` Σ x xᵀ and `cross` Σ x yᵀ, all in float64.
    """

    rows: int
    inputs: torch.Tensor
    targets: torch.Tensor
    products: torch.Tensor
    cross: torch.Tensor

    @classmethod
    def of(cls, x: torch.Tensor, y: torch.Tensor) -> "Moments":
        """The sums over some positions: x is `(groups, rows, K)`, y `(groups, rows, O)`."""
        return cls(x.shape[1], x.sum(1).double(), y.sum(1).double(), (x.mT @ x).double(), (x.mT @ y).double())

    def joined(self, other: "Moments") -> "Moments":
        """The sums over these positions and others."""
        sums = (one + more for one, more in zip(self[1:], other[1:], strict=True))
        return Moments(self.rows + other.rows, *sums)


def fit(
    models: tuple[nn.Module, nn.Module], layer: FittedLayer, batches: Sequence[Inputs], ridge: float, *, added: bool
) -> None:
    """Fit one layer of the second network, in place, to the outputs of the first's."""
    dense, quiet = (dict(model.named_modules()) for model in models)
    module = quiet[layer.path]
    assert isinstance(module, FITTABLE)
    scale = scale_of(dense[layer.norm]) if layer.norm else None
    generator = torch.Generator().manual_seed(0)
    each = -(-ROWS // sum(batch.batch for batch in batches))
    parts = []
    for batch in batches:
        wanted, own = (see(model, layer, batch, added=added) for model in models)
        target = wanted.made
        if wanted.addend is not None and own.addend is not None:
            target = target + through(scale, wanted.addend - own.addend)
        parts.append(Moments.of(*rows_of(module, own.given, target, each, generator)))
    sums = functools.reduce(Moments.joined, parts)
    alive = module.weight.flatten(1).abs().sum(1) > 0
    centred = bool(layer.norm) or module.bias is not None
    weight, offset = solve(module, sums, ridge, centred=centred)
    module.weight[alive] = weight.to(module.weight.dtype)[alive]
    if layer.norm:
        own_bias = 0 if module.bias is None else module.bias.double()
        mean = buffer_of(dense[layer.norm], "running_mean").double() - offset + own_bias
        change = buffer_of(quiet[layer.norm], "running_mean")
        change[alive] = mean.to(change.dtype)[alive]
    elif module.bias is not None:
        module.bias[alive] = offset.to(module.bias.dtype)[alive]


def buffer_of(module: nn.Module, name: str) -> torch.Tensor:
    """A buffer of a module by name."""
    found = module.get_buffer(name)
    assert found is not None
    return found


def scale_of(norm: nn.Module) -> torch.Tensor:
    """γ / σ of a BatchNorm `(C,)`: the factor from its input to its output."""
    assert isinstance(norm, MEASURABLE)
    scale = (buffer_of(norm, "running_var") + norm.eps).rsqrt()
    return scale * norm.weight if norm.affine else scale


def through(scale: torch.Tensor | None, difference: torch.Tensor) -> torch.Tensor:
    """The change of a layer's output `(N, C, ...)` that makes up for a difference behind its BatchNorm."""
    if scale is None:
        return difference
    usable = scale.abs() > SMALLEST_SCALE
    factor = torch.where(usable, 1 / torch.where(usable, scale, 1), 0)
    return difference * factor.reshape(-1, *[1] * (difference.ndim - 2))


def rows_of(
    module: Fittable, x: torch.Tensor, y: torch.Tensor, each: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The inputs as rows `(groups, rows, K)` and the targets `(groups, rows, O)`, of `each` positions of an image."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    if isinstance(module, nn.Linear):
        return x.reshape(1, -1, x.shape[-1]).to(dtype), y.reshape(1, -1, y.shape[-1]).to(dtype)
    patches, targets = unfolded(module, x), y.flatten(2)
    count = min(each, targets.shape[2])
    chosen = torch.rand(len(targets), targets.shape[2], generator=generator).topk(count, dim=1).indices.to(x.device)
    rows, wanted = (
        values.gather(2, chosen[:, None].expand(-1, values.shape[1], -1))
        .transpose(1, 2)
        .flatten(0, 1)
        .to(dtype)
        .unflatten(1, (module.groups, -1))
        .transpose(0, 1)
        for values in (patches, targets)
    )
    return rows, wanted


def unfolded(module: nn.Conv1d | nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """The inputs of every position of a convolution: `(N, C · taps, positions)`."""
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = functional.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    kernel, dilation, stride = module.kernel_size, module.dilation, module.stride
    if isinstance(module, nn.Conv1d):
        x, kernel, dilation, stride = x[:, :, None], (1, *kernel), (1, *dilation), (1, *stride)
    return functional.unfold(x, kernel, dilation=dilation, stride=stride)


def solve(module: Fittable, sums: Moments, ridge: float, *, centred: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight W, in the shape of the layer's, and the offset b `(O,)` of the least-squares solution, in float64.

    They minimise the mean of |W x + b - y|² plus `ridge` · v̄ · |W - W₀|², with v̄ the mean variance of the inputs that
    are not always zero and W₀ the weight so far. If the layer cannot have an offset, that is, if it is not `centred`,
    b has no meaning and v̄ is the mean square.
    """
    groups = 1 if isinstance(module, nn.Linear) else module.groups
    old = module.weight.flatten(1).double().unflatten(0, (groups, -1)).mT
    mean_x, mean_y = sums.inputs / sums.rows, sums.targets / sums.rows
    products, cross = sums.products / sums.rows, sums.cross / sums.rows
    if centred:
        products = products - mean_x[:, :, None] * mean_x[:, None]
        cross = cross - mean_x[:, :, None] * mean_y[:, None]
    energy = products.diagonal(dim1=1, dim2=2)
    pull = ridge * energy.sum(1) / (energy > 0).sum(1).clamp(min=1)
    pull = torch.where(pull > 0, pull, 1)[:, None, None]
    system = products + pull * torch.eye(products.shape[1], dtype=products.dtype, device=products.device)
    weight = torch.linalg.solve(system, cross + pull * old)
    offset = mean_y - (mean_x[:, None] @ weight)[:, 0]
    return weight.mT.reshape(module.weight.shape), offset.flatten()
