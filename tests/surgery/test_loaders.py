"""Loaders: what can be gone through again is, and what cannot is refused before anything is done with it."""

import pytest
import torch
from bundles import images, small_net

import slimnet
from slimnet.errors import UsageError
from slimnet.modules.loaders import RepeatedLoader

ONCE = {
    "a generator": lambda: (images(seed=seed) for seed in range(2)),
    "an iterator": lambda: iter([images()]),
    "a map": lambda: map(images, [2, 3]),
    "a zip": lambda: zip([images()], [torch.zeros(3, dtype=torch.long)], strict=True),
}


@pytest.mark.parametrize("criterion", ["gamma", "activation"])
@pytest.mark.parametrize("kind", ONCE)
def test_what_gives_its_batches_once_is_refused_at_once(kind, criterion):
    loader = ONCE[kind]()
    with pytest.raises(UsageError, match=r"^loader is a \w+, which gives its batches once, but they are needed more"):
        slimnet.slim(small_net(), images(), criterion=criterion, loader=loader)
    assert next(iter(loader)) is not None, "nothing was taken from it"


@pytest.mark.parametrize("criterion", ["gamma", "activation"])
def test_what_can_be_gone_through_again_is(criterion):
    """Oracle: the number of examples in the certificate."""
    data = torch.utils.data.DataLoader(images(5), batch_size=2)
    for loader, samples in ((data, 5), ([images(), images(2)], 5), (RepeatedLoader([images()]), 3)):
        slimmed = slimnet.slim(small_net(), images(), criterion=criterion, loader=loader, tolerance=1.0)
        assert slimmed.certificate.samples == samples


class Spent:
    """Looks as if it could be gone through again, and gives nothing then."""

    def __init__(self) -> None:
        self.batches = iter([images()])

    def __iter__(self):
        return self.batches


def test_a_loader_that_gives_nothing_the_second_time_is_named_as_that():
    with pytest.raises(UsageError, match=r"^the loader gave batches once and now gives none"):
        slimnet.slim(small_net(), images(), criterion="activation", loader=Spent())


@pytest.mark.parametrize("loader", [3, object()])
def test_what_is_no_loader_is_refused(loader):
    with pytest.raises(UsageError, match=r"^loader is a \w+; pass a data loader"):
        slimnet.slim(small_net(), images(), loader=loader)


def test_where_once_is_enough_a_generator_will_do(tmp_path, operators_read_once):
    dense = small_net()
    slimmed = slimnet.slim(dense, images())
    slimnet.save(slimmed, tmp_path / "slim")
    assert slimnet.certify(dense, slimmed.model, slimmed.plan, ONCE["a generator"]()).samples == 6
    assert slimnet.verify_bundle(tmp_path / "slim", dense=dense, loader=ONCE["a generator"]()).measured.samples == 6
