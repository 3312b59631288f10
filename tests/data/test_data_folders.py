"""Folders of images: what is found in them, what becomes of every kind of file, and that nothing is lost silently."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from slimnet.data import ImageData, load_data
from slimnet.data.folder.decode import decode
from slimnet.data.folder.decode_pool import BROKEN
from slimnet.data.folder.listing import list_images
from slimnet.errors import DataError


def picture(path: Path, number: int = 0, size: tuple[int, int] = (6, 6), mode: str = "RGB") -> Path:
    """A random picture that a number decides, written without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def folder_of(root: Path, classes: str = "ab", train: int = 3, test: str = "test") -> Path:
    """A folder with some PNGs a class to train on and two to test on."""
    for label, name in enumerate(classes):
        for number in range(train):
            picture(root / "train" / name / f"{number}.png", 10 * label + number)
        for number in range(2):
            picture(root / test / name / f"{number}.png", 100 + 10 * label + number)
    return root


def load(folder: Path, **settings: object) -> ImageData:
    return load_data(str(folder), cache=folder.parent / "cache", **settings)


def refused(folder: Path, message: str, **settings: object) -> str:
    with pytest.raises(DataError, match=message) as caught:
        load(folder, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("test", ["test", "val", "validation"])
def test_a_folder_becomes_its_pictures_in_order(tmp_path, test):
    """The oracle is Pillow, file by file in the order of their names."""
    folder = folder_of(tmp_path / "pets", test=test)
    data = load(folder)
    expected = [np.asarray(Image.open(path)) for path in sorted((folder / "train").glob("*/*.png"))]
    assert np.array_equal(data.x_train.numpy(), np.stack(expected))
    assert data.y_train.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.y_test.tolist() == [0, 0, 1, 1]
    assert (data.name, data.classes) == ("pets", ("a", "b"))
    pixels = np.stack(expected).astype(np.float64) / 255
    assert data.mean == pytest.approx(pixels.mean((0, 1, 2)))
    assert data.std == pytest.approx(pixels.std((0, 1, 2)))


def test_what_was_packed_once_is_not_decoded_again(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "pets")
    seen: list[tuple[int, int]] = []
    first = load(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (10, 10)
    monkeypatch.setattr("slimnet.data.folder.decode_pool.decode", None)
    again = load(folder, progress=lambda done, total: seen.append((0, 0)))
    assert torch.equal(first.x_train, again.x_train)
    assert seen[-1] == (10, 10)


def test_a_changed_file_is_decoded_again(tmp_path):
    folder = folder_of(tmp_path / "pets")
    first = load(folder)
    picture(folder / "train" / "a" / "0.png", 77)
    os.utime(folder / "train" / "a" / "0.png", ns=(1, 1))
    assert not torch.equal(first.x_train, load(folder).x_train)


def test_images_of_any_size_are_resized_and_cropped_to_the_middle(tmp_path):
    folder = folder_of(tmp_path / "pets")
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = 200
    Image.fromarray(wide).save(folder / "train" / "a" / "0.png")
    data = load(folder, image_size=8)
    assert data.x_train.shape == (6, 8, 8, 3)
    assert (data.x_train[0] == 200).all()


def test_images_of_several_sizes_need_one_named(tmp_path):
    folder = folder_of(tmp_path / "pets")
    picture(folder / "test" / "b" / "1.png", size=(7, 6))
    message = refused(folder, "bring all images to one size with --image-size")
    assert "1.png has 6 x 7 pixels and others 6 x 6" in message


def ramp(mode: str) -> Image.Image:
    """A picture in some mode whose RGB is known: 64, 64, 64 everywhere."""
    if mode == "I;16":
        return Image.fromarray(np.full((4, 4), 64 * 257, dtype=np.uint16))
    if mode == "RGBA":
        return Image.new("RGBA", (4, 4), (64, 64, 64, 255))
    return Image.new("RGB", (4, 4), (64, 64, 64)).convert(mode, palette=Image.Palette.ADAPTIVE)


@pytest.mark.parametrize(
    ("mode", "suffix", "converted"),
    [
        ("RGB", "png", ""),
        ("L", "png", "grey"),
        ("P", "png", "palette"),
        ("RGBA", "png", "transparent"),
        ("LA", "png", "transparent"),
        ("I;16", "png", "16-bit"),
        ("I;16", "tif", "16-bit"),
        ("CMYK", "jpg", "CMYK"),
        ("RGB", "webp", ""),
        ("RGB", "bmp", ""),
    ],
)
def test_every_colour_mode_becomes_rgb(tmp_path, mode, suffix, converted):
    ramp(mode).save(tmp_path / f"x.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    found = decode(tmp_path / f"x.{suffix}", None)
    assert found.pixels.shape == (4, 4, 3)
    assert np.abs(found.pixels.astype(int) - 64).max() <= (2 if suffix == "jpg" else 0)
    assert found.converted == converted


def test_what_is_transparent_lies_over_white(tmp_path):
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "x.png")
    assert (decode(tmp_path / "x.png", None).pixels == 255).all()


def test_a_picture_taken_sideways_is_turned_upright(tmp_path):
    """EXIF orientation 6: the camera was turned; the first row is the right column of what is meant."""
    pixels = np.zeros((4, 8, 3), dtype=np.uint8)
    pixels[0] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "x.png", exif=exif)
    turned = decode(tmp_path / "x.png", None).pixels
    assert turned.shape == (8, 4, 3)
    assert (turned[:, -1] == 255).all()


def test_conversions_are_counted(tmp_path):
    folder = folder_of(tmp_path / "pets")
    picture(folder / "train" / "a" / "0.png", mode="L")
    picture(folder / "test" / "a" / "0.png", mode="L")
    load(folder)
    (index,) = (tmp_path / "cache").glob("*/index.json")
    assert json.loads(index.read_text())["converted"] == {"grey": 2}


def test_a_picture_that_pillow_hands_to_another_program_is_none(tmp_path, monkeypatch):
    """Pillow lets Ghostscript run what an EPS file says, whatever the file is called."""
    from PIL import EpsImagePlugin

    run = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments: run.append(arguments))
    Image.new("RGB", (8, 8)).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    with pytest.raises(DataError, match="cannot identify it as an image"):
        decode(tmp_path / "x.png", None)
    assert run == []


