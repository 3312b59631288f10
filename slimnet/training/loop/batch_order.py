"""The order of the training images in a run: a pure function of seed and iteration."""

from typing import NamedTuple

import numpy as np
import torch


class Draw(NamedTuple):
    """The images of a batch, and the augmentation of each.

    Attributes:
        numbers: indices of the images, int64 `(N,)`.
        mirrored: whether to mirror each, bool `(N,)`.
        shifts: rows and columns by which to move each, int64 `(N, 2)` from −crop to crop.
    """

    numbers: torch.Tensor
    mirrored: torch.Tensor
    shifts: torch.Tensor


class BatchOrder:
    """Endless shuffled passes over `count` images, divided into batches of exactly `batch_size`.

    A batch continues where the last one stopped, across the end of a pass: no image is skipped, and there is no
    short batch, which would change the statistics of BatchNorm. Every batch can be computed directly, so that a run
    can start at any iteration.

    If several processes train together, each has its `part` (its index and their number) of the batch that a single
    process would have. Draws are made on the CPU and then moved to `device`, so that they do not depend on it.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        *,
        crop: int = 0,
        part: tuple[int, int] = (0, 1),
        device: torch.device | str = "cpu",
    ) -> None:
        self._count = count
        self._batch_size = batch_size
        self._seed = seed
        self._crop = crop
        self._share = batch_size // part[1]
        self._offset = part[0] * self._share
        self._device = torch.device(device)
        self._pass: tuple[int, Draw] | None = None

    def batch(self, iteration: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image indices (int64) and whether to mirror each (bool), both `(batch_size,)`."""
        draw = self.draw(iteration)
        return draw.numbers, draw.mirrored

    def draw(self, iteration: int) -> Draw:
        """This process's part of the batch of one iteration."""
        position = iteration * self._batch_size + self._offset
        end = position + self._share
        pieces = []
        while position < end:
            index, offset = divmod(position, self._count)
            piece = slice(offset, min(self._count, offset + end - position))
            pieces.append([each[piece] for each in self._shuffled(index)])
            position += piece.stop - piece.start
        return Draw(*pieces[0]) if len(pieces) == 1 else Draw(*map(torch.cat, zip(*pieces, strict=True)))

    def _shuffled(self, index: int) -> Draw:
        """One pass; the last one is cached, since batches are requested in order."""
        if self._pass is None or self._pass[0] != index:
            # SeedSequence mixes the two numbers, so that adjacent seeds have no pass in common.
            mixed = np.random.SeedSequence((self._seed, index)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(mixed[0] >> 1))
            order = torch.randperm(self._count, generator=generator, device="cpu")
            flips = torch.rand(self._count, generator=generator, device="cpu") < 0.5
            # Drawn last, so that a recipe without crops has the same order and flips as one with them.
            shifts = torch.randint(-self._crop, self._crop + 1, (self._count, 2), generator=generator, device="cpu")
            self._pass = (index, Draw(*(each.to(self._device) for each in (order, flips, shifts))))
        return self._pass[1]
