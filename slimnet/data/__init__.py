"""Labelled images: embedded, from a file, or from a folder."""

from pathlib import Path

from slimnet.data.folder.decode_pool import ProgressCallback
from slimnet.data.image_data import Batches, ImageData, Split
from slimnet.data.npz import load_npz
from slimnet.data.sources import CIFAR, DIGITS
from slimnet.errors import DataError

__all__ = ["Batches", "ImageData", "Split", "load_data"]


def load_data(
    source: str,
    *,
    image_size: int | None = None,
    cache: str | Path | None = None,
    download: bool = False,
    skip_broken: bool = False,
    progress: ProgressCallback | None = None,
) -> ImageData:
    """Load the data set that `source` names.

    - `digits`: embedded, 16×16, grey.
    - `cifar10`, `cifar100`, or `cifar10:ROOT`: torchvision's folder below ROOT (default: `data`), or else
      `cifar10.npz` there; with `download` it is downloaded if both are missing.
    - a path that ends in .npz: `x_train`, `y_train`, `x_test`, `y_test`.
    - a folder: `train/` and `test/` or `val/`, a folder for each class in them, or TinyImageNet's or ImageNet's
      own layout. Images are resized and cropped to `image_size` × `image_size` pixels and decoded once, into `cache`;
      unreadable ones, and links that are not followed (`data.folder.walking`), are errors, or left out and counted with
      `skip_broken`. `progress` is called with the number of decoded images and the total.

    Raises:
        DataError: the source is of no such kind, or is missing or damaged.
    """
    name, _, root = source.partition(":")
    if name in CIFAR:
        # torchvision is slow to import, and only these data sets need it.
        from slimnet.data.cifar import load_cifar

        _refuse_size(source, image_size)
        return load_cifar(name, root or None, download=download)
    if source == DIGITS:
        # scikit-learn is slow to import too.
        from slimnet.data.digits import load_digits

        _refuse_size(source, image_size)
        return load_digits()
    if source.endswith(".npz"):
        _refuse_size(source, image_size)
        return load_npz(source)
    if Path(source).is_dir():
        from slimnet.data.folder.listing import list_images
        from slimnet.data.folder.pixel_cache import packed

        return packed(
            list_images(source, skip_broken=skip_broken), image_size, cache, skip_broken=skip_broken, progress=progress
        )
    raise DataError(
        f"there is no data set {source!r}: use digits, cifar10, cifar100, the path of a FILE.npz, "
        "or a folder with train/ and test/ in it"
    )


def _refuse_size(source: str, image_size: int | None) -> None:
    if image_size is not None:
        raise DataError(f"{source} has a size of its own; image_size is for folders of images")
