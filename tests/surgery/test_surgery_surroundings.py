"""What a forward keeps, and what it writes, outside of the tensors that it computes: caches, hooks, inputs, weights.

Oracle: the dense network on fresh inputs (`wiring.slim`), and that nothing of the caller's has changed.
"""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from wiring import chain, double, norm, planes, slim, widths, wired

import slimnet
from slimnet.errors import CertificateError
from slimnet.shrinking import Shrinker
from slimnet.tracing.trace import trace


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def front(dead: int = 6, beta: float = -1.0) -> nn.Sequential:
    """Sixteen channels, of which some are dead."""
    return nn.Sequential(nn.Conv2d(2, 16, 3), norm(16, range(dead), beta), nn.ReLU())


# ---- caches that outlive a forward


def with_table(table: Callable[[int], torch.Tensor]) -> nn.Module:
    """A network that reads a table of positions beside its channels."""

    def forward(m, x):
        y = m.front(x)
        more = table(y.shape[-1]).to(y.dtype).expand(len(y), 1, y.shape[2], -1)
        return m.last(torch.cat([y, more], 1))

    return wired(forward, front=front(), last=nn.Conv2d(17, 3, 1))


def made_at_once(size: int) -> torch.Tensor:
    return torch.arange(size) / size


def made_in_steps(size: int) -> torch.Tensor:
    grid = torch.linspace(0, 1, size)[None, :]
    return (grid * 2 - torch.ones(size, dtype=torch.float32)).view(size).contiguous()


def made_in_place(size: int) -> torch.Tensor:
    return torch.zeros(size).add_(torch.eye(size).sum(0)).mul_(3)


TABLES = [made_at_once, made_in_steps, made_in_place]


@pytest.mark.parametrize("work", ["slim", "shrinker", "trace"])
@pytest.mark.parametrize("make", TABLES)
def test_a_cached_table_has_its_values_after_a_trace(make, work):
    """A process that loads a network and slims it first has nothing in its caches."""
    cached = functools.cache(make)
    model, images = with_table(cached), planes()
    if work == "slim":
        assert slim(with_table(functools.cache(make)), images).plan.removed_channels == 6
        slimnet.slim(model, images)
    elif work == "shrinker":
        Shrinker(model, torch.optim.Adam(model.parameters()), images)
    else:
        trace(model, images)
    assert torch.equal(cached(4), make(4))
    assert cached.cache_info().hits


def test_a_cached_kernel_for_each_width_has_its_values():
    """torch's convolution on the CPU takes a weight without values, and computes with what is in memory."""

    @functools.cache
    def kernel(channels: int) -> torch.Tensor:
        line = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
        plane = line[:, None] * line[None, :]
        return (plane / plane.sum()).repeat(channels, 1, 1, 1)

    def forward(m, x):
        y = m.front(x)
        return m.last(functional.conv2d(y, kernel(y.shape[1]), groups=y.shape[1]))

    model = wired(forward, front=front(), last=nn.Conv2d(16, 3, 1))
    # The dense network has not run before.
    slimmed = slimnet.slim(model, planes())
    assert slimmed.plan.removed_channels == 12
    again = slim(model, planes())
    assert again.plan.removed_channels == 12
    assert [kernel(channels).device.type for channels in (16, 10)] == ["cpu", "cpu"]


# ---- what a forward writes into


@pytest.mark.parametrize("first", [nn.ReLU(inplace=True), nn.Identity()], ids=["inplace", "as it is"])
def test_the_callers_images_are_not_written_into(first):
    """Every network gets the images as they were: the second one would get zeros of what the first has divided."""
    model = wired(
        lambda m, x: m.last(m.front(m.first(x).div_(255))), first=first, front=front(), last=nn.Conv2d(16, 3, 1)
    )
    images = planes() * 255
    before = images.clone()
    slimmed = slimnet.slim(model, images)
    assert slimmed.plan.removed_channels == 6
    Shrinker(model, torch.optim.Adam(model.parameters()), images).step()
    assert torch.equal(images, before)