def broken(folder: Path) -> list[Path]:
    """Four files that cannot be read: empty, cut short, text, and floating-point."""
    places = [folder / "train" / "a" / f"{name}.png" for name in ("cut", "empty", "text")]
    whole = picture(folder / "whole.png", size=(64, 64)).read_bytes()
    (folder / "whole.png").unlink()
    places[0].write_bytes(whole[: len(whole) // 2])
    places[1].write_bytes(b"")
    places[2].write_text("not an image")
    places.append(folder / "test" / "b" / "depth.tif")
    Image.fromarray(np.ones((6, 6), dtype=np.float32)).save(places[-1])
    return places


def test_unreadable_images_are_named_and_counted(tmp_path):
    folder = folder_of(tmp_path / "pets")
    names = broken(folder)
    message = refused(folder, "4 of 14 images cannot be read", image_size=6)
    assert all(str(name) in message for name in names[:3])
    assert "and 1 more; replace or delete them, or leave them out with --skip-broken" in message
    assert not list((tmp_path / "cache").glob("*/index.json"))


def test_unreadable_images_are_left_out_when_asked_for_and_written_down(tmp_path):
    folder = folder_of(tmp_path / "pets")
    complete = load(folder)
    names = broken(folder)
    for _ in range(2):
        data = load(folder, image_size=6, skip_broken=True)
        assert torch.equal(data.x_train, complete.x_train)
        assert torch.equal(data.x_test, complete.x_test)
        assert data.y_train.tolist() == complete.y_train.tolist()
    left_out = [json.loads(path.read_text())["left_out"] for path in (tmp_path / "cache").glob("*/index.json")]
    assert sorted(map(len, left_out)) == [0, 4]
    assert sorted(left_out, key=len)[1] == [str(name.relative_to(folder)) for name in names]


def test_a_folder_of_nothing_but_broken_images_is_refused(tmp_path):
    folder = folder_of(tmp_path / "pets", train=1)
    for path in folder.glob("train/*/*.png"):
        path.write_bytes(b"")
    refused(folder, "none of the training images can be read", image_size=6, skip_broken=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "no data set"),
        (lambda root: root.mkdir(), "has no train/: it holds nothing"),
        (lambda root: picture(root / "train" / "a" / "0.png"), r"has no test/ \(or val/\) with images: it holds train"),
        (lambda root: (folder_of(root) / "train" / "c").mkdir(), "c holds no images"),
        (lambda root: picture(folder_of(root) / "test" / "c" / "0.png"), "a class that train/ does not have"),
        (lambda root: [picture(root / "train" / "0.png"), picture(root / "test" / "0.png")], "has no folders in it"),
        (lambda root: [picture(root / "train" / "a" / "0.png"), picture(root / "val" / "0.png")], "nothing says what"),
    ],
)
def test_a_folder_of_another_layout_is_refused_with_what_it_holds(tmp_path, make, message):
    make(tmp_path / "pets")
    refused(tmp_path / "pets", message)


def test_tiny_imagenets_own_layout(tmp_path):
    """Training images one folder deeper, test images in one folder with a table, readable names in words.txt."""
    root = tmp_path / "tiny-imagenet-200"
    for label, name in enumerate(("n01", "n02")):
        for number in range(2):
            picture(root / "train" / name / "images" / f"{name}_{number}.JPEG", 10 * label + number)
        (root / "train" / name / f"{name}_boxes.txt").write_text("boxes")
    for number in range(3):
        picture(root / "val" / "images" / f"val_{number}.JPEG", 50 + number)
    lines = [f"val_{n}.JPEG\tn0{n % 2 + 1}\t0\t0\t5\t5\n" for n in range(3)]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\ttabby, tabby cat\nn03\tbee\n")
    picture(root / "test" / "images" / "test_0.JPEG")
    (root / "test").rename(root / "hidden")
    data = load(root)
    assert data.classes == ("goldfish", "tabby")
    assert (data.y_train.tolist(), data.y_test.tolist()) == ([0, 0, 1, 1], [0, 1, 0])


