"""Digests and copies that other files hold of a spoilt one, made to agree with it as somebody who means harm would."""

import json
from pathlib import Path
from typing import Any

import torch
from bundles import MANIFEST, sign

from slimnet.bundle.blueprint import Blueprint, read_weights
from slimnet.modules.digest import digest_of
from slimnet.storage.files import sha256_of


def sign_again(folder: Path, spoilt: Path, *, deep: bool) -> None:
    """Make manifests true of the spoilt file; `deep`: what certificates, checkpoints and records repeat of it, too."""
    for manifest in folder.rglob(MANIFEST):
        if manifest != spoilt:
            if deep:
                sign_certificate(manifest.parent, spoilt)
            sign(manifest.parent)
    if not deep:
        return
    if spoilt.name == "recipe.json":
        for checkpoint in (spoilt.parent / "checkpoints").glob("*.pt"):
            change_checkpoint(checkpoint, recipe=spoilt.read_text())
    record = folder / "ladder" / "ladder.json"
    if spoilt.name == "net.pt" and record.is_file():
        change_json(record, "conditions", checkpoint=sha256_of(spoilt))


def sign_certificate(bundle: Path, spoilt: Path) -> None:
    """Write the digests of a bundle's plan and weights where they are repeated."""
    if spoilt.name == "plan.json":
        digest = Blueprint.read(spoilt).plan.digest
        change_json(bundle / "certificate.json", plan_digest=digest)
        change_json(bundle / MANIFEST, plan_digest=digest)
    if spoilt.name == "model.safetensors":
        change_json(bundle / "certificate.json", slim_weights=digest_of(read_weights(spoilt).items()))


def change_json(path: Path, *trail: str, **values: Any) -> None:
    """Write values into an object of a JSON file."""
    document = inner = json.loads(path.read_text())
    for step in trail:
        inner = inner[step]
    inner |= values
    path.write_text(json.dumps(document, indent=1))


def change_checkpoint(path: Path, **values: Any) -> None:
    """Write values into the state of a run."""
    torch.save(torch.load(path, weights_only=True) | values, path)
