"""Cases of `test_elsewhere`: trace, plan, surgery and certificate of networks on a device."""

import pytest
import torch
from elsewhere import GPU, HERE, is_same, same_plan, without_float64
from torch import nn

import slimnet
from slimnet.modules.digest import weights_digest
from slimnet.torch_state.random_state import random_number_states

NETWORKS = {
    "basicnet": {"width": 0.25, "hidden": 16},
    "torchvision:mobilenet_v3_small": {},
    "torchvision:shufflenet_v2_x0_5": {},
}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def killed(model, beta=0.5):
    """A third of the channels dead, with constants that have to be folded."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data[::3] = 0
            module.bias.data.normal_().mul_(beta)
    return model


def network(name="basicnet", beta=0.5):
    torch.manual_seed(0)
    return killed(slimnet.build(name, NETWORKS[name]).eval(), beta)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_slimmed_where_it_is_into_what_it_becomes_on_the_cpu(name):
    expected = slimnet.slim(network(name), IMAGES, float64=True)
    dense = network(name).to(HERE)
    ours = slimnet.slim(dense, IMAGES.to(HERE), float64=True)
    assert same_plan(ours.plan, expected.plan)
    assert {each.device for net in (dense, ours.model) for each in net.state_dict().values()} == {HERE}
    assert is_same(ours.model(IMAGES.to(HERE)), expected.model(IMAGES))
    assert ours.certificate == expected.certificate or (GPU and ours.certificate.float64_max_rel_difference < 1e-6)


@pytest.mark.parametrize("criterion", ["gamma", "activation"])
def test_a_loader_on_the_cpu_serves_a_network_on_a_device(criterion):
    loader = [(IMAGES, torch.tensor([0, 1])), (IMAGES.flip(3), torch.tensor([2, 3]))]
    expected = slimnet.slim(network(), IMAGES, criterion=criterion, loader=loader)
    ours = slimnet.slim(network().to(HERE), IMAGES.to(HERE), criterion=criterion, loader=loader)
    assert same_plan(ours.plan, expected.plan)
    assert ours.certificate.samples == expected.certificate.samples == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_types_are_slimmed(dtype):
    ours = slimnet.slim(network(beta=0.05).to(HERE, dtype), IMAGES.to(HERE, dtype))
    assert ours.certificate.holds
    assert ours.certificate.dtype == str(dtype).removeprefix("torch.")


def test_inputs_on_another_device_than_the_network_are_refused_by_name():
    with pytest.raises(slimnet.SlimnetError, match=rf"on cpu but the network is on {HERE}; move them with"):
        slimnet.slim(network().to(HERE), IMAGES)


@pytest.mark.parametrize("float64", [True, False])
def test_a_device_without_double_precision_has_a_certificate(float64):
    """Such as Apple's GPUs: what has to be exact is computed on the CPU."""
    expected = slimnet.slim(network(), IMAGES, float64=float64)
    with without_float64():
        ours = slimnet.slim(network().to(HERE), IMAGES.to(HERE), float64=float64)
    assert same_plan(ours.plan, expected.plan)
    assert ours.certificate.holds


@pytest.mark.parametrize("place", [torch.device("cpu"), HERE], ids=str)
def test_a_default_device_changes_nothing(place):
    """`torch.set_default_device` moves what is made without saying where, of which only a forward may have some."""
    loader = [IMAGES]
    expected = slimnet.slim(network(), IMAGES, criterion="activation", loader=loader)
    model = network().to(place)
    with HERE:
        ours = slimnet.slim(model, IMAGES.to(place), criterion="activation", loader=loader)
    assert same_plan(ours.plan, expected.plan)
    assert next(ours.model.parameters()).device == place


