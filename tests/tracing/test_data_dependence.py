"""Forwards that begin to depend on data: what is in front is slimmed, what is read behind it stays."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from wiring import EXACT, norm, planes, reasons, refused, widths, wired

import slimnet
from slimnet.errors import TraceError, UsageError
from slimnet.tracing.trace import trace

WIDTH, DEAD = 8, (0, 3, 4)


def layer(inputs: int) -> nn.Sequential:
    """A convolution with a BatchNorm of which some channels are dead, and a ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, WIDTH, 3, padding=1), norm(WIDTH, DEAD, -1), nn.ReLU())


def cells(planes: torch.Tensor) -> torch.Tensor:
    """Planes `(N, C, H, W)` as cells `(N · H · W, C)`."""
    return planes.movedim(1, -1).flatten(0, -2)


def best(scores: torch.Tensor) -> torch.Tensor:
    """The cells whose score is above the median: how many there are depends on data in general."""
    return (scores.flatten() > scores.median()).nonzero().flatten()


def boxes(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Only boxes and scores are read behind the selection."""
    found = model.second(model.first(images))
    boxes, scores = model.boxes(found), model.scores(found)
    del found
    return cells(boxes)[best(scores)]


def in_a_dict(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Features that are held by a dictionary alone are read as well."""
    found = {"features": model.second(model.first(images))}
    found["scores"] = model.scores(found["features"])
    return cells(found["features"])[best(found["scores"])]


def on_the_stack(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Features that are held by no name at all: they wait to be an argument."""
    return torch.mul(
        cells(model.second(model.first(images))), len(best(model.scores(model.second(model.first(images)))))
    )


def through_a_view(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Of the features a view is left."""
    found = cells(model.second(model.first(images)))
    scores = found.sum(1)
    return found[best(scores)]


def as_attribute(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Features that a module holds."""
    model.second.seen = model.second(model.first(images))
    kept = best(model.scores(model.second.seen))
    return cells(model.second.seen)[kept]


def a_layer_again(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """A layer that runs in front of the selection, and behind it on something else."""
    found = model.second(model.first(images))
    kept = best(model.scores(found))
    return cells(model.boxes(model.second(model.first(images * len(kept)))))[kept]


def by_branch(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Python branches on a value."""
    found = model.boxes(model.second(model.first(images)))
    return found if float(found.sum()) > 0 else -found


def by_numpy(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The order of the scores comes from NumPy, which no op of torch tells."""
    found = model.second(model.first(images))
    boxes, scores = model.boxes(found), model.scores(found)
    del found
    return cells(boxes)[torch.from_numpy(scores.detach().cpu().numpy().ravel().argsort())]


def as_an_array(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """NumPy asks for an array of a tensor."""
    found = model.second(model.first(images))
    order = np.argsort(np.asarray(model.scores(found).flatten()))
    return cells(found)[torch.from_numpy(order)]


FORWARDS: dict[Callable[..., torch.Tensor], list[int]] = {
    boxes: [WIDTH - len(DEAD), WIDTH - len(DEAD), 4, 1],
    in_a_dict: [WIDTH - len(DEAD), WIDTH, 4, 1],
    on_the_stack: [WIDTH - len(DEAD), WIDTH, 4, 1],
    through_a_view: [WIDTH - len(DEAD), WIDTH, 4, 1],
    as_attribute: [WIDTH - len(DEAD), WIDTH, 4, 1],
    a_layer_again: [WIDTH - len(DEAD), WIDTH, 4, 1],
    by_branch: [WIDTH - len(DEAD), WIDTH - len(DEAD), 4, 1],
    by_numpy: [WIDTH - len(DEAD), WIDTH - len(DEAD), 4, 1],
    as_an_array: [WIDTH - len(DEAD), WIDTH, 4, 1],
}


def network(forward: Callable[..., torch.Tensor]) -> nn.Module:
    torch.manual_seed(0)
    heads = {"boxes": nn.Conv2d(WIDTH, 4, 1), "scores": nn.Conv2d(WIDTH, 1, 1)}
    return wired(forward, first=layer(3), second=layer(WIDTH), **heads)


@pytest.mark.parametrize("forward", FORWARDS, ids=lambda forward: forward.__name__)
def test_what_is_read_behind_the_first_such_op_stays_and_all_else_is_removed(forward):
    """Oracle: the dense network in double precision, on images that the surgery has not seen."""
    net = network(forward)
    slimmed = slimnet.slim(net, planes(3), float64=True)
    assert widths(slimmed.model) == FORWARDS[forward]
    fresh = planes(3)
    with torch.no_grad():
        expected, found = net(fresh), slimmed.model(fresh)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max() / expected.abs().max()) < EXACT
    assert slimmed.plan.stop is not None
    assert "which depends on data" in str(slimmed.plan)
    assert slimnet.SurgeryPlan.from_json(slimmed.plan.to_json()) == slimmed.plan
    if FORWARDS[forward][1] == WIDTH:
        assert "where the forward depends on data" in reasons(slimmed)


def test_the_certificate_compares_what_goes_into_the_selection():
    slimmed = slimnet.slim(network(boxes), planes(3))
    assert slimmed.plan.stop is not None
    assert slimmed.plan.stop.watched == ("boxes", "scores")
    proof = slimmed.certificate
    assert proof.values == 3 * 5 * 6 * 6
    assert proof.top1_agreement is None
    assert proof.results_unlike == 0
    assert proof.results_max_rel_difference is not None
    assert proof.results_follow is True
    assert "compared up to nonzero in the network itself" in str(proof)
    assert "the same results from the dense network's outputs there" in str(proof)
    assert slimnet.Certificate.from_json(proof.to_json()) == proof


def test_a_difference_in_front_of_the_selection_is_found():
    """Oracle: a slim network whose scores were changed, so that other boxes are selected."""
    net = network(boxes)
    slimmed = slimnet.slim(net, planes(3))
    slimmed.model.scores.weight.data.mul_(-1)
    proof = slimnet.certify(net, slimmed.model, slimmed.plan, planes(3))
    assert not proof.holds
    assert proof.max_rel_difference > 0.1
    assert proof.results_unlike == 1 or proof.results_max_rel_difference > 0.1


def test_equal_scores_may_select_other_boxes():
    """Oracle: scores that are all equal but for rounding, so that which are best is chance; the certificate holds."""

    def forward(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        found = model.boxes(model.first(images))
        noise = model.scores(model.first(images))
        return cells(found)[(cells(noise) * 1e-9 + 1).flatten().topk(5).indices + noise.sum().long().item() * 0]

    net = wired(forward, first=layer(3), scores=nn.Conv2d(WIDTH, 1, 1), boxes=nn.Conv2d(WIDTH, 4, 1)).float()
    proof = slimnet.slim(net, planes(3).float()).certificate
    assert proof.holds
    assert proof.results_follow is True


def by_a_module(model: nn.Module, found: torch.Tensor) -> torch.Tensor:
    return model.last(found)


def by_a_function(model: nn.Module, found: torch.Tensor) -> torch.Tensor:
    return nn.functional.linear(found, model.last.weight)


@pytest.mark.parametrize("last", [by_a_module, by_a_function])
def test_a_difference_behind_the_selection_is_found(last):
    """Oracle: a slim network with other weights in a layer that runs only behind the selection."""

    def forward(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        found = model.first(images)
        return last(model, cells(found)[best(model.scores(found))])

    net = wired(forward, first=layer(3), scores=nn.Conv2d(WIDTH, 1, 1), last=nn.Linear(WIDTH, 2, bias=False))
    slimmed = slimnet.slim(net, planes(3), float64=True)
    assert slimmed.certificate.results_follow is True
    slimmed.model.last.weight.data.mul_(2)
    proof = slimnet.certify(net, slimmed.model, slimmed.plan, planes(3), float64=True)
    assert proof.max_rel_difference < 1e-6
    assert not proof.holds
    if last is by_a_module:
        assert slimmed.certificate.behind_max_rel_difference < EXACT
        assert proof.behind_max_rel_difference == pytest.approx(1)
        assert proof.float64_max_rel_difference == pytest.approx(1)
        assert "layers behind it differ by 1.0e+00 on the same inputs" in str(proof)
    else:
        assert proof.behind_max_rel_difference is None
        assert proof.results_follow is False
        assert "OTHER results from the dense network's outputs there" in str(proof)


def test_a_plan_whose_compared_modules_are_missing_is_refused():
    net = network(boxes)
    slimmed = slimnet.slim(net, planes(3))
    changed = slimmed.plan.to_json().replace('"watched":["boxes","scores"]', '"watched":["heads"]')
    plan = slimnet.SurgeryPlan.from_json(changed)
    message = refused(slimnet.errors.CertificateError, 1, lambda: slimnet.certify(net, slimmed.model, plan, planes(3)))
    assert "outputs of heads, which the network does not have" in message


def test_a_plan_without_such_an_op_has_the_digest_that_it_always_had():
    """Bundles hold digests; a field that nearly no plan has must not change them."""
    assert (
        '"stop"'
        not in slimnet.slim(nn.Sequential(layer(3), nn.Conv2d(WIDTH, 2, 1)).eval(), planes(3).float()).plan.to_json()
    )


def test_it_is_refused_in_front_of_all_layers():
    net = wired(lambda model, x: model.first(x) if x.sum() > 0 else -model.first(x), first=layer(3))
    assert "depends on data" in refused(TraceError, 1, lambda: trace(net, planes(3)))


def test_a_forward_that_goes_on_after_the_error_is_refused():
    """On data there is no error, so that something else would run."""

    def forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        found = model.first(x)
        try:
            return cells(found)[best(found.sum(1))]
        except TraceError:
            return found

    net = wired(forward, first=layer(3))
    assert "goes on after an error" in refused(TraceError, 1, lambda: trace(net, planes(3)))


def test_a_network_that_cannot_be_followed_to_the_end_is_not_shrunk_while_it_trains():
    net = network(boxes)
    message = refused(UsageError, 2, lambda: slimnet.Shrinker(net, torch.optim.SGD(net.parameters(), 0.1), planes(3)))
    assert "depends on data from nonzero" in message
