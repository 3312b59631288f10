"""Pictures of slimnet's reports for the documentation: pages of short runs, as headless Chromium shows them.

    make screenshots

A narrow network is trained on the digits for a short time, with a seed, and gets its training report, its network
report, the page of a ladder and that of a comparison. Each picture shows a part of one of them, in light and in dark,
and is written to docs/pictures/ as WebP. Nothing in them is a measurement of slimnet: the runs are shortened, and no
time is measured. `--pages DIR` keeps the pages, or takes those that are there.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
RUN, NETWORK, TRAINING, LADDER, METHODS = "run", "network.html", "training.html", "rungs/ladder.html", "methods.html"

COMMANDS = (
    f"train digits --iterations 1500 --threads 1 -o {RUN}",
    f"analyse {RUN} --report {TRAINING}",
    f"ladder {RUN} --data digits --round none --steps 0.15,0.1,0.06,0.03 -o rungs",
    f"compare {RUN} --data digits --methods implicit,li2017,liu2017,random --budget 0.3,0.15,0.08 --finetune 60 "
    f"--seconds 0 --threads 1 -o compared --report {METHODS}",
)
"""The commands of slimnet that write the pages; the network report is that of its function."""

THEMES = {"light": 1, "dark": 0}
"""The numbers by which Chromium knows preferred colours."""

WIDTH, TALLEST, SCALE, QUALITY, MOST_BYTES = 860, 4000, 1.5, 80, 150_000


@dataclass(frozen=True)
class Shot:
    """A picture: its name, its page, and what of the page is in it: the header, and parts by their CSS selectors."""

    name: str
    page: str
    header: bool = False
    parts: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The names of its files, light and dark."""
        return tuple(f"{self.name}-{theme}.webp" for theme in THEMES)


SHOTS = (
    Shot("report-head", NETWORK, header=True, parts=(".tiles", ".certificate")),
    Shot("report-channels", NETWORK, parts=("#gammas",)),
    Shot("training-course", TRAINING, parts=("#progress",)),
    Shot("training-layers", TRAINING, parts=("#layers", "#deaths")),
    Shot("ladder", LADDER, header=True, parts=("#macs",)),
    Shot("methods", METHODS, parts=("#methods",)),
)


def main() -> None:
    """Make the pages, and a picture of each part in both themes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, metavar="DIR", help="where the pages are, or are kept")
    parser.add_argument("--out", type=Path, default=PICTURES, metavar="DIR", help="where the pictures go")
    asked = parser.parse_args()
    browser = chromium()
    with tempfile.TemporaryDirectory() as scratch:
        pages = asked.pages or Path(scratch) / "pages"
        write_pages(pages)
        asked.out.mkdir(parents=True, exist_ok=True)
        for shot in SHOTS:
            for theme, file in zip(THEMES, shot.files, strict=True):
                picture = take(browser, pages / shot.page, shot, theme)
                size = save(picture, asked.out / file)
                sys.stdout.write(f"{file}: {picture.width} x {picture.height} pixels, {size / 1000:.0f} kB\n")


def chromium() -> str:
    """The command of a Chromium."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise SystemExit("error: there is no Chromium; install it, or name it chromium on the PATH")
    return found


def write_pages(folder: Path) -> None:
    """Run what is missing in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    made = (RUN, TRAINING, LADDER, METHODS)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    for name, command in zip(made, COMMANDS, strict=True):
        if not (folder / name).exists():
            subprocess.run(
                [sys.executable, "-m", "slimnet_cli", *command.split()], cwd=folder, check=True, env=environment
            )
    if not (folder / NETWORK).exists():
        write_network_page(folder / RUN, folder / NETWORK)


def write_network_page(run: Path, page: Path) -> None:
    """The report of the slim network of a run, without times."""
    import slimnet
    from slimnet.benchmark.environment import environment
    from slimnet.data import Batches, load_data
    from slimnet.report import Report, write_report
    from slimnet.training.run.run_folder import MODEL, read_history

    history, images = read_history(run), load_data("digits")
    recipe = history.recipe
    dense = slimnet.load_checkpoint(run / MODEL, recipe.arch, recipe.arch_args).eval()
    example, _ = next(images.batches("test", batch_size=4))
    slimmed = slimnet.slim(dense, example, loader=Batches(images), float64=True)
    layers = slimnet.inspect(dense, example).layers
    report = Report(
        title=f"{recipe.arch} on {recipe.data}",
        plan=slimmed.plan,
        certificate=slimmed.certificate,
        environment=environment(),
        gammas={layer.name: layer.gammas for layer in layers if layer.gammas},
        accuracies=slimmed.certificate.accuracies,
    )
    write_report(report, page)


def part_of(page: str, shot: Shot) -> str:
    """A page of which the rest is hidden, without the links to its numbers, which a picture does not have."""
    kept = ", ".join(f":has({part}), {part}" for part in shot.parts)
    hidden = [f"main > section:not({kept})", f"section:has({', '.join(shot.parts)}) > figure:not({kept})"]
    if not shot.header:
        hidden.append("body > header")
    style = "".join(f"{each} {{ display: none; }}" for each in hidden)
    style += (
        ".in-numbers { display: none; } body { padding: 28px 40px !important; } main > section { margin-top: 28px; }"
    )
    style += " figure + figure { margin-top: 30px; }"
    return page.replace("</head>", f"<style>{style}</style></head>", 1)


def take(browser: str, page: Path, shot: Shot, theme: str) -> Image.Image:
    """A picture of a part of a page, without the empty part below it."""
    with tempfile.TemporaryDirectory() as folder:
        copy, picture = Path(folder) / "page.html", Path(folder) / "page.png"
        copy.write_text(part_of(page.read_text(encoding="utf-8"), shot), encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        command += ["--hide-scrollbars", f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{TALLEST}"]
        command += [f"--force-device-scale-factor={SCALE}", f"--blink-settings=preferredColorScheme={THEMES[theme]}"]
        command += ["--virtual-time-budget=10000", f"--screenshot={picture}", copy.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        with Image.open(picture) as whole:
            return cropped(whole.convert("RGB"))


def cropped(picture: Image.Image, margin: int = 30) -> Image.Image:
    """A picture without the part at its bottom that has the colour of the page alone, but for a margin.

    Raises:
        ValueError: nothing is on it, or it goes on below the window.
    """
    paper = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
    found = ImageChops.difference(picture, paper).getbbox()
    if found is None or found[3] == picture.height:
        raise ValueError(
            "nothing of the page is in the picture" if found is None else "the part is taller than the window"
        )
    return picture.crop((0, 0, picture.width, min(picture.height, found[3] + margin)))


def save(picture: Image.Image, path: Path) -> int:
    """Write a picture; returns its bytes.

    Raises:
        ValueError: it is too large for a page.
    """
    picture.save(path, quality=QUALITY, method=6)
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, more than {MOST_BYTES:,}")
    return size


if __name__ == "__main__":
    main()
