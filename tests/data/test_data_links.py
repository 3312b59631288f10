"""What a folder of images may hold beside them: links of every kind, and files that are none."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from slimnet_cli.options.data import Reading
from test_data_folders import folder_of, load, picture, refused

from slimnet.data.folder.listing import list_images

Make = Callable[[Path], object]


def link(path: Path, target: Path | str, *more: tuple[Path, str]) -> Path:
    """A link at a path, where nothing may be yet or an empty folder; and others."""
    path.symlink_to(target)
    for each, other in more:
        each.symlink_to(other)
    return path


def to_the_other_part(root: Path) -> Path:
    return link(root / "train" / "c", "../test/a")


def to_the_parent(root: Path) -> Path:
    return link(root / "train" / "c", "..")


def to_the_data_set(root: Path) -> Path:
    return link(root / "train" / "c", root)


def to_everything(root: Path) -> Path:
    return link(root / "train" / "c", "/")


def to_a_sibling(root: Path) -> Path:
    return link(root / "test" / "a2", "a")


def below_a_class_to_its_parent(root: Path) -> Path:
    return link(root / "train" / "a" / "deeper", "../..")


def below_a_class_out_of_the_folder(root: Path) -> Path:
    picture(root.parent / "elsewhere" / "9.png", 9)
    return link(root / "train" / "a" / "deeper", root.parent / "elsewhere")


def from_a_class_to_itself(root: Path) -> Path:
    return link(root / "train" / "a" / "deeper", ".")


def to_nowhere(root: Path) -> Path:
    return link(root / "train" / "c", "missing")


def to_itself(root: Path) -> Path:
    return link(root / "train" / "c", "c")


def of_an_image_to_a_test_image(root: Path) -> Path:
    return link(root / "train" / "a" / "9.png", root / "test" / "b" / "0.png")


def of_an_image_to_its_neighbour(root: Path) -> Path:
    return link(root / "train" / "a" / "9.png", "0.png")


LINKS: tuple[tuple[Callable[[Path], Path], str], ...] = (
    (to_the_other_part, "is a link to .*test/a, which holds the data set or is in it"),
    (to_the_parent, "is a link to .*pets, which holds the data set"),
    (to_the_data_set, "is a link to .*pets, which holds the data set"),
    (to_everything, "is a link to /, which holds the data set"),
    (to_a_sibling, "is a link to .*test/a, which holds the data set or is in it"),
    (below_a_class_to_its_parent, "is a link to the folder .*pets, and only that of a class may be one"),
    (below_a_class_out_of_the_folder, "is a link to the folder .*elsewhere, and only that of a class may be one"),
    (from_a_class_to_itself, "is a link to the folder .*train/a, and only that of a class may be one"),
    (to_nowhere, "is a link that leads nowhere"),
    (to_itself, "is a link that leads nowhere"),
    (of_an_image_to_a_test_image, "is a link to .*test/b/0.png, which holds the data set or is in it"),
    (of_an_image_to_its_neighbour, "is a link to .*train/a/0.png, which holds the data set or is in it"),
)


@pytest.mark.parametrize(("make", "message"), LINKS, ids=lambda given: getattr(given, "__name__", ""))
def test_a_link_that_would_count_images_twice_is_refused_by_name(make, message, tmp_path):
    place = make(folder_of(tmp_path / "pets"))
    assert refused(tmp_path / "pets", message).startswith(f"{place} is a link")


@pytest.mark.parametrize(("make", "message"), LINKS, ids=lambda given: getattr(given, "__name__", ""))
def test_a_link_that_is_not_followed_is_left_out_and_counted_when_asked_for(make, message, tmp_path):
    """Oracle: the same folder without it."""
    place = make(folder_of(tmp_path / "pets"))
    data = load(tmp_path / "pets", skip_broken=True)
    alone = load(folder_of(tmp_path / "other" / "pets"))
    assert torch.equal(data.x_train, alone.x_train)
    assert torch.equal(data.x_test, alone.x_test)
    assert (data.y_train.tolist(), data.y_test.tolist()) == (alone.y_train.tolist(), alone.y_test.tolist())
    assert (data.classes, data.left_out, alone.left_out) == (alone.classes, 1, 0)
    (index,) = (tmp_path / "cache").glob("*/index.json")
    assert json.loads(index.read_text())["left_out"] == [str(place.relative_to(tmp_path / "pets"))]


def test_classes_parts_images_and_the_whole_may_be_links_to_elsewhere(tmp_path):
    """People keep a subset of ImageNet as links to its classes, and hubs keep every file as a link."""
    whole = folder_of(tmp_path / "store" / "pets")
    subset = tmp_path / "subset"
    for part in ("train", "test"):
        (subset / part).mkdir(parents=True)
        (subset / part / "a").symlink_to(whole / part / "a")
        (subset / part / "b").mkdir()
        for path in (whole / part / "b").iterdir():
            (subset / part / "b" / path.name).symlink_to(path)
    parts = tmp_path / "parts"
    parts.mkdir()
    for part in ("train", "test"):
        (parts / part).symlink_to(whole / part)
    (tmp_path / "linked").symlink_to(whole)
    expected = load(whole)
    for folder in (subset, parts, tmp_path / "linked"):
        data = load(folder)
        assert torch.equal(data.x_train, expected.x_train)
        assert torch.equal(data.x_test, expected.x_test)
        assert data.left_out == 0


def test_a_link_to_an_image_that_is_in_no_class_stands_for_it(tmp_path):
    """A pool of images inside the folder, beside the classes."""
    root = folder_of(tmp_path / "pets")
    picture(root / "pool" / "9.png", 9)
    (root / "train" / "a" / "9.png").symlink_to("../../pool/9.png")
    assert len(load(root).x_train) == 7


@pytest.mark.parametrize(
    "make",
    [
        lambda root: [(root / "test").rename(root / "old"), (root / "test").symlink_to("train")],
        lambda root: [(root / "train").rename(root / "old"), (root / "train").symlink_to(".")],
        lambda root: [(root / "test").rename(root / "old"), (root / "test").symlink_to("train/a")],
    ],
)
def test_parts_that_overlap_are_refused(make: Make, tmp_path):
    """Not even left out: without it there is no data set."""
    root = folder_of(tmp_path / "pets")
    picture(root / "train" / "a" / "a" / "0.png")
    make(root)
    for skip in (False, True):
        refused(root, r"pets/t(rain|est) is a link to .*, which holds the data set or is in it", skip_broken=skip)


def test_two_classes_that_are_the_same_folder_are_refused(tmp_path):
    picture(tmp_path / "elsewhere" / "9.png", 9)
    root = folder_of(tmp_path / "pets")
    for name in "cd":
        (root / "train" / name).symlink_to(tmp_path / "elsewhere")
    refused(root, r"train/d is the folder .*train/c again")


@pytest.fixture
def irregular(tmp_path) -> Iterator[Path]:
    """A data set with images that are none: a pipe, a socket, a device, a folder and links to nowhere."""
    root = folder_of(tmp_path / "pets")
    os.mkfifo(root / "train" / "a" / "pipe.png")
    (root / "train" / "a" / "zeros.png").symlink_to("/dev/zero")
    (root / "train" / "b" / "nowhere.png").symlink_to("missing.png")
    (root / "test" / "b" / "itself.png").symlink_to("itself.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "train" / "a" / "socket.png"))
        yield root


def test_files_that_are_no_files_are_counted_as_unreadable_images(irregular):
    """None is waited for, and /dev/zero is not read to its end."""
    message = refused(irregular, "5 of 15 images cannot be read")
    assert "pipe.png (it is a named pipe, not a regular file)" in message
    assert "socket.png (it is a socket, not a regular file)" in message
    assert "zeros.png (it is a device, not a regular file)" in message


def test_files_that_are_no_files_are_left_out_when_asked_for(irregular, capsys):
    data = Reading(cache=str(irregular.parent / "cache"), skip_broken=True).load(str(irregular), None)
    assert (len(data.x_train), len(data.x_test), data.left_out) == (6, 4, 5)
    assert f"5 files of {irregular} are left out" in capsys.readouterr().err


def test_the_images_of_a_folder_come_in_the_order_of_their_names_however_deep(tmp_path):
    """Oracle: a recursion, which a depth of thousands would end."""

    def expected(folder: Path) -> Iterator[Path]:
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                yield from expected(path)
            else:
                yield path

    root = folder_of(tmp_path / "pets")
    for name in ("1/x.png", "1.png", "0/deep/er/y.PNG", "z/0.jpg"):
        picture(root / "train" / "a" / Path(name).with_suffix(".png")).rename(root / "train" / "a" / name)
    listed = [path for path, label in list_images(root).train if label == 0]
    assert listed == list(expected(root / "train" / "a"))


def test_a_hidden_folder_does_not_hide_a_class_that_is_missing(tmp_path):
    root = folder_of(tmp_path / "pets")
    (root / "test" / ".cache").mkdir()
    picture(root / "test" / "c" / "0.png")
    refused(root, "test/c is the folder of a class that train/ does not have")
