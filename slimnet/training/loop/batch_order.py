"""The order in which a run sees its images: a pure function of seed and iteration."""

from typing import NamedTuple

import numpy as np
import torch


class Draw(NamedTuple):
    """The images of a batch, and the augmentation of each.

    Attributes:
        numbers: of the images, int64 `(N,)`.
        mirrored: whether to mirror each, bool `(N,)`.
        shifts: rows and columns by which to move each, int64 `(N, 2)` from −crop to crop.
    """

    numbers: torch.Tensor
    mirrored: torch.Tensor
    shifts: torch.Tensor


class BatchOrder:
    """Endless shuffled passes over `count` images, cut into batches of exactly `batch_size`.

    A batch continues where the last one stopped, across the end of a pass: no image is skipped and no short
    batch upsets BatchNorm. Any batch can be asked for directly, so a run may start anywhere.

    Where several processes train together, each has the `part` (its number, of how many) of every batch, cut
    from the same batch that one process would see. Draws are made on the CPU, whatever the `device` that they
    are then kept on, so that they are the same everywhere.
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
        """Image numbers (int64) and whether to mirror each (bool), both `(batch_size,)`."""
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
        """One pass; the last one asked for is kept, since batches come in order."""
        if self._pass is None or self._pass[0] != index:
            # SeedSequence mixes the two numbers, so that neighbouring seeds share no pass.
            mixed = np.random.SeedSequence((self._seed, index)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(mixed[0] >> 1))
            order = torch.randperm(self._count, generator=generator, device="cpu")
            flips = torch.rand(self._count, generator=generator, device="cpu") < 0.5
            # Drawn last, so that a recipe without crops sees the same order and flips as one with them.
            shifts = torch.randint(-self._crop, self._crop + 1, (self._count, 2), generator=generator, device="cpu")
            self._pass = (index, Draw(*(each.to(self._device) for each in (order, flips, shifts))))
        return self._pass[1]