class Net(nn.Module):
    """Two convolutions, a third of whose channels are dead; what comes between differs."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(12, 12, 3), nn.BatchNorm2d(12), nn.ReLU())
        self.last = nn.Linear(12, 5)
        self.register_buffer("number", torch.tensor(2.0))
        self.register_buffer("rows", torch.tensor([0, 2, 4]))
        self.plain = torch.full((12, 1, 1), 2.0)
        self.listed = [torch.full((12, 1, 1), 2.0)]

    def forward(self, images):
        return self.last(self.second(self.between(self.first(images))).mean((2, 3)))


def arange(_, hidden):
    return hidden * torch.arange(hidden.shape[2], device=hidden.device, dtype=hidden.dtype)[:, None]


def zeros_to(_, hidden):
    return hidden + torch.zeros(1, 1, 1).to(hidden)


def named_constant(_, hidden):
    return hidden * torch.tensor([1.0, 2.0], device=PLACE)[1]


def plain_attribute(self, hidden):
    return hidden * (self.plain + torch.ones(12, 1, 1, device=hidden.device))


def listed_tensor(self, hidden):
    return hidden * (self.listed[0] + torch.ones(12, 1, 1, device=hidden.device))


def listed_on_the_cpu(_, hidden):
    return hidden * torch.full((12, 1, 1), 2.0).to(hidden.device)


def number_read(self, hidden):
    return hidden * float(self.number)


def rows_of_a_buffer(self, hidden):
    return hidden[:, :, self.rows]


def rows_of_the_cpu(_, hidden):
    return hidden[:, :, torch.tensor([0, 2, 4])]


def written_in_place(_, hidden):
    shifted = hidden.new_zeros(hidden.shape)
    shifted[:, :, 1:] = hidden[:, :, :-1]
    return shifted


def device_as_context(_, hidden):
    with torch.device(hidden.device):
        return hidden * torch.linspace(0, 1, hidden.shape[-1])


def autocast_off(_, hidden):
    with torch.autocast(device_type=hidden.device.type, enabled=False):
        return hidden * 2


def compared(self, hidden):
    assert hidden.device == self.last.weight.device
    return hidden


PLACE = torch.device("cpu")
BETWEEN = (
    arange, zeros_to, named_constant, plain_attribute, listed_tensor, listed_on_the_cpu, number_read, rows_of_a_buffer,
    rows_of_the_cpu, written_in_place, device_as_context, autocast_off, compared,
)  # fmt: skip


@pytest.mark.parametrize("between", BETWEEN)
def test_forwards_that_make_tensors_are_slimmed_as_on_the_cpu(between, monkeypatch):
    class OfItsOwn(Net):
        pass

    OfItsOwn.between = between
    found = {}
    for place in (torch.device("cpu"), HERE):
        monkeypatch.setattr(f"{__name__}.PLACE", place)
        torch.manual_seed(0)
        model = killed(OfItsOwn()).eval().to(place)
        model.plain, model.listed = model.plain.to(place), [each.to(place) for each in model.listed]
        found[place.type] = slimnet.slim(model, IMAGES[..., :8, :8].to(place))
    expected, ours = found.values()
    assert same_plan(ours.plan, expected.plan)
    assert ours.plan.removed_channels >= 3
    assert is_same(ours.model(IMAGES.to(HERE)), expected.model(IMAGES)) if between is not named_constant else True


class InTwoPlaces(Net):
    def between(self, hidden):
        return hidden

    def forward(self, images):
        return self.last(self.second(self.first(images)).cpu().mean((2, 3)))


def test_a_network_in_two_places_stays_there():
    model = killed(InTwoPlaces()).eval().to(HERE)
    model.last.cpu()
    ours = slimnet.slim(model, IMAGES.to(HERE), float64=True)
    assert ours.plan.removed_channels == 8
    assert ours.model.last.weight.device.type == "cpu"
    assert ours.model.second[0].weight.device == HERE


class Drawing(Net):
    """Draws random numbers in evaluation mode as well."""

    def between(self, hidden):
        return hidden + 0 * torch.rand_like(hidden) + 0 * torch.rand(1).to(hidden)


@pytest.mark.parametrize("criterion", ["gamma", "activation"])
def test_random_numbers_of_cpu_and_device_are_given_back(criterion):
    model = killed(Drawing()).eval().to(HERE)
    before = random_number_states([HERE])
    assert len(before) == 2
    slimnet.slim(model, IMAGES.to(HERE), criterion=criterion, loader=[IMAGES])
    assert all(map(torch.equal, before, random_number_states([HERE])))


class Sampling(Net):
    """Adds noise of the device that its outputs depend on."""

    def between(self, hidden):
        return hidden + torch.rand(hidden.shape[0], 1, 1, 1, device=hidden.device)


def test_random_numbers_of_a_device_are_the_same_in_all_networks():
    model = killed(Sampling()).eval().to(HERE)
    slimmed = slimnet.slim(model, IMAGES.to(HERE), float64=not GPU)
    assert slimmed.certificate.random
    assert slimmed.certificate.holds
    torch.manual_seed(0)
    expected = model(IMAGES.to(HERE)).cpu()
    assert not torch.allclose(slimmed.model(IMAGES.to(HERE)).cpu(), expected, atol=1e-4)
    torch.manual_seed(0)
    torch.testing.assert_close(slimmed.model(IMAGES.to(HERE)).cpu(), expected, rtol=1e-4, atol=1e-5)


def test_weights_have_one_digest_wherever_they_are():
    model = network()
    before = weights_digest(model)
    assert weights_digest(model.to(HERE)) == before
    assert weights_digest(model.to(memory_format=torch.channels_last)) == before
