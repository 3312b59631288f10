"""slim, inspect and certificates: what is refused and how it is said, and what can be read back."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from wiring import refused

import slimnet
from slimnet.errors import CertificateError, DataError, InputError, TraceError, UsageError


def network(width: int = 6, beta: float = 0.5) -> nn.Sequential:
    """Two convolutions, grouped between them, with two dead channels in front of a padded reader."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, width, 3),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, groups=2),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 3, 1, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    with torch.no_grad():
        for layer, dead in ((1, [0, 1, 3, 4]), (4, [1, 2, 4]), (7, [3])):
            model[layer].weight[dead] = 0.0
            model[layer].bias[dead] = beta
    return model.eval()


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape or (2, 2, 8, 8), generator=torch.Generator().manual_seed(1))


def test_the_network_of_these_tests_uses_every_part_of_a_plan():
    plan = slimnet.slim(network(), images()).plan
    assert all((plan.cuts, plan.groups, plan.folds, plan.merges, plan.zeroed, plan.kept, plan.layers))


# Inputs and settings


@pytest.mark.parametrize(
    ("inputs", "part"),
    [
        (images(2, 3, 8, 8), "(2, 3, 8, 8)"),
        (images(2, 2, 2, 2), "(2, 2, 2, 2)"),
        (images(2, 16), "(2, 16)"),
        ((images(), images()), "(2, 2, 8, 8), (2, 2, 8, 8)"),
        ({"nonsense": images()}, "nonsense"),
        (images().double(), "torch.float64"),
        (images().half(), ".to(torch.float32)"),
        (images().to("meta"), "on meta but the network is on cpu"),
        ("images", "str"),
        ([], "no tensor"),
        ({}, "no tensor"),
        (None, "NoneType"),
        (3, "int"),
    ],
)
def test_example_inputs_that_do_not_fit_are_refused(inputs, part):
    assert part in refused(InputError, 2, lambda: slimnet.slim(network(), inputs))
    assert part in refused(InputError, 2, lambda: slimnet.inspect(network(), inputs))


def test_inputs_without_any_example_are_refused():
    message = refused(InputError, 2, lambda: slimnet.slim(network(), images(0, 2, 8, 8)))
    assert "no example" in message


@pytest.mark.parametrize("threshold", [-1e-3, float("nan"), float("inf"), -float("inf"), "0.1", None])
def test_a_threshold_that_means_nothing_is_refused(threshold):
    assert "threshold" in refused(UsageError, 2, lambda: slimnet.slim(network(), images(), threshold))
    assert "threshold" in refused(UsageError, 2, lambda: slimnet.inspect(network(), images(), threshold))


@pytest.mark.parametrize("tolerance", [-1e-3, float("nan")])
def test_a_tolerance_that_means_nothing_is_refused(tolerance):
    assert "tolerance" in refused(UsageError, 2, lambda: slimnet.slim(network(), images(), tolerance=tolerance))


@pytest.mark.parametrize("criterion", ["", "Gamma", "weights", None])
def test_an_unknown_criterion_is_refused(criterion):
    message = refused(UsageError, 2, lambda: slimnet.slim(network(), images(), criterion=criterion))
    assert "(gamma, activation)" in message


def test_activations_cannot_be_measured_without_data():
    work = lambda **data: slimnet.slim(network(), images(), criterion="activation", **data)  # noqa: E731
    assert "loader" in refused(UsageError, 2, work)
    assert "no batches" in refused(DataError, 2, lambda: work(loader=[]))


@pytest.mark.parametrize("model", [None, "resnet18", nn.Conv2d, {"weight": torch.zeros(1)}])
def test_what_is_no_module_is_refused(model):
    assert "torch.nn.Module" in refused(UsageError, 2, lambda: slimnet.slim(model, images()))
    assert "torch.nn.Module" in refused(UsageError, 2, lambda: slimnet.inspect(model, images()))


class Forward(nn.Module):
    """A convolution, and a forward of one's own."""

    def __init__(self, way: Callable[[nn.Module, torch.Tensor], Any]):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.way = way

    def forward(self, x: torch.Tensor) -> Any:
        return self.way(self.conv, x)


@pytest.mark.parametrize(
    "way",
    [
        lambda conv, x: conv(x) if x.sum() > 0 else -conv(x),
        lambda conv, x: conv(x) if x.numpy().sum() > 0 else -conv(x),
    ],
)
def test_a_forward_that_depends_on_data_is_refused(way):
    message = refused(TraceError, 1, lambda: slimnet.slim(Forward(way), images()))
    assert "depends on data" in message


@pytest.mark.parametrize(
    "way",
    [
        lambda conv, x: conv(x) * conv(x).amax().item(),
        lambda conv, x: conv(x)[:, :, : int(x.mean() * 0 + 1)],
        lambda conv, x: conv(x)[conv(x) > 0],
        lambda conv, x: conv(x).nonzero(),
        lambda conv, x: conv(x).tolist() and conv(x),
        lambda conv, x: torch.tensor(conv(x).detach().numpy()),
    ],
)
def test_a_forward_that_depends_on_data_behind_its_layers_is_left_as_it_is(way):
    """What depends on data reads all channels of the only layer."""
    net = Forward(way)
    slimmed = slimnet.slim(net, images())
    assert slimmed.plan.stop is not None
    assert slimmed.plan.removed_channels == 0
    assert torch.equal(slimmed.model(images()), net(images()))


@pytest.mark.parametrize("way", [lambda conv, x: None, lambda conv, x: 3, lambda conv, x: []])
def test_a_network_that_returns_no_tensor_is_refused(way):
    assert "no tensor" in refused(CertificateError, 1, lambda: slimnet.slim(Forward(way), images()))


