"""The certificate of an int8 file as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text
from slimnet_cli.output import terminal

if TYPE_CHECKING:
    from slimnet.export.int8.certificate import Int8Certificate


def table(certificate: Int8Certificate) -> Table:
    """Accuracy and file size of every network, and its agreement with the first one."""
    from slimnet.report.formatting import percent

    reference = certificate.networks[0].name
    to_first = {each.name: each for each in certificate.agreements if each.other == reference}
    rows = []
    for network in certificate.networks:
        apart = to_first.get(network.name)
        agreement = (
            ("–", "–", "–") if apart is None else (percent(apart.top1, 2), f"{apart.mean:.2g}", f"{apart.largest:.2g}")
        )
        accuracy = network.accuracy
        rows.append(
            (
                Text(network.name),
                percent(accuracy.top1, 2),
                percent(accuracy.top5, 2),
                *agreement,
                f"{network.size_bytes:,}",
            )
        )
    headings = ("", "top-1", "top-5", f"class as {reference}", "logits apart, mean", "largest", "bytes")
    return terminal.table(headings, rows, right=range(1, len(headings)))


def lines(certificate: Int8Certificate) -> list[str]:
    """The agreements that the table does not hold, what was measured, and how it was calibrated."""
    reference = certificate.networks[0].name
    others = [str(each) for each in certificate.agreements if each.other != reference]
    runtime = f"{certificate.runtime} {certificate.versions.get(certificate.runtime, '')}"
    return [
        *others,
        f"measured on {certificate.n:,} test images of {certificate.data}, under {runtime}",
        f"quantised {certificate.scheme}; {certificate.calibration}",
    ]
