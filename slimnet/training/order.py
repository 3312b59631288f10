"""The order in which a run sees its images: a pure function of seed and iteration."""

import numpy as np
import torch


class BatchOrder:
    """Endless shuffled passes over `count` images, cut into batches of exactly `batch_size`.

    A batch takes up where the last one stopped, across the end of a pass: no image is skipped and no short
    batch upsets BatchNorm. Any batch can be asked for directly, so a run may start anywhere.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self._count = count
        self._batch_size = batch_size
        self._seed = seed
        self._pass: tuple[int, torch.Tensor, torch.Tensor] | None = None

    def batch(self, iteration: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image numbers (int64) and whether to mirror each (bool), both `(batch_size,)`, on the CPU."""
        position = iteration * self._batch_size
        end = position + self._batch_size
        numbers, mirrored = [], []
        while position < end:
            index, offset = divmod(position, self._count)
            order, flips = self._shuffled(index)
            numbers.append(order[offset : offset + end - position])
            mirrored.append(flips[offset : offset + end - position])
            position += len(numbers[-1])
        return torch.cat(numbers), torch.cat(mirrored)

    def _shuffled(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One pass; the last one asked for is kept, since batches come in order."""
        if self._pass is None or self._pass[0] != index:
            # SeedSequence mixes the two numbers, so that neighbouring seeds share no pass.
            mixed = np.random.SeedSequence((self._seed, index)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(mixed[0] >> 1))
            order = torch.randperm(self._count, generator=generator)
            flips = torch.rand(self._count, generator=generator) < 0.5
            self._pass = (index, order, flips)
        return self._pass[1], self._pass[2]
