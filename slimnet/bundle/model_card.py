"""The model card of a bundle: README.md for a hub, written from its certificate, plan and manifest."""

import json
import os
import re

from slimnet.bundle.blueprint import Blueprint
from slimnet.bundle.input_spec import random_inputs
from slimnet.bundle.manifest import ONNX, PLAN, Manifest, read_manifest
from slimnet.bundle.remote import local_folder
from slimnet.bundle.stored_certificate import read_certificate
from slimnet.surgery.certificate_data import DENSE, Certificate
from slimnet.surgery.plan import SurgeryPlan
from slimnet.surgery.plan_text import change
from slimnet.version import install_command

LAYERS_SHOWN = 40
"""The layers in the table of a card; of others it says how many there are."""

TAGS = ("slimnet", "pruning")
"""The tags of every card; that of a bundle with an ONNX file has "onnx" as well."""


def model_card(folder: str | os.PathLike[str], address: str = "hf://owner/name", *, license: str | None = None) -> str:
    """The text of README.md for a bundle at an address: what was removed, what was measured, how it is loaded.

    `license` is the identifier of a licence, such as "mit", as hubs write it in the metadata of a card.

    Raises:
        BundleError: the folder is no bundle, or a file was changed.
    """
    place = local_folder(folder)
    manifest = read_manifest(place)
    blueprint, certificate = Blueprint.read(place / PLAN), read_certificate(place)
    repository = address.removeprefix("hf://").partition("@")[0]
    parts = [
        metadata(blueprint, license, exported=manifest.lists(ONNX)),
        f"# {plain(repository.rpartition('/')[2])}",
        opening(blueprint, certificate),
        figures(certificate),
        "## Load it",
        use(blueprint, address),
        forms_in_words(address, repository, exported=manifest.lists(ONNX)),
        "## How it was checked",
        f"{plain(str(certificate))}.",
        "## What was removed",
        layers(blueprint.plan),
        "## Inputs",
        inputs(blueprint),
        "## Written by",
        versions(manifest),
    ]
    return "\n\n".join(parts) + "\n"


def metadata(blueprint: Blueprint, license: str | None, *, exported: bool) -> str:
    """The YAML at the top, of which JSON is a part."""
    known: dict[str, object] = {"library_name": "slimnet", "tags": [*TAGS, *(["onnx"] if exported else [])]}
    if blueprint.images is not None:
        known["pipeline_tag"] = "image-classification"
    if license is not None:
        known["license"] = license
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in known.items()), "---"])


def opening(blueprint: Blueprint, certificate: Certificate) -> str:
    """What this network is, and how it relates to the dense one."""
    plan, name = blueprint.plan, plain(str(blueprint.architecture or blueprint.plan.network))
    removed = f"{plan.removed_channels:,} of {sum(layer.channels_before for layer in plan.layers):,} channels"
    if certificate.trained_since:
        relation = "Since then it was trained further: **it is not certified to compute what the dense network does.**"
    elif certificate.is_of_masked:
        relation = (
            f"A method chose live channels as well: its outputs are those of {certificate.reference}, **not those of "
            "the dense network**."
        )
    else:
        relation = f"It computes what {certificate.reference} computes, as measured below."
    return f"A {name} with {removed} removed by slimnet. {relation}"


def figures(certificate: Certificate) -> str:
    """Sizes before and after, the largest difference, and the accuracies if they are known."""
    rows = [
        ("Parameters", certificate.params_before, certificate.params_after),
        ("MACs for one example", certificate.macs_before, certificate.macs_after),
    ]
    lines = ["| | Before | After | Change |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {before:,} | {after:,} | {change(before, after)} |" for name, before, after in rows]
    if certificate.accuracies is not None:
        before, after = certificate.accuracy_before, certificate.accuracies[1]
        known = f" {100 * before.top1:.2f} %" if before is not None else ""
        lines.append(f"| Top-1 accuracy on {after.n:,} images |{known} | {100 * after.top1:.2f} % | |")
    if certificate.top1_agreement is not None:
        lines.append(
            f"| The same class on {certificate.samples:,} samples | | {100 * certificate.top1_agreement:.2f} % | |"
        )
    difference = f"{certificate.max_rel_difference:.1e}"
    lines.append(f"| Largest relative difference of outputs | | {difference} | |")
    if certificate.reference != DENSE or certificate.trained_since:
        lines += ["", compared_with(certificate)]
    return "\n".join(lines)


