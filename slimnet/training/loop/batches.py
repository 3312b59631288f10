"""The training images of a run in batches: gathered, mirrored, shifted and normalised on its device."""

from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch.nn import functional

from slimnet.data import ImageData
from slimnet.data.image_spec import factors_of
from slimnet.errors import UsageError
from slimnet.training.loop.batch_order import BatchOrder, Draw
from slimnet.training.recipe.recipe import Recipe

Tensors = tuple[torch.Tensor, ...]


class TrainingBatches(ABC):
    """The batches of a run, made in two steps: `bring` transfers data, `assemble` computes on the device.

    Raises:
        UsageError: the recipe moves images by their whole size or more.
    """

    def __init__(self, data: ImageData, recipe: Recipe, device: torch.device) -> None:
        height, width = data.x_train.shape[1:3]
        if recipe.crop >= min(height, width) > 0:
            raise UsageError(
                f"crop is {recipe.crop}, but images of {height} × {width} pixels moved that far show nothing; "
                f"it must be below {min(height, width)}"
            )
        self._recipe = recipe
        # Created once: creating a tensor from numbers copies from the host, for which a GPU would have to wait.
        self._scale, self._shift = (
            torch.tensor(factors, device=device)[:, None, None] for factors in factors_of(data.mean, data.std)
        )

    @abstractmethod
    def bring(self, iteration: int) -> Tensors:
        """Transfer the data of one iteration's batch to the device; the shapes are always the same."""

    @abstractmethod
    def assemble(self, brought: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images `(N, C, H, W)`, augmented according to the recipe, and their labels `(N,)`."""

    def _finished(self, pixels: torch.Tensor, draw: Draw) -> torch.Tensor:
        """Bytes `(N, H, W, C)` augmented and normalised, as floats `(N, C, H, W)` in channels_last format."""
        if self._recipe.crop:
            pixels = moved(pixels, draw.shifts, self._recipe.crop)
        if self._recipe.flips:
            pixels = torch.where(draw.mirrored[:, None, None, None], pixels.flip(2), pixels)
        floats = pixels.permute(0, 3, 1, 2).to(torch.float32)
        return floats.mul_(self._scale).add_(self._shift)


class ResidentBatches(TrainingBatches):
    """Batches of images that are all stored on the device: only their indices are transferred."""

    def __init__(self, data: ImageData, recipe: Recipe, device: torch.device, part: tuple[int, int]) -> None:
        super().__init__(data, recipe, device)
        self._images, self._labels = data.x_train.to(device), data.y_train.to(device)
        self._order = order_of(data, recipe, part, device)

    def bring(self, iteration: int) -> Tensors:
        """Image indices, whether to mirror each, and the shift of each."""
        return self._order.draw(iteration)

    def assemble(self, brought: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Gather, augment and normalise the images."""
        draw = Draw(*brought)
        return self._finished(self._images[draw.numbers], draw), self._labels[draw.numbers]


class HostBatches(TrainingBatches):
    """Batches of images that are on the host or its disk: their bytes are transferred, one batch ahead."""

    def __init__(self, data: ImageData, recipe: Recipe, device: torch.device, part: tuple[int, int]) -> None:
        super().__init__(data, recipe, device)
        self._data, self._device = data, device
        self._order = order_of(data, recipe, part, torch.device("cpu"))
        self._reader = ThreadPoolExecutor(1, "slimnet-reader")
        self._ahead: tuple[int, Future[Tensors]] | None = None

    def bring(self, iteration: int) -> Tensors:
        """Bytes and labels, and the augmentation of each image."""
        if self._ahead is None or self._ahead[0] != iteration:
            self._ahead = (iteration, self._reader.submit(self._read, iteration))
        ready = self._ahead[1].result()
        self._ahead = (iteration + 1, self._reader.submit(self._read, iteration + 1))
        return tuple(each.to(self._device, non_blocking=True) for each in ready)

    def assemble(self, brought: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment and normalise the images."""
        pixels, labels, *rest = brought
        return self._finished(pixels, Draw(*rest)), labels

    def _read(self, iteration: int) -> Tensors:
        draw = self._order.draw(iteration)
        found = (self._data.x_train[draw.numbers], self._data.y_train[draw.numbers], *draw)
        return tuple(each.pin_memory() for each in found) if self._device.type == "cuda" else found


def batches_of(data: ImageData, recipe: Recipe, device: torch.device, part: tuple[int, int]) -> TrainingBatches:
    """The batches of a recipe; `part` is this process's index, and the number of processes that train together."""
    kind = ResidentBatches if fits(data, device) else HostBatches
    return kind(data, recipe, device, part)


def fits(data: ImageData, device: torch.device) -> bool:
    """Whether all training images fit on the device, with at least as much free memory for the network."""
    if data.mapped or device.type != "cuda":
        return not data.mapped
    free, _ = torch.cuda.mem_get_info(device)
    return data.x_train.numel() <= free // 2


def order_of(data: ImageData, recipe: Recipe, part: tuple[int, int], device: torch.device) -> BatchOrder:
    """The order of the training images in a recipe, stored on `device`."""
    count = len(data.x_train)
    return BatchOrder(count, recipe.batch_size, recipe.seed, crop=recipe.crop, part=part, device=device)


def moved(pixels: torch.Tensor, shifts: torch.Tensor, most: int) -> torch.Tensor:
    """Images `(N, H, W, C)` shifted by whole pixels, with black padding.

    `shifts` `(N, 2)`, from −`most` to `most`, are the row and column of the old image that become the upper left
    corner. This is equivalent to padding by `most` and random cropping (Network Slimming).
    """
    _, height, width, _ = pixels.shape
    padded = functional.pad(pixels, (0, 0, most, most, most, most))
    windows = padded.unfold(1, height, 1).unfold(2, width, 1).permute(0, 1, 2, 4, 5, 3)
    images = torch.arange(len(pixels), device=pixels.device)
    return windows[images, shifts[:, 0] + most, shifts[:, 1] + most]
