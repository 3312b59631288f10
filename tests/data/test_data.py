"""Image data: the embedded digits, .npz files, and everything that can be wrong with one."""

import io
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import datasets
from torch.nn import functional

from slimnet.data import Batches, ImageData, load_data
from slimnet.data import digits as reading_digits
from slimnet.errors import DataError, UsageError


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_data("digits")


def colours(seed: int = 0, **changes: np.ndarray) -> dict[str, np.ndarray]:
    """Random arrays of a good .npz: 20 training and 8 test images of 6 × 5 pixels in 3 classes."""
    random = np.random.RandomState(seed)
    arrays = {}
    for split, count in (("train", 20), ("test", 8)):
        arrays[f"x_{split}"] = random.randint(0, 256, (count, 6, 5, 3)).astype(np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 3
    return {**arrays, **changes}


def written(folder: Path, **arrays: np.ndarray) -> str:
    path = folder / "images.npz"
    np.savez(path, **arrays)
    return str(path)


def image_data(**changes: torch.Tensor) -> ImageData:
    parts = {name: torch.from_numpy(array) for name, array in colours().items()} | changes
    pairs = ((parts[f"x_{split}"], parts[f"y_{split}"]) for split in ("train", "test"))
    return ImageData.of("colours", *pairs, classes=["a", "b", "c"])


def test_digits_are_the_originals_interpolated(digits):
    """The oracle is torch's bilinear interpolation of scikit-learn's images, to within rounding."""
    original = datasets.load_digits()
    floats = torch.from_numpy(original.images)[:, None] * (255 / 16)
    doubled = functional.interpolate(floats, scale_factor=2, mode="bilinear", align_corners=False)[:, 0]
    for images, labels in (digits.split("train"), digits.split("test")):
        distance = torch.cdist(images.flatten(1).double(), doubled.flatten(1), p=torch.inf)
        nearest = distance.min(dim=1)
        assert nearest.values.max() <= 0.51
        assert np.array_equal(original.target[nearest.indices], labels)


def test_digits_are_read_without_importing_scikit_learn_where_their_file_is(digits, monkeypatch):
    """Importing it takes seconds. Oracle: scikit-learn's own reading."""
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    images, labels = reading_digits._originals()
    monkeypatch.undo()
    monkeypatch.setattr(reading_digits, "_file", lambda: None)
    for ours, theirs in zip((images, labels), reading_digits._originals(), strict=True):
        assert ours.dtype == theirs.dtype == np.int64
        assert np.array_equal(ours, theirs)


def test_digits_are_split_once_by_class(digits):
    assert (len(digits.x_train), len(digits.x_test)) == (1438, 359)
    everywhere = torch.cat([digits.y_train, digits.y_test]).bincount()
    assert everywhere.tolist() == np.bincount(datasets.load_digits().target).tolist()
    assert (digits.y_test.bincount() - everywhere / 5).abs().max() <= 0.5
    rows = torch.cat([digits.x_train, digits.x_test]).flatten(1)
    assert len(rows.unique(dim=0)) == len(np.unique(datasets.load_digits().data, axis=0))


def test_digits_are_the_same_bytes_every_time(digits):
    again = load_data("digits")
    assert torch.equal(again.x_test, digits.x_test)
    assert torch.equal(again.y_train, digits.y_train)
    assert digits.y_test[:12].tolist() == [3, 7, 3, 9, 0, 8, 7, 0, 8, 0, 3, 3]
    assert digits.classes == tuple("0123456789")


def test_normalised_training_images_have_mean_zero_and_variance_one():
    data = image_data()
    images = torch.cat([inputs for inputs, _ in data.batches("train", 7)])
    assert images.shape == (20, 3, 6, 5)
    floats = data.x_train.numpy().astype(np.float64).transpose(0, 3, 1, 2)
    mean, std = floats.mean(axis=(0, 2, 3), keepdims=True), floats.std(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(images.numpy(), (floats - mean) / std, rtol=1e-5, atol=1e-6)


def test_normalised_images_are_float32_and_channels_last():
    images = image_data().normalise(image_data().x_test)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_statistics_do_not_depend_on_how_the_images_are_counted(monkeypatch):
    whole = image_data()
    monkeypatch.setattr("slimnet.data.image_data._STATISTICS_CHUNK", 3)
    assert (image_data().mean, image_data().std) == (whole.mean, whole.std)


def test_a_constant_channel_is_not_divided_by_zero():
    data = image_data(x_train=torch.full((20, 6, 5, 3), 255, dtype=torch.uint8))
    assert (data.mean, data.std) == ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))


