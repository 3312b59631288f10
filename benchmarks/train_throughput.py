"""Images trained a second: slimnet's loop against the one that anybody would write, side by side.

The plain loop is that of the tutorials: a torch `DataLoader` with workers over PIL images, torchvision's transforms
(flip, to tensor, normalise), eager float32, torch's Adam with `weight_decay`. Both train the same network on the same
images on the same threads, in turns, for a number of steps at a time; what is compared is the ratio of a turn to the
turn after it, as the median and its spread over all turns. What the matrix units do meanwhile is put in relation to
what they reach in a large matrix product measured in the same run.

    python benchmarks/train_throughput.py [--arch basicnet] [--width 1.0] [--batch 40] [--threads 1] [--bf16]
    python benchmarks/train_throughput.py --device cuda --concurrent 8
    python benchmarks/train_throughput.py --dead 0.7
    python benchmarks/train_throughput.py --table

With `--dead` a share of the filters of each layer begins as Adam and L2 leave dead ones in the end: γ and β, which no
image moves any more, are denormal numbers. The plain loop computes with them; slimnet's takes them for zero.

On a GPU torch rounds the factors of convolutions to TF32 by default, and so does the plain loop;
slimnet does with `--tf32` alone, so like is compared with like only there.

Images are random bytes of CIFAR's shape, since speed does not depend on what they show.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from slimnet.benchmark import environment, macs
from slimnet.compat import torchvision
from slimnet.data import ImageData
from slimnet.errors import SlimnetError
from slimnet.models import build
from slimnet.storage.files import whole_file
from slimnet.torch_state.process import DENORMAL
from slimnet.training import Recipe, train
from slimnet.training.recipe.machine_settings import Tuning

IMAGES = 10_000
PATIENCE = 60.0
"""Seconds in which all of several runs have to be ready."""
BACKWARD = 3
"""A training step is counted as three forward passes: backward has a product for the input and one for the weight."""
RESULTS = Path(__file__).parent / "results" / "train_throughput.json"


class AsPictures(Dataset[tuple[torch.Tensor, int]]):
    """Images as PIL's, one by one through transforms, as torchvision's CIFAR10 gives them."""

    def __init__(self, images: ImageData) -> None:
        v2 = torchvision().transforms
        self._pixels = images.x_train.numpy()
        self._labels = images.y_train.tolist()
        self._transform = v2.Compose(
            [v2.RandomHorizontalFlip(), v2.ToTensor(), v2.Normalize(images.mean, images.std)],
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._transform(Image.fromarray(self._pixels[index])), self._labels[index]


Turn = Callable[[int], None]
"""Train for a number of steps."""


def plain_loop(recipe: Recipe, images: ImageData, device: str, workers: int, dead: float) -> Turn:
    """The loop of the tutorials."""
    torch.manual_seed(recipe.seed)
    model = build(recipe.arch, recipe.arch_args).to(device).train()
    kill(model, dead)
    optimiser = torch.optim.Adam(model.parameters(), recipe.lr, recipe.betas, weight_decay=recipe.l2)
    batches = endless(
        DataLoader(
            AsPictures(images),
            recipe.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device != "cpu",
        )
    )

    def turn(steps: int) -> None:
        for _ in range(steps):
            inputs, labels = (each.to(device) for each in next(batches))
            loss = functional.cross_entropy(model(inputs), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        finished(device)

    return turn


def endless(loader: DataLoader[Any]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Pass after pass."""
    while True:
        yield from loader


def our_loop(recipe: Recipe, images: ImageData, device: str, tuning: Tuning, dead: float = 0.0) -> Turn:
    """slimnet's."""
    recipe = dataclasses.replace(recipe, iterations=10**9)
    runs: dict[int, Any] = {}

    def turn(steps: int) -> None:
        if steps not in runs:
            runs[steps] = train(recipe, images, device=device, every=steps, tuning=tuning)
            kill(runs[steps].model, dead)
        next(runs[steps])
        finished(device)

    return turn


def kill(model: nn.Module, share: float) -> None:
    """Let the first channels of each BatchNorm be dead and stay so."""
    for module in model.modules() if share else ():
        if isinstance(module, nn.BatchNorm2d):
            alive = torch.arange(module.num_features) >= share * module.num_features
            for parameter in (module.weight, module.bias):
                parameter.data[~alive] = DENORMAL
                parameter.register_hook(lambda gradient, alive=alive: gradient * alive.to(gradient))


