"""The names by which a folder that slimnet wrote is recognised; they can be had without importing torch."""

from pathlib import Path

from slimnet.errors import BundleError

MANIFEST = "manifest.json"
"""Lists the files of a bundle."""

WEIGHTS, PLAN, PROGRAM, ONNX, CERTIFICATE = (
    "model.safetensors",
    "plan.json",
    "model.pt2",
    "model.onnx",
    "certificate.json",
)
"""The files of a bundle besides the manifest."""

PROJECTIONS = "projections.json"
"""One more in the bundle of a network that was shrunk in training: what was set to zero then."""

RECIPE, IMAGES, MODEL, CHECKPOINTS = "recipe.json", "images.json", "model.pt", "checkpoints"
"""What decides a run; what its images are; what it trained; the folder of what it can go on from."""

TABLE = "sweep.sqlite"
"""The table of the cells of a sweep, or of a reproduction."""


def is_bundle(folder: Path) -> bool:
    """Whether a folder looks like a bundle; nothing in it is read."""
    return (folder / MANIFEST).exists()


def is_run(folder: Path) -> bool:
    """Whether a folder looks like a run; nothing in it is read."""
    return (folder / RECIPE).exists()


REMAKE = "make the bundle again with slimnet slim"
"""The remedy for a bundle with a file that was changed or lost."""


def no_bundle(folder: Path) -> BundleError:
    """The error for a folder that is no bundle, or for none."""
    return BundleError(f"{folder} is not a bundle: it has no {MANIFEST}; name a folder that slimnet slim -o made")