def test_small_scales_are_measured_on_the_images_and_not_on_what_is_left_of_them():
    """γ of 9e-4 on a variance of 1e-4: what these channels carry is seen, though the forward divides its input."""
    model = wired(lambda m, x: m.last(m.front(x.div_(255))), front=front(), last=nn.Conv2d(16, 3, 1))
    with torch.no_grad():
        model.front[1].weight[:6] = 9e-4
        model.front[1].bias[:6] = 0.5
        model.front[1].running_var.fill_(1e-4)
    with pytest.raises(CertificateError, match="does NOT hold"):
        slimnet.slim(model, torch.rand(2, 2, 8, 8, dtype=torch.float64) * 255)


class OwnSpectralNorm(nn.Module):
    """A layer divided by its spectral norm, estimated by a vector that each forward gives new values."""

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        self.layer, self.raw = layer, nn.Parameter(layer.weight.detach().clone())
        del layer._parameters["weight"]
        self.u = nn.Parameter(functional.normalize(torch.randn(layer.out_channels), dim=0), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.raw.flatten(1)
        v = functional.normalize(weight.t().detach() @ self.u.data, dim=0)
        self.u.data = functional.normalize(weight.detach() @ v, dim=0)
        self.layer.weight = self.raw / (self.u @ weight @ v)
        return self.layer(x)


def test_a_parameter_that_a_forward_replaces_stays_the_callers():
    model = chain(*front(), OwnSpectralNorm(nn.Conv2d(16, 3, 1)))
    before = model[3].u.detach().clone()
    slimnet.slim(model, planes())
    assert torch.equal(model[3].u, before)


def test_a_layer_gets_its_weight_in_its_first_forward():
    """No call has set it when the network is slimmed."""

    class Normed(nn.Module):
        def __init__(self, layer: nn.Conv2d):
            super().__init__()
            self.layer, self.raw = layer, nn.Parameter(layer.weight.detach().clone())
            del layer._parameters["weight"]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.layer.weight = self.raw / self.raw.norm()
            return self.layer(x)

    slimmed = slimnet.slim(chain(*front(), Normed(nn.Conv2d(16, 8, 1)), nn.Conv2d(8, 3, 1)), planes())
    assert slimmed.certificate.holds


# ---- what a network keeps


class Keeps(nn.Module):
    """Keeps something of its last forward, in one of these ways."""

    def __init__(self, keep: Callable[[nn.Module, torch.Tensor], None]):
        super().__init__()
        self.front, self.last = front(), nn.Conv2d(16, 3, 1)
        self.kept_dict: dict[str, torch.Tensor] = {}
        self.kept_list: list[torch.Tensor] = []
        self.keep = keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.front(x)
        self.keep(self, y)
        return self.last(y)


KEEPING = {
    "dict": lambda m, y: m.kept_dict.update(loss=y.abs().mean()),
    "list": lambda m, y: m.kept_list.append(y.abs().mean()),
    "nested": lambda m, y: m.kept_dict.update(losses=[{"l1": y.abs().mean()}]),
}


@pytest.mark.parametrize("keep", KEEPING.values(), ids=KEEPING)
def test_a_network_that_has_kept_tensors_of_a_training_step_is_slimmed(keep):
    """`copy.deepcopy` refuses tensors that have a gradient function."""
    model = Keeps(keep).double()
    model(planes()).sum().backward()
    model.eval()
    assert slim(model, planes()).plan.removed_channels == 6


def test_a_hook_that_closes_over_the_network_works_on_the_copy():
    """It keeps features for the forward, as people write it."""

    class WithFeatures(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.front, self.next, self.last = front(), nn.Conv2d(16, 8, 1), nn.Conv2d(24, 3, 1)
            self.features: dict[str, torch.Tensor] = {}
            self.front.register_forward_hook(self.saver("front"))

        def saver(self, name: str) -> Callable[..., None]:
            def hook(module: nn.Module, given: object, output: torch.Tensor) -> None:
                self.features[name] = output

            return hook

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.cat([self.next(self.front(x)), self.features["front"]], 1))

    model = double(WithFeatures())
    slimmed = slim(model, planes())
    assert slimmed.plan.removed_channels == 6
    assert model.features["front"].shape[1] == 16
    assert slimmed.model.features["front"].shape[1] == 10


def test_what_a_hook_keeps_for_its_caller_is_the_callers_own():
    seen: list[torch.Tensor] = []
    model = chain(*front(), nn.Conv2d(16, 3, 1))
    model[0].register_forward_hook(lambda module, given, output: seen.append(output))
    slimnet.slim(model, planes())
    assert seen == []


def test_a_container_that_modules_share_is_shared_by_their_copies():
    class Put(nn.Module):
        def __init__(self, place: dict[str, torch.Tensor]):
            super().__init__()
            self.place = place

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.place["skip"] = x
            return x

    class Add(Put):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.place.pop("skip")

    shared: dict[str, torch.Tensor] = {}
    same = nn.Conv2d(16, 16, 3, padding=1)
    slimmed = slim(chain(*front(), Put(shared), same, Add(shared), nn.Conv2d(16, 3, 1)), planes())
    assert slimmed.certificate.holds
    assert shared == {}


class RunningMean(nn.Module):
    """Subtracts the mean that it has seen so far, in evaluation too."""

    def __init__(self, way: str):
        super().__init__()
        self.front, self.last, self.way = front(beta=1.0), nn.Conv2d(16, 3, 3), way
        self.register_buffer("mean", torch.zeros(1, 16, 1, 1))
        self.before: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.front(x)
        mean = y.mean((0, 2, 3), keepdim=True)
        if self.way == "attribute":
            known = mean if self.before is None else self.before
            self.before = mean * 2
            return self.last(y - known)
        if self.way == "in place":
            self.mean.mul_(0.9).add_(0.1 * mean)
        else:
            self.mean = 0.9 * self.mean + 0.1 * mean
        return self.last(y - self.mean)


@pytest.mark.parametrize("way", ["assigned", "in place", "attribute"])
def test_what_a_network_keeps_between_calls_is_compared_in_second_calls(way):
    """Oracle: three calls of both networks, one after the other, where the certificate holds."""
    model, images = double(RunningMean(way)), planes()
    with pytest.raises(CertificateError, match=r"in first and second calls, since .* keeps values .* in keep="):
        slimnet.slim(model, images)
    slimmed = slimnet.slim(model, images, keep=["front.0"])
    with torch.no_grad():
        apart = [float((model(images) - slimmed.model(images)).abs().max()) for _ in range(3)]
    assert max(apart) < 1e-12


# ---- layers of one's own


class EqualisedConv(nn.Conv2d):
    """A convolution that scales its weight, and has no use for a bias."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, self.weight * 0.5, stride=self.stride, padding=self.padding)


class BiasedConv(nn.Conv2d):
    """The same with a bias."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, self.weight * 0.5, self.bias, stride=self.stride, padding=self.padding)


class CallsTorch(nn.Conv2d):
    """One that leaves its work to torch's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


@pytest.mark.parametrize(
    ("kind", "left"),
    [(nn.Conv2d, 10), (BiasedConv, 10), (CallsTorch, 10), (EqualisedConv, 16)],
    ids=lambda each: str(each),
)
def test_a_layer_is_given_a_bias_if_it_would_read_one(kind, left):
    """The constants of six channels, β = 1, need one."""
    slimmed = slim(chain(*front(beta=1.0), kind(16, 3, 1, bias=False)), planes())
    assert widths(slimmed.model)[0] == left


@pytest.mark.parametrize("groups", [1, 16])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 2), (2, 2), (1, 1)])
def test_between_the_strides_of_a_transposed_convolution_there_is_only_the_bias(kernel, stride, groups):
    wide = nn.ConvTranspose2d(16, 16, kernel, stride=stride, groups=groups)
    slimmed = slim(chain(*front(beta=1.0), wide, nn.Conv2d(16, 3, 1)), planes())
    # Where constants do not stay constants, one channel carries those of all, if one layer reads them all.
    left = 10 if kernel == stride == 1 else 11 if groups == 1 else 16
    assert widths(slimmed.model)[0] == left
