"""Slim, train further, slim again, save: bundles of networks that have been cut or trained since they were built."""

import copy
import subprocess
import sys

import pytest
import torch
from bundles import ARGS, SHAPE, assert_same_state, basic_net, coded_net, images, refusal, small_net
from torch import nn

import slimnet
from slimnet.bundle.bundle import load, read_blueprint, save, verify_bundle
from slimnet.bundle.manifest import read_manifest
from slimnet.bundle.stored_certificate import read_certificate
from slimnet.errors import BundleError, UsageError
from slimnet.models import build
from slimnet.models.architecture import architecture_of
from slimnet.pipeline import slim
from slimnet.surgery.apply_plan import apply_plan
from slimnet.surgery.certificate_data import BEFORE
from slimnet.surgery.cut_history import cuts_of

pytestmark = pytest.mark.usefixtures("operators_read_once")


def norms(model: nn.Module) -> list[nn.Module]:
    return [each for each in model.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]


def kill_more(model: nn.Module) -> nn.Module:
    """Let the last channel of every BatchNorm that has several die."""
    with torch.no_grad():
        for norm in norms(model):
            if len(norm.weight) > 1:
                norm.weight[-1] = 1e-8
    return model


def train_a_little(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """Three steps of SGD towards nothing in particular."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        model.train()(x).square().mean().backward()
        optimiser.step()
    return model.eval()


def run(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return copy.deepcopy(model).eval()(x)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The bundle of a network that slimnet builds itself."""
    return save(
        slim(basic_net(), torch.randn(2, *SHAPE)), tmp_path_factory.mktemp("bundles") / "first", source="net.pt"
    )


def test_a_network_is_slimmed_trained_slimmed_again_and_saved(first, tmp_path):
    """The bundle holds one plan for the network as it was built; oracles: the networks before and after."""
    x = torch.randn(4, *SHAPE)
    trained = kill_more(train_a_little(load(first), x))
    before = run(trained, x)
    second = slim(trained, x)
    assert second.plan.removed_channels
    loaded = load(save(second, tmp_path / "second"))
    assert_same_state(second.model.state_dict(), loaded.state_dict())
    torch.testing.assert_close(run(loaded, x), before, rtol=1e-4, atol=1e-5)
    plan = read_blueprint(tmp_path / "second").plan
    assert plan.macs_before == read_blueprint(first).plan.macs_before
    assert plan.macs_after == second.plan.macs_after
    assert plan.removed_channels == read_blueprint(first).plan.removed_channels + second.plan.removed_channels
    assert {name: value.shape for name, value in apply_plan(build("basicnet", ARGS), plan).state_dict().items()} == {
        name: value.shape for name, value in loaded.state_dict().items()
    }


def test_its_certificate_names_what_it_is_relative_to(first, tmp_path):
    x = torch.randn(2, *SHAPE)
    folder = save(slim(kill_more(load(first)), x), tmp_path / "second")
    assert read_certificate(folder).reference == BEFORE
    assert read_certificate(folder).holds
    assert verify_bundle(folder).certified
    message = refusal(UsageError, verify_bundle, folder, dense=basic_net())
    assert message == f"{folder} is certified against {BEFORE}; verify it without the dense one"


@pytest.mark.parametrize("times", [2, 3])
def test_bundles_follow_each_other_without_an_end(times, first, tmp_path):
    x, folder = torch.randn(2, *SHAPE), first
    for number in range(times):
        second = slim(kill_more(load(folder)), x)
        folder = save(second, tmp_path / str(number))
        torch.testing.assert_close(run(load(folder), x), run(second.model, x), rtol=0, atol=0)
    assert len(cuts_of(load(folder))) == 1


def test_what_was_slimmed_twice_in_memory_is_saved_as_well(tmp_path):
    x = torch.randn(2, *SHAPE)
    once = slim(basic_net(), x)
    twice = slim(kill_more(copy.deepcopy(once.model)), x)
    assert [plan.digest for plan in cuts_of(twice.model)] == [once.plan.digest, twice.plan.digest]
    assert twice.whole_plan == once.plan.then(twice.plan)
    torch.testing.assert_close(run(load(save(twice, tmp_path / "b")), x), run(twice.model, x), rtol=0, atol=0)


def test_a_network_of_ones_own_is_loaded_into_its_dense_network(tmp_path):
    twice = slim(kill_more(slim(small_net(), images()).model), images())
    folder = save(twice, tmp_path / "own")
    torch.testing.assert_close(run(load(folder, small_net(3)), images()), run(twice.model, images()), rtol=0, atol=0)


@pytest.mark.parametrize("arch", ["resnet20", "torchvision:mobilenet_v3_small", "torchvision:shufflenet_v2_x0_5"])
def test_residual_and_depthwise_networks_are_slimmed_again(arch):
    """Oracle: the composed plan on the dense network with the weights of the first."""
    torch.manual_seed(0)
    model, x = build(arch).eval(), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        for norm in norms(model):
            norm.weight[::4] = 1e-8
    twice = slim(kill_more(slim(model, x).model), x)
    shapes = {name: value.shape for name, value in apply_plan(build(arch), twice.whole_plan).state_dict().items()}
    assert shapes == {name: value.shape for name, value in twice.model.state_dict().items()}


def test_a_network_trained_in_ones_own_loop_is_saved_like_its_bundle(first, tmp_path):
    x = torch.randn(4, *SHAPE)
    trained = train_a_little(load(first), x)
    random = torch.get_rng_state()
    folder = save(trained, tmp_path / "tuned", like=first)
    assert torch.equal(random, torch.get_rng_state())
    assert_same_state(trained.state_dict(), load(folder).state_dict())
    assert read_blueprint(folder).plan == read_blueprint(first).plan
    assert read_manifest(folder).source == "net.pt"
    assert not verify_bundle(folder).certified
    assert "trained since: not certified against the dense network" in str(verify_bundle(folder))
    torch.testing.assert_close(run(load(save(load(folder), tmp_path / "again", like=folder)), x), run(trained, x))


def test_a_network_that_was_not_trained_keeps_its_certificate(first, tmp_path):
    assert verify_bundle(save(load(first), tmp_path / "same", like=first)).certified


def test_what_a_shrinker_cut_from_a_bundle_is_saved_like_it(first, tmp_path):
    x, model = torch.randn(4, *SHAPE), load(first)
    optimiser = torch.optim.Adam(model.parameters(), weight_decay=1e-3)
    shrinker = slimnet.Shrinker(model, optimiser, x, patience=1)
    with torch.no_grad():
        for norm in norms(model):
            norm.weight[0] = norm.bias[0] = 0.0
    assert shrinker.step() is not None
    folder = save(train_a_little(model, x), tmp_path / "shrunk", like=first)
    torch.testing.assert_close(run(load(folder), x), run(model, x), rtol=0, atol=0)
    assert read_blueprint(folder).plan.removed_channels > read_blueprint(first).plan.removed_channels


WITHOUT_SLIMNET = """
import sys, torch
sys.modules["slimnet"] = None
torch.save(torch.load(sys.argv[1], weights_only=False), sys.argv[2])
"""


def test_a_pickled_network_is_read_without_slimnet_and_still_knows_its_cuts(tmp_path):
    """As the trainer of another library writes it, by a process that cannot import slimnet."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    slimmed = slim(kill_more(model), torch.randn(2, 3, 8, 8))
    built = build("torch.nn:Conv2d", {"in_channels": 3, "out_channels": 2, "kernel_size": 1})
    torch.save([slimmed.model, built], tmp_path / "there.pt")
    paths = [tmp_path / "there.pt", tmp_path / "back.pt"]
    subprocess.run([sys.executable, "-c", WITHOUT_SLIMNET, *paths], check=True, timeout=120)
    network, layer = torch.load(paths[1], weights_only=False)
    assert cuts_of(network) == (slimmed.plan,)
    assert architecture_of(layer) == architecture_of(built)
    again = slim(kill_more(network), torch.randn(2, 3, 8, 8))
    assert again.whole_plan.removed_channels == 2


def test_a_network_of_code_from_elsewhere_is_saved_without_running_it(tmp_path):
    """Its bundle names a factory, which nobody trusts here: the dense network is the caller's."""
    folder = save(slim(coded_net(), images()), tmp_path / "coded")
    trained = train_a_little(load(folder, coded_net()), images())
    trained.__dict__.pop("slimnet_architecture")
    other = save(trained, tmp_path / "tuned", like=folder)
    torch.testing.assert_close(run(load(other, coded_net()), images()), run(trained, images()), rtol=0, atol=0)
    assert read_blueprint(other).architecture == read_blueprint(folder).architecture


def test_a_module_needs_its_bundle(first, tmp_path):
    message = refusal(UsageError, save, load(first), tmp_path / "out")
    assert message.endswith("name that bundle with like=")
    assert refusal(BundleError, save, load(first), tmp_path / "out", like=tmp_path).startswith(
        f"{tmp_path} is not a bundle"
    )
    assert not (tmp_path / "out").exists()


def test_another_network_is_refused_by_the_first_tensor_that_differs(first, tmp_path):
    def refused(model: nn.Module) -> str:
        return refusal(BundleError, save, model, tmp_path / "out", like=first)

    assert refused(small_net()).endswith("does not; pass the module itself, without a wrapper")
    assert refused(nn.DataParallel(load(first))).endswith("pass the module itself, without a wrapper")
    assert refused(basic_net()).endswith("slim it and save the result")
    assert "was not made from the dense network of" in refused(slim(small_net(), images()).model)
    assert not (tmp_path / "out").exists()


def test_the_place_is_looked_at_first(first):
    assert "that folder is not empty" in refusal(BundleError, save, load(first), first, like=first)
