"""Traversal of the folders of a data set: its images in a fixed order, each once, whatever links there are."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from slimnet.errors import DataError

SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"])
AGAIN = "which holds the data set or is in it, so that images would count twice"


class Walk:
    """The traversal of one data set, which enters no folder twice and decides which links are followed.

    * A link to a file outside the data set is followed; one to an image of the data set itself is refused.
    * A link to a folder is followed if it is the folder of the training or test images, or of a class, and its target
      neither contains these nor is in them. Deeper links to folders, and broken links, are refused.

    Attributes:
        left_out: the refused links, with `skip`.

    Raises:
        DataError: a link is refused, without `skip`.
    """

    def __init__(self, folder: Path, *, skip: bool) -> None:
        self._skip = skip
        self._roots = [os.path.realpath(folder)]
        self._seen: dict[str, Path] = {}
        self._links: dict[Path, str] = {}
        self.left_out: list[Path] = []

    def enter_part(self, folder: Path) -> None:
        """Enter the folder of the training or of the test images.

        Raises:
            DataError: it is the same folder as the other one, or a link to a folder that contains it.
        """
        real = os.path.realpath(folder)
        if any(_holds(real, root) for root in self._roots) or any(_holds(root, real) for root in self._roots[1:]):
            raise DataError(f"{folder} is a link to {real}, {AGAIN}; put the images there that are meant")
        self._roots.append(real)
        self._seen[real] = folder

    def folders(self, part: Path) -> list[str]:
        """Enter the folders of a part, except hidden ones; returns their names in order."""
        entries = [entry for entry in _entries(part) if self._is_folder(entry)]
        return [entry.name for entry in entries if self.enter(Path(entry.path), linked=True)]

    def enter(self, folder: Path, *, linked: bool) -> bool:
        """Whether to traverse a folder: only once, and a link only if it may be `linked`."""
        real = os.path.realpath(folder)
        if folder.is_symlink():
            if not linked:
                return self._refuse(folder, f"is a link to the folder {real}, and only that of a class may be one")
            if any(_holds(real, root) for root in self._roots) or any(_holds(root, real) for root in self._roots[1:]):
                return self._refuse(folder, f"is a link to {real}, {AGAIN}")
        if real in self._seen:
            return self._refuse(folder, f"is the folder {self._seen[real]} again")
        self._seen[real] = folder
        return True

    def images(self, folder: Path, *, linked: bool = False) -> Iterator[Path]:
        """The image files below a folder that was entered, in the order of their names, except hidden ones.

        The folders directly in it may be links if `linked`; deeper ones may not.
        """
        waiting = [iter(_entries(folder))]
        while waiting:
            entry = next(waiting[-1], None)
            if entry is None:
                waiting.pop()
            elif self._is_folder(entry):
                if self.enter(Path(entry.path), linked=linked and len(waiting) == 1):
                    waiting.append(iter(_entries(entry.path)))
            elif Path(entry.name).suffix.lower() in SUFFIXES:
                path = Path(entry.path)
                if entry.is_symlink():
                    self._links[path] = os.path.realpath(path)
                yield path

    def doubles(self) -> set[Path]:
        """The links among the images to other images of the data set; call it after the traversal."""
        found = set()
        for link, real in self._links.items():
            folder, name = os.path.split(real)
            is_image = not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES and os.path.isfile(real)
            if is_image and folder in self._seen:
                self._refuse(link, f"is a link to {self._seen[folder] / name}, {AGAIN}")
                found.add(link)
        return found

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        if not entry.is_symlink():
            return entry.is_dir()
        if not os.path.exists(entry.path) and Path(entry.name).suffix.lower() not in SUFFIXES:
            self._refuse(Path(entry.path), "is a link that leads nowhere")
        return os.path.isdir(entry.path)

    def _refuse(self, path: Path, why: str) -> bool:
        if not self._skip:
            raise DataError(f"{path} {why}; delete it, or leave it out with --skip-broken")
        self.left_out.append(path)
        return False


def _entries(folder: str | Path) -> Iterable[os.DirEntry[str]]:
    """The entries of a folder that are not hidden, in the order of their names."""
    with os.scandir(folder) as found:
        return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _holds(folder: str, inner: str) -> bool:
    """Whether a folder is or contains another; both paths are resolved."""
    return Path(inner).is_relative_to(folder)