def finished(device: str) -> None:
    """Wait for what a GPU still has to do."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def timed(turn: Turn, steps: int) -> float:
    """Seconds of one turn."""
    start = time.perf_counter()
    turn(steps)
    return time.perf_counter() - start


def raced(turns: dict[str, Turn], steps: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of each contender's turns, taken alternately after one turn to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for name in turns:
        turns[name](steps)
    for _ in range(repeats):
        for name, turn in turns.items():
            seconds[name].append(timed(turn, steps))
    return seconds


def matmul_rate(device: str, dtype: torch.dtype) -> float:
    """Multiply-accumulates a second in a product of two large square matrices; the best of ten."""
    side = 2048 if device == "cpu" else 8192
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        _ = left @ right
        finished(device)
        best = min(best, time.perf_counter() - start)
    return side**3 / best


def several(recipe: Recipe, device: str, tuning: Tuning, steps: int, count: int) -> float:
    """Images a second of `count` independent runs that share one device, all together."""
    context = multiprocessing.get_context("spawn")
    # One that fails would be waited for without end.
    ready, go = context.Barrier(count + 1, timeout=PATIENCE), context.Barrier(count + 1, timeout=PATIENCE)
    processes = [
        context.Process(target=one_of_several, args=(recipe, device, tuning, steps, ready, go)) for _ in range(count)
    ]
    for process in processes:
        process.start()
    ready.wait()
    start = time.perf_counter()
    go.wait()
    for process in processes:
        process.join()
    return count * steps * recipe.batch_size / (time.perf_counter() - start)


def one_of_several(recipe: Recipe, device: str, tuning: Tuning, steps: int, ready: Any, go: Any) -> None:
    """One run of several; a turn to warm up, then all begin together."""
    turn = our_loop(recipe, noise(), device, tuning)
    turn(steps)
    ready.wait()
    go.wait()
    turn(steps)


def noise() -> ImageData:
    """Random images of CIFAR's shape."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (IMAGES, 32, 32, 3), dtype=torch.uint8, generator=generator)
    labels = torch.arange(IMAGES) % 10
    return ImageData.of("noise", (pixels, labels), (pixels[:100], labels[:100]), [str(n) for n in range(10)])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One configuration: both loops in turns, and what each makes of the machine."""
    images = noise()
    arguments = {"width": options.width} if options.arch == "basicnet" else {}
    recipe = Recipe(
        arch=options.arch,
        arch_args=arguments,
        data="noise",
        iterations=10**9,
        l2=1e-4,
        batch_size=options.batch,
        flips=True,
        precision="bf16" if options.bf16 else "fp32",
    )
    torch.set_num_threads(options.threads)
    tuning = Tuning(threads=options.threads, compiled=options.compile, tf32=options.tf32)
    turns = {
        "plain": plain_loop(
            dataclasses.replace(recipe, precision="fp32"), images, options.device, options.workers, options.dead
        ),
        "slimnet": our_loop(recipe, images, options.device, tuning, options.dead),
    }
    seconds = raced(turns, options.steps, options.repeats)
    per_turn = options.steps * options.batch
    ratios = [plain / ours for plain, ours in zip(seconds["plain"], seconds["slimnet"], strict=True)]
    cost = network_macs(recipe)
    rate = matmul_rate(options.device, torch.bfloat16 if options.bf16 else torch.float32)
    result = {
        "seconds": seconds,
        "images_per_second": {name: per_turn / statistics.median(each) for name, each in seconds.items()},
        "ratio": {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)},
        "macs_per_image": cost,
        "matmul_macs_per_second": rate,
    }
    ours = result["images_per_second"]["slimnet"]
    result["share_of_matmul_rate"] = ours * cost * BACKWARD / rate
    if options.concurrent:
        together = several(recipe, options.device, tuning, options.steps, options.concurrent)
        result["concurrent"] = {"runs": options.concurrent, "images_per_second": together}
        result["concurrent"]["ratio"] = together / result["images_per_second"]["plain"]
    return result


def network_macs(recipe: Recipe) -> int:
    """MACs of one forward of one image."""
    model: nn.Module = build(recipe.arch, recipe.arch_args).eval()
    return macs(model, torch.randn(1, 3, 32, 32))


def title(options: argparse.Namespace) -> str:
    """What a configuration is called."""
    width = f" width {options.width:g}" if options.arch == "basicnet" else ""
    dead = [f"{100 * options.dead:.0f} % dead"] if options.dead else []
    extras = [name for name in ("bf16", "tf32", "compile") if getattr(options, name)]
    return ", ".join(
        [
            f"{options.arch}{width}",
            f"batch {options.batch}",
            options.device,
            f"{options.threads} threads",
            *extras,
            *dead,
        ]
    )


def table(results: dict[str, Any]) -> str:
    """Markdown, one configuration a line."""
    lines = [
        "| configuration | plain loop, images/s | slimnet, images/s | ratio (median, range) | matmul rate |",
        "|---|---|---|---|---|",
    ]
    for name, row in results["configurations"].items():
        speed, ratio = row["images_per_second"], row["ratio"]
        spread = f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})"
        share = f"{100 * row['share_of_matmul_rate']:.0f} %"
        lines.append(f"| {name} | {speed['plain']:.0f} | {speed['slimnet']:.0f} | {spread} | {share} |")
        if "concurrent" in row:
            each = row["concurrent"]
            speed_now = f"{each['images_per_second']:.0f}"
            lines.append(f"| … {each['runs']} runs at a time | | {speed_now} | {each['ratio']:.2f} | |")
    return "\n".join(lines)


def main() -> None:
    """Measure one configuration, add it to the results and print them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="basicnet")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--workers", type=int, default=2, help="processes of the plain loop's DataLoader")
    parser.add_argument("--steps", type=int, default=20, help="steps of a turn")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each contender")
    parser.add_argument("--concurrent", type=int, help="measure so many independent runs at a time, too")
    parser.add_argument("--dead", type=float, default=0.0, help="share of the filters that begin dead")
    for name in ("bf16", "tf32", "compile"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print what is in the output file and run nothing")
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else {"configurations": {}}
    if not options.table:
        row = measure(options)
        row["environment"] = dict(environment().rows())
        row["settings"] = {name: getattr(options, name) for name in ("workers", "steps", "repeats")}
        results["configurations"][title(options)] = row
        write(options.out, results)
    print(table(results))


def write(path: Path, results: dict[str, Any]) -> None:
    """Replace the results file in one step."""
    with whole_file(path, SlimnetError) as file:
        file.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
