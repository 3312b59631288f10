"""Networks on a GPU: what has to be moved is, and how it rounds is seen to. The GPU is pretended; see `elsewhere`."""

import pytest
import torch
from elsewhere import GPU, Elsewhere, gpu, moved
from torch import nn

import slimnet
from slimnet.places import fastest_kernels, float32_products, random_numbers_kept

pretended = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and benchmarks/gpu.py checks it")

NETWORKS = {
    "basicnet": {"width": 0.25, "hidden": 16},
    "torchvision:resnet18": {},
    "torchvision:mobilenet_v3_small": {},
    "torchvision:shufflenet_v2_x0_5": {},
}


def network(name="basicnet", *, beta=0.5):
    """A network a third of whose channels are dead, with constants that have to be folded."""
    torch.manual_seed(0)
    model = slimnet.build(name, NETWORKS[name]).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data[::3] = 0
            module.bias.data.normal_().mul_(beta)
    return model


IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pretended
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_on_a_gpu_is_slimmed_there_into_what_it_becomes_on_the_cpu(name):
    expected = slimnet.slim(network(name), IMAGES, float64=True)
    with gpu():
        ours = slimnet.slim(moved(network(name)), Elsewhere(IMAGES), float64=True)
        outputs = ours.model(Elsewhere(IMAGES))
    assert ours.plan == expected.plan
    assert all(parameter.device == GPU for parameter in ours.model.parameters())
    assert torch.equal(outputs.held, expected.model(IMAGES))


@pretended
@pytest.mark.parametrize("criterion", ["gamma", "activation"])
def test_a_loader_on_the_cpu_serves_a_network_on_a_gpu(criterion):
    loader = [(IMAGES, torch.tensor([0, 1])), (IMAGES.flip(3), torch.tensor([2, 3]))]
    expected = slimnet.slim(network(), IMAGES, criterion=criterion, loader=loader)
    with gpu():
        ours = slimnet.slim(moved(network()), Elsewhere(IMAGES), criterion=criterion, loader=loader)
    assert ours.plan == expected.plan
    assert ours.certificate == expected.certificate


@pretended
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_types_are_slimmed_on_a_gpu(dtype):
    model = network(beta=0.05).to(dtype)
    with gpu():
        ours = slimnet.slim(moved(model), Elsewhere(IMAGES.to(dtype)))
    assert ours.certificate.holds
    assert ours.certificate.dtype == str(dtype).removeprefix("torch.")


@pretended
def test_a_network_on_a_gpu_is_saved_from_the_cpu_in_all_its_forms(tmp_path):
    with gpu():
        ours = slimnet.slim(moved(network()), Elsewhere(IMAGES))
        folder = slimnet.save(ours, tmp_path / "bundle")
        expected = ours.model(Elsewhere(IMAGES)).held
    assert torch.equal(slimnet.load(folder)(IMAGES), expected)


@pretended
def test_inputs_on_another_device_than_the_network_are_refused_by_name():
    with gpu(), pytest.raises(slimnet.SlimnetError, match=r"on cpu but the network is on cuda:0; move them"):
        slimnet.slim(moved(network()), IMAGES)


def settings():
    backends = torch.backends
    parts = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul)
    return [each.fp32_precision for each in parts] + [torch.get_float32_matmul_precision()]


@pytest.mark.parametrize(("tf32", "precision", "name"), [(True, "tf32", "high"), (False, "ieee", "highest")])
def test_products_of_float32_are_rounded_as_asked_for_and_as_before_afterwards(tf32, precision, name):
    before = settings()
    with float32_products(tf32=tf32):
        assert settings() == [precision] * 4 + [name]
    assert settings() == before


def test_settings_come_back_after_an_error_too():
    before = settings()
    with pytest.raises(ZeroDivisionError), float32_products(tf32=True):
        raise ZeroDivisionError
    assert settings() == before


def test_cudnn_is_told_to_try_kernels_and_nothing_else():
    """`cudnn.flags` would switch off whatever it is not told of, cuDNN itself among them."""
    cudnn = torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark
    with fastest_kernels():
        assert (cudnn.enabled, cudnn.benchmark) == (before[0], True)
    assert (cudnn.enabled, cudnn.benchmark) == before


class Reporting(nn.BatchNorm2d):
    """Writes down how a GPU would round the convolutions of its forward."""

    def forward(self, images):
        SEEN.append(torch.backends.cudnn.conv.fp32_precision)
        return super().forward(images)


SEEN = []


def test_the_certificate_is_measured_without_tf32():
    """A GPU rounds float32 convolutions to TF32 by default, which alone is over the tolerance."""
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    model = Reporting(3).eval()
    slimmed = slimnet.slim(model, IMAGES)
    SEEN.clear()
    slimnet.certify(model, slimmed.model, slimmed.plan, IMAGES)
    assert SEEN == ["ieee"] * 3


def test_random_numbers_of_a_forward_are_given_back():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with random_numbers_kept(nn.Linear(1, 1, device="meta")):
        torch.rand(5)
    assert torch.equal(torch.rand(1), expected)
