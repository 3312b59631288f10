"""CIFAR in torchvision's folder: read where its files are the published ones, refused in one line where not."""

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from slimnet.compat import torchvision
from slimnet.data import load_data
from slimnet.errors import DataError


def batch(path: Path, seed: int, labels: str, count: int = 4) -> list[str]:
    """A file such as CIFAR's, and its name and sum."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    path.write_bytes(pickle.dumps({"data": pixels, labels: list(range(count))}))
    return [path.name, hashlib.md5(path.read_bytes()).hexdigest()]


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """A tiny CIFAR-10, whose sums stand in for the published ones."""
    kind = torchvision().datasets.CIFAR10
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    train = [batch(folder / f"data_batch_{number}", number, "labels") for number in (1, 2)]
    test = [batch(folder / "test_batch", 9, "labels")]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    meta = {**kind.meta, "md5": hashlib.md5((folder / "batches.meta").read_bytes()).hexdigest()}
    for name, value in (("train_list", train), ("test_list", test), ("meta", meta)):
        monkeypatch.setattr(kind, name, value)
    return tmp_path


def test_cifars_bytes_become_images_with_their_channels_last(cifar10):
    """The oracle is the layout that CIFAR's page describes: 1024 bytes red, green and blue, row by row."""
    data = load_data(f"cifar10:{cifar10}")
    raw = np.random.default_rng(1).integers(0, 256, (4, 3072), dtype=np.uint8)
    assert data.x_train.shape == (8, 32, 32, 3)
    assert data.x_test.shape == (4, 32, 32, 3)
    assert data.x_train[1, 2, 5].tolist() == [raw[1, 1024 * channel + 2 * 32 + 5] for channel in range(3)]
    assert data.y_train.tolist() == [0, 1, 2, 3] * 2
    assert data.classes == tuple("abcdefghij")
    assert data.x_train.dtype is torch.uint8


class Malicious:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.trace,)


def test_a_file_with_another_sum_is_not_opened(cifar10):
    """CIFAR's files are pickles, which run code; a changed one never gets that far."""
    path = cifar10 / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(pickle.dumps(Malicious(cifar10 / "executed")))
    with pytest.raises(DataError, match="damaged") as caught:
        load_data(f"cifar10:{cifar10}")
    assert "\n" not in str(caught.value)
    assert not (cifar10 / "executed").exists()


@pytest.mark.parametrize("source", ["cifar10", "cifar100"])
def test_a_missing_cifar_says_where_it_was_sought_and_what_to_do(source, tmp_path):
    with pytest.raises(DataError, match=f"{source} is not there.*have it fetched with --download") as caught:
        load_data(f"{source}:{tmp_path}")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["cifar10", "digits", "some.npz"])
def test_data_of_one_size_refuse_another(source):
    with pytest.raises(DataError, match="image_size is for folders"):
        load_data(source, image_size=8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "a named pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: (path.touch(), os.truncate(path, 1 << 40)), "more than"),
    ],
)
@pytest.mark.parametrize("name", ["data_batch_2", "test_batch", "batches.meta"])
def test_what_is_no_file_or_has_no_end_is_refused_before_its_sum_is_made(cifar10, make, message, name):
    path = cifar10 / torchvision().datasets.CIFAR10.base_folder / name
    path.unlink()
    make(path)
    with pytest.raises(DataError, match=message):
        load_data(f"cifar10:{cifar10}")


def npz(path: Path, *, shape: tuple[int, ...] = (32, 32, 3), classes: int = 10) -> np.ndarray:
    """An image of each class, for training and for testing; returns the training images."""
    pixels = np.random.default_rng(5).integers(0, 256, (classes, *shape), dtype=np.uint8)
    labels = np.arange(classes)
    path.parent.mkdir(exist_ok=True)
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    return pixels


def test_without_torchvisions_folder_an_npz_is_found_in_data(tmp_path, monkeypatch):
    """Oracle: the bytes in the file; a folder that is there comes first, be it damaged."""
    pixels = npz(tmp_path / "data" / "cifar10.npz")
    monkeypatch.chdir(tmp_path)
    for source in ("cifar10", f"cifar10:{tmp_path / 'data'}"):
        assert np.array_equal(load_data(source).x_train.numpy(), pixels)
    (tmp_path / "data" / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match="its files are damaged"):
        load_data("cifar10")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"shape": (28, 28, 1)}, "has images of 28 × 28 × 1 in 10 classes, and cifar10 has 32 × 32 × 3 in 10; to use"),
        ({"classes": 7}, "has images of 32 × 32 × 3 in 7 classes, and cifar10 has 32 × 32 × 3 in 10; to use"),
        (None, "not a readable .npz"),
    ],
)
def test_an_npz_of_other_images_is_not_taken_for_cifar(content, message, tmp_path):
    path = tmp_path / "cifar10.npz"
    if content is None:
        path.write_bytes(b"half")
    else:
        npz(path, **content)
    with pytest.raises(DataError, match=message) as caught:
        load_data(f"cifar10:{tmp_path}")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
