"""Long runs that are not finished yet: packed with their last checkpoint, so that any machine can resume them.

    python benchmarks/unfinished.py pack runs/paper/runs/KEY CELL      # into benchmarks/unfinished/CELL.tar.xz
    python benchmarks/unfinished.py unpack CELL --data-root data -o runs/paper
    slimnet reproduce CELL --shrink --precision bf16 --data-root data -o runs/paper    # goes on where it stopped

CELL is the name of a network of the paper, such as table4-32-0.25x-cifar10. A pack holds the recipe, the newest
checkpoint and what was recorded on the way, with the name of the data set in place of the path of its images.
"""

import argparse
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from slimnet.errors import SlimnetError, UsageError
from slimnet.reproduction.catalogue import datasets
from slimnet.reproduction.images import source_of
from slimnet.storage.files import whole_file, whole_folder
from slimnet.sweep import Cell
from slimnet.training import Recipe
from slimnet.training.run.checkpoints import newest

FOLDER = Path(__file__).parent / "unfinished"
RECIPE, CHECKPOINTS = "recipe.json", "checkpoints"


def pack(run: Path, cell: str) -> Path:
    """Write a run with its newest checkpoint into one file; returns its path."""
    found = newest(run / CHECKPOINTS)
    if found is None:
        raise UsageError(f"{run} has no checkpoint to go on from")
    recipe = Recipe.from_json((run / RECIPE).read_text(encoding="utf-8"))
    recipe = replace(recipe, data=Path(recipe.data).stem)
    target = FOLDER / f"{cell}.tar.xz"
    target.parent.mkdir(exist_ok=True)
    with whole_file(target, SlimnetError) as file, tarfile.open(file, "w:xz") as archive:
        add_bytes(archive, RECIPE, recipe.to_json().encode())
        add_bytes(archive, f"{CHECKPOINTS}/{found.path.name}", with_recipe(found.path.read_bytes(), recipe))
        for path in sorted(run.rglob("*")):
            name = str(path.relative_to(run))
            if path.is_file() and name not in ("lock", RECIPE) and path.parent.name != CHECKPOINTS:
                add_bytes(archive, name, path.read_bytes())
    return target


def add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file without the owner and the times of one on disk."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def with_recipe(checkpoint: bytes, recipe: Recipe) -> bytes:
    """A checkpoint with another recipe in it."""
    state: dict[str, Any] = torch.load(io.BytesIO(checkpoint), weights_only=True)
    state["recipe"] = recipe.to_json()
    written = io.BytesIO()
    torch.save(state, written)
    return written.getvalue()


def unpack(cell: str, data_root: Path, out: Path) -> Path:
    """Restore a run for `slimnet reproduce` to resume; returns its folder."""
    with tarfile.open(FOLDER / f"{cell}.tar.xz") as archive:
        contents = {entry.name: archive.extractfile(entry) for entry in archive.getmembers()}
        files = {name: file.read() for name, file in contents.items() if file is not None}
    general = Recipe.from_json(files[RECIPE].decode())
    # The run is trained in a process with another working folder.
    images = source_of(datasets()[general.data], data_root.resolve())
    recipe = replace(general, data=str(images))
    folder = out / "runs" / Cell(general, "").key
    folder.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(folder, SlimnetError) as staging:
        for name, content in files.items():
            place = staging / name
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(with_recipe(content, recipe) if place.parent.name == CHECKPOINTS else content)
        (staging / RECIPE).write_text(recipe.to_json(), encoding="utf-8")
    return folder


def state_of(pack: Path) -> dict[str, Any]:
    """The last line of the record of a packed run."""
    with tarfile.open(pack) as archive:
        record = archive.extractfile("metrics.jsonl")
        assert record is not None
        found: dict[str, Any] = json.loads(record.read().splitlines()[-1])
    return found


def lines() -> list[str]:
    """The runs that are under way, for people."""
    found = []
    for pack in sorted(FOLDER.glob("*.tar.xz")):
        state = state_of(pack)
        # A run that has removed nothing yet says nothing of what is left.
        cell, left = pack.name.removesuffix(".tar.xz"), state.get("macs_left", state["macs"]) / state["macs"]
        found.append(
            f"- Under way, without a result yet: {cell}, {state['iteration']:,} of {state['total']:,} iterations, "
            f"{100 * state['sparsity']:.0f} % of the filters dead by γ, {100 * left:.0f} % of the MACs left. "
            "[unfinished.py](unfinished.py) resumes it."
        )
    return [*found, ""] if found else []


def main() -> None:
    """Pack or unpack one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("run", type=Path)
    packing.add_argument("cell")
    unpacking = commands.add_parser("unpack")
    unpacking.add_argument("cell")
    unpacking.add_argument("--data-root", type=Path, default=Path("data"))
    unpacking.add_argument("-o", "--out", type=Path, default=Path("runs/paper"))
    options = parser.parse_args()
    if options.command == "pack":
        print(pack(options.run, options.cell))
    else:
        print(unpack(options.cell, options.data_root, options.out))


if __name__ == "__main__":
    main()