def test_batches_cover_a_split_in_order():
    data = image_data()
    batches = list(data.batches("test", 3))
    assert [len(labels) for _, labels in batches] == [3, 3, 2]
    assert torch.equal(torch.cat([labels for _, labels in batches]), data.y_test)
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), data.normalise(data.x_test))


def test_batches_can_be_gone_through_again_and_say_how_far_that_is():
    data, reported = image_data(), []
    batches = Batches(data, "test", 3, progress=lambda *counts: reported.append(counts))
    for _ in range(2):
        assert torch.equal(torch.cat([inputs for inputs, _ in batches]), data.normalise(data.x_test))
    assert reported == [(3, 8), (6, 8), (8, 8)] * 2


@pytest.mark.parametrize(("count", "sizes"), [(5, [3, 2]), (8, [4, 4]), (9, [3, 3, 3]), (100, [4, 4, 4, 4, 4])])
def test_a_sample_is_spread_over_the_training_images_in_batches_alike(count, sizes):
    data = image_data()
    batches = list(data.sample(count, batch_size=4))
    assert [len(batch) for batch in batches] == sizes
    whole = next(data.batches("train", 20))[0]
    found = [int((whole == image).flatten(1).all(1).nonzero()) for image in torch.cat(batches)]
    assert found == sorted(set(found))
    assert found[0] == 0
    assert found[-1] == 19


@pytest.mark.parametrize(("count", "rows"), [(1, [0]), (3, [0, 3, 7]), (8, list(range(8))), (100, list(range(8)))])
def test_fewer_test_images_are_spread_over_all_of_them(count, rows):
    data = image_data()
    fewer = data.with_fewer_tests(count)
    assert torch.equal(fewer.x_test, data.x_test[rows])
    assert torch.equal(fewer.y_test, data.y_test[rows])
    assert fewer.x_train is data.x_train


def test_wrong_requests_are_refused():
    data = image_data()
    with pytest.raises(UsageError, match="no split 'val': use train or test"):
        data.split("val")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="batch_size is 0"):
        data.batches("test", 0)
    with pytest.raises(DataError, match=r"cannot normalise float32 of shape \(8, 6, 5, 3\)"):
        data.normalise(data.x_test.float())


def test_an_npz_file_is_read_as_it_was_written(tmp_path):
    arrays = colours(classes=np.array(["ant", "bee", "cat"]))
    data = load_data(written(tmp_path, **arrays))
    for name in ("x_train", "y_train", "x_test", "y_test"):
        assert np.array_equal(getattr(data, name).numpy(), arrays[name])
    assert data.classes == ("ant", "bee", "cat")
    assert (data.name, data.channels, data.image_size) == ("images.npz", 3, (6, 5))


def test_compressed_fortran_and_big_endian_arrays_are_read_too(tmp_path):
    arrays = colours()
    path = tmp_path / "odd.npz"
    odd = {"x_train": np.asfortranarray(arrays["x_train"]), "y_test": arrays["y_test"].astype(">i2")}
    np.savez_compressed(path, **{**arrays, **odd})
    data = load_data(str(path))
    assert np.array_equal(data.x_train.numpy(), arrays["x_train"])
    assert np.array_equal(data.y_test.numpy(), arrays["y_test"])


@pytest.mark.parametrize(
    ("names", "expected"),
    [(None, "012"), (np.array([7, 8, 9]), "789"), (np.array([b"x", b"y", b"z"]), "xyz")],
)
def test_classes_may_be_numbers_bytes_or_missing(tmp_path, names, expected):
    arrays = colours() if names is None else colours(classes=names)
    assert load_data(written(tmp_path, **arrays)).classes == tuple(expected)