def test_an_error_inside_the_forward_is_reported_in_one_line_with_its_place():
    def way(conv: nn.Module, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("first line\nsecond line")

    message = refused(InputError, 2, lambda: slimnet.slim(nn.Sequential(Forward(way)), images()))
    assert "first line" in message
    assert "in 0" in message


# Certificates


def test_outputs_that_differ_by_more_than_the_tolerance_are_refused():
    model = network()
    with torch.no_grad():
        model[1].weight[0] = 9e-4
    message = refused(CertificateError, 1, lambda: slimnet.slim(model, images(), tolerance=0.0))
    assert "does NOT hold" in message
    assert slimnet.slim(model, images(), tolerance=0.5).certificate.holds


def test_a_certificate_of_another_network_does_not_hold():
    dense = network()
    slimmed = slimnet.slim(dense, images())
    with torch.no_grad():
        slimmed.model[8].weight[0, 0] += 1.0
    certificate = slimnet.certify(dense, slimmed.model, slimmed.plan, images())
    assert not certificate.holds
    assert "does NOT hold" in str(certificate)
    assert not json.loads(certificate.to_json())["holds"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["0.weight", "3.bias", "1.bias", "6.weight"])
def test_a_broken_weight_gives_no_certificate_that_holds(value, where):
    model = network()
    with torch.no_grad():
        model.state_dict()[where].view(-1)[-1] = value
    assert not model(images()).isfinite().all()
    message = refused(CertificateError, 1, lambda: slimnet.slim(model, images(), tolerance=1e9))
    assert message.startswith("the dense network's own output is NaN on these inputs, in all of 6 values")


def test_a_broken_weight_of_a_removed_channel_is_no_excuse():
    """The dense network returns NaN; that the slim one would not is a difference."""
    model = network(beta=-0.5)
    with torch.no_grad():
        model[0].weight[0] = float("nan")
    assert model(images()).isnan().any()
    refused(CertificateError, 1, lambda: slimnet.slim(model, images()))


def test_a_certificate_is_measured_on_every_batch_of_the_loader():
    pairs = [(images(3, 2, 8, 8), torch.zeros(3, dtype=torch.long)), (images(4, 2, 8, 8), torch.zeros(4).long())]
    certificate = slimnet.slim(network(), images(), loader=pairs, float64=True).certificate
    assert certificate.samples == 7
    assert certificate.top1_agreement == 1.0
    assert certificate.float64_max_rel_difference < 1e-6


def test_a_forward_that_counts_its_calls_counts_none_of_a_certificate():
    class Counting(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().forward(x)

    model = Counting(*network())
    model.register_buffer("calls", torch.zeros(()))
    slimmed = slimnet.slim(model, images(), loader=[images(), images()])
    assert slimmed.plan.removed_channels
    assert model.calls == slimmed.model.calls == 0


def test_a_certificate_survives_json_and_can_be_read_aloud():
    slimmed = slimnet.slim(network(), images())
    certificate = slimmed.certificate
    again = slimnet.Certificate.from_json(certificate.to_json())
    assert again == certificate
    assert certificate.plan_digest == slimmed.plan.digest
    assert str(certificate).startswith("certificate holds: largest relative output difference ")
    assert f"parameters {certificate.params_before:,} → {certificate.params_after:,}" in str(certificate)
    assert "\n" not in str(certificate)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "3", '{"samples": 1}', "{" * 100_000])
def test_what_is_no_certificate_is_refused(text):
    refused(UsageError, 2, lambda: slimnet.Certificate.from_json(text))


# Inspection


def test_an_inspection_tells_every_layer_what_is_dead_what_can_go_and_why_the_rest_cannot():
    model = network()
    inspection = slimnet.inspect(model, images())
    slimmed = slimnet.slim(model, images())
    assert inspection.plan == slimmed.plan
    assert str(inspection).endswith(f"\n\n{slimmed.plan}")
    layers = {layer.name: layer for layer in inspection.layers}
    assert list(layers) == ["0", "3", "6", "8"]
    assert (layers["0"].kind, layers["0"].channels, layers["0"].dead) == ("conv", 6, 4)
    assert (layers["3"].dead, layers["6"].dead) == (3, 1)
    narrow = {name: module.out_channels for name, module in slimmed.model.named_children() if name in layers}
    assert {name: layer.channels - layer.removable for name, layer in layers.items()} == narrow
    assert "carrier of constants for 6" in layers["3"].kept_because
    assert layers["0"].gammas == tuple(model[1].weight.abs().tolist())
    assert layers["8"].gammas == ()
    assert layers["0"].macs == 6 * 2 * 9 * 36
    assert inspection.dead_channels == 8
    assert inspection.removable_channels == slimmed.plan.removed_channels
    assert all(layer.dead == layer.removable + sum(layer.kept_because.values()) for layer in layers.values())


def test_a_live_network_has_nothing_dead_and_nothing_to_remove():
    inspection = slimnet.inspect(nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), images())
    assert inspection.dead_channels == inspection.removable_channels == 0
    assert "nothing to remove" in str(inspection)


def test_inspecting_changes_nothing():
    model = network().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    slimnet.inspect(model, images())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())


def test_keyword_inputs_and_several_inputs_are_taken():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network()

        def forward(self, left: torch.Tensor, right: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
            return self.body(left + scale * right)

    by_place = slimnet.slim(Two(), (images(), images()))
    by_name = slimnet.slim(Two(), {"left": images(), "right": images(), "scale": 2.0})
    assert by_place.plan == by_name.plan
    assert by_place.plan.removed_channels > 0