def compared_with(certificate: Certificate) -> str:
    """A sentence that names the network that the figures are relative to, and its accuracy where it is not in them."""
    when = ", as it was before it was trained further" if certificate.trained_since else ""
    if not certificate.is_of_masked:
        return f"Differences and accuracies are to {certificate.reference}{when}."
    accuracy = ""
    if certificate.accuracies is not None:
        accuracy = f" That network's accuracy is {100 * certificate.accuracies[0].top1:.2f} %."
    return f"Differences are to {certificate.reference}{when}.{accuracy}"


def use(blueprint: Blueprint, address: str) -> str:
    """Code that loads it with slimnet."""
    architecture = blueprint.architecture
    given = ""
    if architecture is None or architecture.imports_code:
        given = ", model=YourNetwork()"
    return f"""```python
import slimnet  # {install_command("hub")}

model = slimnet.load("{address}"{given}).eval()
```"""


def forms_in_words(address: str, repository: str, *, exported: bool) -> str:
    """What is in the repository besides the weights, how that is checked, and code that loads it without slimnet."""
    safe = "Nothing in it is a pickle, and no code of this repository is run."
    if not exported:
        return (
            f"{safe} Its forward depends on data, so there is no exported program and no ONNX model: it runs in torch "
            f"alone. `slimnet verify {address}` checks every hash."
        )
    return f"""{safe} `slimnet verify {address}` checks every hash, and that
weights, exported program and ONNX model agree on your machine. Without slimnet:

```python
import onnxruntime
from huggingface_hub import hf_hub_download

session = onnxruntime.InferenceSession(hf_hub_download("{repository}", "{ONNX}"))
```"""


def layers(plan: SurgeryPlan) -> str:
    """The layers that became narrower, and how dead channels were found."""
    changed = [layer for layer in plan.layers if layer.channels_after != layer.channels_before]
    if not changed:
        return "Nothing: no channel was dead and could go."
    lines = [f"Dead is {plain(plan.criterion)}.", "", "| Layer | Channels before | after |", "|---|---:|---:|"]
    lines += [f"| {plain(each.name)} | {each.channels_before:,} | {each.channels_after:,} |" for each in changed][
        :LAYERS_SHOWN
    ]
    more = len(changed) - LAYERS_SHOWN
    return "\n".join([*lines, "", f"And {more:,} more layers, in `plan.json`."] if more > 0 else lines)


def inputs(blueprint: Blueprint) -> str:
    """The images that it takes and the classes that it knows, or the shapes of its example inputs."""
    shapes = [str(tuple(tensor.shape)) for tensor in random_inputs(blueprint.inputs, seed=0).tensors]
    batch = "; the first axis is the batch" if blueprint.plan.stop is None else ""
    example = f"Example inputs had the shape {' and '.join(shapes)}{batch}."
    if blueprint.images is None:
        return example
    return f"{example} It takes {plain(str(blueprint.images))}."


def versions(manifest: Manifest) -> str:
    """The versions that wrote the bundle, and the origin of the dense network if it was recorded."""
    written = ", ".join(f"{name} {plain(version)}" for name, version in manifest.versions.items())
    return f"{written}." if manifest.source is None else f"{written}. The dense network: {plain(manifest.source)}."


def plain(text: str) -> str:
    """Text from a file in which no character has a meaning in Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>|#&])", r"\\\1", text)
