"""The phases of `slimnet export`, weighed by how long they took on a ResNet-56."""

from __future__ import annotations

from collections.abc import Sequence

from slimnet_cli.output.phases import Phase
from slimnet_cli.output.slimming_phases import FOR_EACH_IMAGE, READING


def export_phases() -> list[Phase]:
    """The phases of an export in float32, in their order."""
    from slimnet.export.form import CAPTURING, CHECKING

    return [Phase(READING), Phase(CAPTURING, weight=2.0), Phase(CHECKING, weight=6.0)]


def int8_phases(networks: Sequence[str], images: int) -> list[Phase]:
    """The phases of an export in int8: of these networks, each in float32 and in int8, measured on so many images."""
    from slimnet.export.int8.certificate import MEASURING
    from slimnet.export.int8.export import exporting, quantising

    made = [Phase(step(name), weight=8.0) for name in networks for step in (exporting, quantising)]
    return [Phase(READING), *made, Phase(MEASURING, weight=FOR_EACH_IMAGE * images)]