BAD_ARRAYS = {
    "float images": ({"x_train": np.zeros((20, 6, 5, 3))}, r"x_train is float64 of shape \(20, 6, 5, 3\)"),
    "16-bit images": ({"x_test": np.zeros((8, 6, 5, 3), np.uint16)}, "x_test is uint16"),
    "no channel axis": ({"x_train": np.zeros((20, 6, 5), np.uint8)}, "must be uint8 of shape"),
    "one-hot labels": ({"y_train": np.zeros((20, 3), np.int64)}, r"y_train is int64 of shape \(20, 3\)"),
    "float labels": ({"y_test": np.zeros(8)}, "y_test is float64"),
    "object labels": ({"y_test": np.array([None] * 8)}, "y_test is object"),
    "one label short": ({"y_test": np.zeros(7, np.int64)}, "x_test has 8 images but y_test 7 labels"),
    "negative label": ({"y_train": np.full(20, -1)}, "y_train holds label -1"),
    "label beyond its classes": ({"classes": np.array(["a", "b"])}, "y_train holds label 2; the 2 classes"),
    "other image size": ({"x_test": np.zeros((8, 6, 6, 3), np.uint8)}, "6 x 5 x 3 and test images 6 x 6 x 3"),
    "no images": ({"x_test": np.zeros((0, 6, 5, 3), np.uint8), "y_test": np.zeros(0, int)}, "is empty"),
    "no pixels": ({"x_train": np.zeros((20, 0, 5, 3), np.uint8)}, "is empty"),
    "no channels": ({"x_train": np.zeros((20, 6, 5, 0), np.uint8)}, "is empty"),
    "object classes": ({"classes": np.array([["a"], "b"], dtype=object)}, "classes is object"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_wrong_arrays_are_named_in_one_line(tmp_path, changes, message):
    with pytest.raises(DataError, match=message) as caught:
        load_data(written(tmp_path, **colours(**changes)))
    assert "images.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["x_train", "y_test", "classes"])
def test_a_pickle_inside_is_never_run(tmp_path, name):
    trap = tmp_path / "ran"
    path = written(tmp_path, **colours(**{name: np.array([Payload(trap)] * 8, dtype=object)}))
    with pytest.raises(DataError):
        load_data(path)
    assert not trap.exists()


def test_a_bare_pickle_under_the_name_of_an_array_is_never_run(tmp_path):
    trap, path = tmp_path / "ran", tmp_path / "images.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in colours():
            archive.writestr(f"{name}.npy", pickle.dumps(Payload(trap)))
    with pytest.raises(DataError, match="not a readable"):
        load_data(str(path))
    assert not trap.exists()


def test_a_header_that_announces_more_than_there_is_allocates_nothing(tmp_path):
    """The header promises 4 TB of pixels; reading it naively would try to make room for them."""
    header = io.BytesIO()
    promise = {"descr": "|u1", "fortran_order": False, "shape": (1_000_000, 1024, 1024, 4)}
    np.lib.format.write_array_header_1_0(header, promise)
    path = Path(written(tmp_path, **{name: array for name, array in colours().items() if name != "x_train"}))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", header.getvalue() + b"few")
    with pytest.raises(DataError, match="x_train has 3 bytes where uint8"):
        load_data(str(path))


def test_a_missing_array_is_named_with_what_is_there(tmp_path):
    arrays = colours()
    del arrays["y_test"]
    with pytest.raises(DataError, match=r"y_test is missing.*holds x_test, x_train, y_train"):
        load_data(written(tmp_path, **arrays))


@pytest.mark.parametrize("damage", ["empty", "text", "array", "truncated", "flipped byte"])
def test_a_damaged_file_is_one_line(tmp_path, damage):
    path = Path(written(tmp_path, **colours()))
    good = path.read_bytes()
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    middle = good.index(b"\x93NUMPY") + 400
    path.write_bytes(
        {
            "empty": b"",
            "text": b"hello",
            "array": array.getvalue(),
            "truncated": good[: len(good) // 2],
            "flipped byte": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
        }[damage]
    )
    with pytest.raises(DataError, match=r"images\.npz: not a readable \.npz") as caught:
        load_data(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_an_unknown_source_are_distinguished(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        load_data(str(tmp_path / "none.npz"))
    with pytest.raises(
        DataError, match=r"no data set 'mnist': use digits, cifar10, cifar100, the path of a FILE.npz, or a folder"
    ):
        load_data("mnist")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(DataError, match=r"not a readable .npz \(it is a folder, not a regular file\)"):
        load_data(str(tmp_path / "folder.npz"))
