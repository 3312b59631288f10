"""The phases of `slimnet slim`, weighed by how long they took on a ResNet-56."""

from __future__ import annotations

from slimnet_cli.output.phases import Phase

READING, CHOICE, REMOVAL, LATENCY = "reading", "choosing channels", "correcting and cutting", "measuring the latency"
DENSE_ACCURACY = "accuracy of the dense network"
LATENCY_SECONDS = 3.0
FOR_EACH_IMAGE = 0.1
"""The weight of an image in a pass over all of them by several networks."""


def slimming_phases(*, widths: bool, budget: bool, refit: bool, latency: bool, images: int) -> list[Phase]:
    """The phases in their order.

    `widths` is whether widths are measured, `budget` whether live channels are removed, `refit` whether weights are
    fitted afterwards, `latency` whether the result is timed, `images` the number of images for the certificate.
    """
    from slimnet.bundle.bundle import COMPARING, EXPORTING, WRITING
    from slimnet.pipeline import CERTIFYING, SEARCHING

    removal = [Phase(CHOICE, weight=60.0 if widths else 2.0), Phase(REMOVAL, weight=30.0 if refit else 4.0)]
    search = [Phase(SEARCHING, weight=60.0 if widths else 1.5)]
    passes = [Phase(CERTIFYING, weight=1.5 + FOR_EACH_IMAGE * images)]
    passes += [Phase(LATENCY, LATENCY_SECONDS)] if latency else []
    passes += [Phase(DENSE_ACCURACY, weight=FOR_EACH_IMAGE * images / 2)] if budget and images else []
    exports = [Phase(WRITING), Phase(EXPORTING, weight=80.0), Phase(COMPARING, weight=18.0)]
    return [Phase(READING), *(removal if budget else search), *passes, *exports]