def test_tiny_imagenets_unlabelled_test_folder_does_not_stand_in_the_way_of_val(tmp_path):
    root = tmp_path / "tiny"
    picture(root / "train" / "n01" / "images" / "a.JPEG")
    picture(root / "val" / "images" / "val_0.JPEG")
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\n")
    picture(root / "test" / "images" / "test_0.JPEG")
    assert [path.name for path, _ in list_images(root).test] == ["val_0.JPEG"]


def imagenet(root: Path) -> Path:
    for name in ("n01", "n02"):
        picture(root / "train" / name / f"{name}_1.JPEG")
    for number in (1, 2, 3):
        picture(root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG", number)
    return root


def test_imagenet_with_kaggles_table(tmp_path):
    root = imagenet(tmp_path / "CLS-LOC")
    rows = [f"ILSVRC2012_val_{n:08d},n0{n % 2 + 1} 1 2 3 4 n0{n % 2 + 1} 5 6 7 8" for n in (3, 2, 1)]
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]) + "\n")
    assert [label for _, label in list_images(root).test] == [1, 0, 1]


def test_imagenet_with_the_development_kit(tmp_path):
    """Written by SciPy as MATLAB would: the kit numbers synsets in another order than their names."""
    from scipy.io import savemat

    root = imagenet(tmp_path / "imagenet")
    kit = root / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    synsets = np.array([(1, "n02"), (2, "n01")], dtype=[("ILSVRC2012_ID", int), ("WNID", object)])
    savemat(kit / "meta.mat", {"synsets": synsets})
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n2\n")
    assert [label for _, label in list_images(root).test] == [1, 0, 0]


def test_a_test_image_that_the_table_does_not_name_is_refused(tmp_path):
    root = imagenet(tmp_path / "imagenet")
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\nILSVRC2012_val_00000001,n01 1 2 3 4\n")
    refused(root, "00000002.JPEG has no line that says what it shows")


def test_a_set_too_large_for_memory_is_mapped(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "pets")
    resident = load(folder)
    monkeypatch.setattr("slimnet.data.folder.pixel_cache.RESIDENT_BYTES", 0)
    mapped = load(folder)
    assert mapped.mapped
    assert not resident.mapped
    assert mapped.to("cpu").mapped
    assert torch.equal(mapped.x_test, resident.x_test)
    first, second = (next(data.batches("train", 4))[0] for data in (mapped, resident))
    assert torch.equal(first, second)
    mapped.x_train[0] = 0
    assert torch.equal(load(folder).x_train, resident.x_train)


SLOWLY = """
import os, sys, time
os.cpu_count = lambda: 2
from slimnet.data import load_data
from slimnet.data.folder import decode_pool
decode_pool.CHUNK = 2
decode_pool.SECONDS_BETWEEN_FLUSHES = 0.0
whole = decode_pool.decode
begun = []
def decode(path, size):
    begun.append(path)
    if len(begun) > 20:
        time.sleep(600)
    return whole(path, size)
decode_pool.decode = decode
load_data(sys.argv[1], cache=sys.argv[2], progress=lambda done, total: print(done, flush=True))
"""


def test_a_process_that_is_killed_leaves_what_it_has_done(tmp_path, monkeypatch):
    """A real process is killed while it decodes; the next one decodes the rest, and the result is the same."""
    folder = folder_of(tmp_path / "pets", train=20)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, str(folder), str(tmp_path / "cache")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while int(process.stdout.readline()) < 10:
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not list((tmp_path / "cache").glob("*/index.json"))
    (state,) = (tmp_path / "cache").glob("*/state.npy")
    done = int((np.load(state) != 0).sum())
    assert 10 <= done < 44

    decoded: list[Path] = []
    monkeypatch.setattr(
        "slimnet.data.folder.decode_pool.decode", lambda path, size: decoded.append(path) or decode(path, size)
    )
    data = load(folder)
    assert len(decoded) == 44 - done
    fresh = load_data(str(folder), cache=tmp_path / "another")
    assert torch.equal(data.x_train, fresh.x_train)
    assert data.mean == fresh.mean


def test_two_processes_do_not_decode_into_one_cache(tmp_path):
    folder = folder_of(tmp_path / "pets", train=20)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, str(folder), str(tmp_path / "cache")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        refused(folder, "in use: another process is decoding images there")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_damaged_cache_is_named(tmp_path):
    folder = folder_of(tmp_path / "pets")
    load(folder)
    (index,) = (tmp_path / "cache").glob("*/index.json")
    index.write_text("{}")
    refused(folder, "is damaged .*; delete it")


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    folder = folder_of(tmp_path / "pets")
    (tmp_path / "cache").write_text("in the way")
    refused(folder, "cache")


def test_the_states_leave_room_for_every_kind_of_conversion():
    assert np.iinfo(np.uint8).max == BROKEN
