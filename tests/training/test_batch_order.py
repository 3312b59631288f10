"""The order of the images in training, and which of them are flipped."""

import pytest
import torch
from runs import finished, images, recipe
from torch import nn

from slimnet.training import train
from slimnet.training.loop.batch_order import BatchOrder

pytestmark = pytest.mark.usefixtures("one_thread")


class Recording(nn.Module):
    """Remembers every training batch that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.append(x.detach())
        return self.bias.expand(len(x), 3)


@pytest.mark.parametrize(("count", "batch_size"), [(12, 5), (12, 12), (3, 10), (1, 4)])
def test_every_pass_shows_every_image_once(count, batch_size):
    order = BatchOrder(count, batch_size, seed=7)
    batches = [order.batch(iteration)[0] for iteration in range(4 * count)]
    assert {len(batch) for batch in batches} == {batch_size}
    for one_pass in torch.cat(batches).split(count):
        assert sorted(one_pass.tolist()) == list(range(count))


def test_a_batch_depends_on_seed_and_iteration_alone():
    forward = [BatchOrder(12, 5, seed=7).batch(iteration) for iteration in range(9)]
    order = BatchOrder(12, 5, seed=7)
    for iteration in reversed(range(9)):
        assert all(map(torch.equal, order.batch(iteration), forward[iteration]))


def test_every_pass_and_every_seed_has_its_own_order_and_flips():
    """There are 3.6 million orders of ten images: sixteen drawn at random all differ."""
    drawn = [BatchOrder(10, 10, seed).batch(one_pass) for seed in range(4) for one_pass in range(4)]
    assert len({tuple(numbers.tolist()) for numbers, _ in drawn}) == 16
    assert len({tuple(mirrored.tolist()) for _, mirrored in drawn}) > 10


@pytest.mark.parametrize("flips", [False, True])
def test_flips_mirror_about_half_of_the_images_and_nothing_else(flips):
    data = images()
    run = train(recipe(arch=f"{__name__}:Recording", arch_args={}, iterations=48, flips=flips), data)
    finished(run)
    plain = data.normalise(data.x_train)
    order = BatchOrder(12, 5, seed=0)
    mirrored = 0
    for iteration, batch in enumerate(run.model.seen):
        for number, image in zip(order.batch(iteration)[0], batch, strict=True):
            if not torch.equal(image, plain[number]):
                assert torch.equal(image, plain[number].flip(2))
                mirrored += 1
    assert 90 < mirrored < 150 if flips else mirrored == 0
