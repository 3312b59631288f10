"""A folder of JPEGs as slimnet reads it, decoded once on every core and mapped from then on, and as torchvision does.

The peer is torchvision's `ImageFolder` with a `DataLoader`, which decodes each image in each epoch: resized to the
shorter side, cropped in the middle and made a tensor. Both end with batches of bytes or floats of one size in memory.

    python benchmarks/decoding.py [--images 2000] [--size 64] [--workers 2]

The JPEGs are made here, smooth noise of ImageNet's usual size, since what they show hardly changes how long they take.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader

from slimnet.benchmark import environment
from slimnet.compat import torchvision
from slimnet.data import load_data

SHAPE = (375, 500)
"""Height and width of the JPEGs, ImageNet's median."""
CLASSES = 10
BATCH = 64
RESULTS = Path(__file__).parent / "results" / "decoding.json"


def make_folder(folder: Path, count: int) -> None:
    """Write so many JPEGs, a tenth of them as test images."""
    generator = np.random.default_rng(0)
    for number in range(count):
        split = "val" if number % 10 == 9 else "train"
        place = folder / split / f"class{number // 10 % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = generator.integers(0, 256, (SHAPE[0] // 5, SHAPE[1] // 5, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(SHAPE[::-1], Image.Resampling.BICUBIC)
        image.save(place / f"{number}.jpg", quality=90)


@contextmanager
def clocked(seconds: list[float]) -> Iterator[None]:
    """Add how long something took."""
    start = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - start)


def ours_first(folder: Path, size: int, cache: Path) -> int:
    """Decode everything and open it; returns the number of images."""
    images = load_data(str(folder), image_size=size, cache=cache)
    return len(images.x_train) + len(images.x_test)


def ours_again(folder: Path, size: int, cache: Path) -> int:
    """An epoch of normalised batches of a set that is decoded already, opening it included."""
    images = load_data(str(folder), image_size=size, cache=cache)
    return sum(len(x) for split in ("train", "test") for x, _ in images.batches(split, BATCH))


def theirs(folder: Path, size: int, workers: int) -> int:
    """An epoch of torchvision's."""
    package = torchvision()
    v2 = package.transforms
    transform = v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.ToTensor()])
    count = 0
    for split in ("train", "val"):
        dataset = package.datasets.ImageFolder(str(folder / split), transform)
        for x, _ in DataLoader(dataset, BATCH, num_workers=workers):
            count += len(x)
    return count


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each, in turns."""
    seconds: dict[str, list[float]] = {"first": [], "again": [], "torchvision": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        make_folder(folder, options.images)
        for turn in range(options.repeats):
            cache = Path(name) / f"cache{turn}"
            counts = set()
            with clocked(seconds["first"]):
                counts.add(ours_first(folder, options.size, cache))
            with clocked(seconds["torchvision"]):
                counts.add(theirs(folder, options.size, options.workers))
            with clocked(seconds["again"]):
                counts.add(ours_again(folder, options.size, cache))
            assert counts == {options.images}
    rates = {name: [options.images / each for each in values] for name, values in seconds.items()}
    return {"seconds": seconds, "images_per_second": rates}


def table(results: dict[str, Any]) -> str:
    """Markdown: images a second, the median and the range."""
    lines = ["| reader | images/s | to torchvision's |", "|---|---|---|"]
    rates = results["images_per_second"]
    words = {
        "torchvision": f"ImageFolder and DataLoader, {results['settings']['workers']} workers, every epoch",
        "first": "slimnet, the first time: decoding into the array",
        "again": "slimnet, every epoch after it",
    }
    for name, said in words.items():
        ratio = statistics.median(a / b for a, b in zip(rates[name], rates["torchvision"], strict=True))
        spread = f"{statistics.median(rates[name]):,.0f} ({min(rates[name]):,.0f} to {max(rates[name]):,.0f})"
        lines.append(f"| {said} | {spread} | {ratio:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, keep the result and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--size", type=int, default=64, help="height and width that images are brought to")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes of torchvision's DataLoader")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    settings = {name: getattr(options, name) for name in ("images", "size", "workers", "repeats")}
    results = measure(options) | {"settings": settings, "environment": dict(environment().rows())}
    options.out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
