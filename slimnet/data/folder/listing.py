"""The images of a folder and their classes, for the common layouts of image folders."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from slimnet.data.folder.walking import SUFFIXES, Walk
from slimnet.errors import DataError
from slimnet.storage.files import open_file, read_text

TEST_FOLDERS = ("test", "val", "valid", "validation")
ANNOTATIONS = "val_annotations.txt"
WORDS = "words.txt"
SOLUTION = "LOC_val_solution.csv"
DEVKIT = Path("ILSVRC2012_devkit_t12", "data")


@dataclass(frozen=True)
class Listing:
    """The images of a data set in a fixed order, as paths with class numbers.

    Attributes:
        folder: the folder that contains them.
        classes: names, in the order of their numbers.
        train: the training images.
        test: the test images.
        left_out: links that are not followed, with `skip_broken`.
    """

    folder: Path
    classes: tuple[str, ...]
    train: tuple[tuple[Path, int], ...]
    test: tuple[tuple[Path, int], ...]
    left_out: tuple[Path, ...] = ()


def list_images(folder: str | Path, *, skip_broken: bool = False) -> Listing:
    """Find the images of a data set: a folder of classes under `train`, and another under `test` or `val`.

    TinyImageNet's layout (`val/images` with `val_annotations.txt`) and ImageNet's (`val` without classes, next to
    Kaggle's LOC_val_solution.csv or the development kit) are supported too.

    `Walk` defines which links are followed; others are errors, or left out with `skip_broken`.

    Raises:
        DataError: the folder has another layout, an empty class, a link that is not followed, or a test image of an
            unknown class.
    """
    folder = Path(folder)
    train, test = _parts(folder)
    walk = Walk(folder, skip=skip_broken)
    walk.enter_part(train)
    walk.enter_part(test)
    names = walk.folders(train)
    if not names:
        raise DataError(f"{train} has no folders in it; give each class a folder of its images")
    numbers = {name: number for number, name in enumerate(names)}
    training, testing = list(_training_images(train, numbers, walk)), list(_test_images(folder, test, numbers, walk))
    doubles = walk.doubles()
    return Listing(
        folder,
        _readable_names(folder, names),
        tuple(each for each in training if each[0] not in doubles),
        tuple(each for each in testing if each[0] not in doubles),
        tuple(walk.left_out),
    )


def _parts(folder: Path) -> tuple[Path, Path]:
    """The folders of training and of test images; of several test folders the one with labels."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; give one with train/ and test/ (or val/) in it")
    train = folder / "train"
    tests = [folder / name for name in TEST_FOLDERS if (folder / name).is_dir() and _holds_images(folder / name)]
    if not train.is_dir() or not tests:
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "nothing"
        lacks = "test/ (or val/) with images" if train.is_dir() else "train/"
        raise DataError(f"{folder} has no {lacks}: it holds {found}; put a folder for each class in train/ and test/")
    labelled = [test for test in tests if (test / ANNOTATIONS).is_file() or _shares_a_folder(train, test)]
    # TinyImageNet and ImageNet have, besides `val`, a `test` whose labels are not published.
    return train, (labelled or tests[1:] or tests)[0]


def _shares_a_folder(train: Path, test: Path) -> bool:
    return any((train / path.name).is_dir() for path in test.iterdir() if path.is_dir())


def _holds_images(folder: Path) -> bool:
    return next(Walk(folder, skip=True).images(folder, linked=True), None) is not None


def _training_images(train: Path, numbers: Mapping[str, int], walk: Walk) -> Iterator[tuple[Path, int]]:
    for name, number in numbers.items():
        images = list(walk.images(train / name))
        if not images:
            raise DataError(f"{train / name} holds no images ({', '.join(sorted(SUFFIXES))}); delete it, or fill it")
        yield from ((path, number) for path in images)


def _test_images(folder: Path, test: Path, numbers: Mapping[str, int], walk: Walk) -> Iterator[tuple[Path, int]]:
    if any((test / name).is_dir() for name in numbers):
        names = walk.folders(test)
        for name in names:
            if name not in numbers:
                raise DataError(f"{test / name} is the folder of a class that train/ does not have; make them agree")
        yield from ((path, numbers[name]) for name in names for path in walk.images(test / name))
        return
    classes = _classes_by_file(folder, test)
    for path in walk.images(test, linked=True):
        name = classes.get(path.name) or classes.get(path.stem, "")
        if name not in numbers:
            problem = f"shows {name!r}, which train/ does not have" if name else "has no line that says what it shows"
            raise DataError(f"{path} {problem}; every test image needs one of the {len(numbers)} classes")
        yield path, numbers[name]


def _classes_by_file(folder: Path, test: Path) -> dict[str, str]:
    """The class of each test image by file name, if they are not in folders of classes."""
    if (test / ANNOTATIONS).is_file():
        lines = read_text(test / ANNOTATIONS).splitlines()
        return {fields[0]: fields[1] for fields in (line.split("\t") for line in lines) if len(fields) > 1}
    for place in (folder, folder.parent):
        if (place / SOLUTION).is_file():
            rows = csv.DictReader(read_text(place / SOLUTION).splitlines())
            return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
        if (place / DEVKIT).is_dir():
            return _from_devkit(place / DEVKIT)
    raise DataError(
        f"{test} holds images in no folders of classes, and nothing says what they show; give each class a folder, or "
        f"put TinyImageNet's {ANNOTATIONS} in it, or ImageNet's {SOLUTION} or {DEVKIT.parts[0]} beside it"
    )


def _from_devkit(devkit: Path) -> dict[str, str]:
    """ImageNet's 50,000 validation images in order, by the numbers of their synsets."""
    # Only this layout needs SciPy's reader of MATLAB files.
    from scipy.io import loadmat

    with open_file(devkit / "meta.mat") as file:
        synsets = loadmat(file, squeeze_me=True)["synsets"]
    names = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
    truth = read_text(devkit / "ILSVRC2012_validation_ground_truth.txt").split()
    return {f"ILSVRC2012_val_{n:08d}": names[int(number)] for n, number in enumerate(truth, start=1)}


def _readable_names(folder: Path, names: list[str]) -> tuple[str, ...]:
    """Class names from `words.txt`, if it exists and the names remain distinct."""
    if not (folder / WORDS).is_file():
        return tuple(names)
    lines = read_text(folder / WORDS).splitlines()
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    readable = tuple(words.get(name, name).split(",")[0] for name in names)
    return readable if len(set(readable)) == len(names) else tuple(names)
