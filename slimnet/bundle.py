"""save and load: a slim network as a folder without pickle, complete and checked before it appears."""

import os
from pathlib import Path

from slimnet.manifest import write_manifest
from slimnet.pipeline import Slimmed


def save(slimmed: Slimmed, folder: str | os.PathLike[str], *, source: str | None = None) -> Path:
    """Write a slim network as a bundle: weights and plan, `.pt2`, ONNX, certificate and manifest.

    The three forms are run and must agree with `slimmed.model` before the folder appears. `source` says where the
    dense network came from and is recorded.

    Raises:
        BundleError: the folder exists or cannot be written, or a form does not agree.
        ExportError: the network cannot be exported.
    """
    target = Path(folder)
    check_free(target)
    with _staged(target) as staging:
        _write(slimmed, staging, source)
        _check_rebuilt(slimmed, staging)
        write_manifest(staging, source, slimmed.plan.digest)
    return target
