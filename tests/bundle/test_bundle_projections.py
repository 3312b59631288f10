"""What a training set to zero, in the bundle of its network: written, checked against plan and weights, and shown."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import slimnet_cli
from bundles import Made, everything, forge, projections_of, refusal

from slimnet.bundle.bundle import save, verify_bundle
from slimnet.bundle.manifest import PROJECTIONS, read_manifest, write_manifest
from slimnet.bundle.projections import write_projections
from slimnet.errors import BundleError, ChangedBundleError

pytestmark = pytest.mark.usefixtures("operators_read_once")


@pytest.fixture
def shrunk(basic: Made, tmp_path) -> Path:
    """A copy of a bundle, as that of a training that set its dead channels to zero."""
    folder = shutil.copytree(basic.folder, tmp_path / "shrunk")
    write_projections(projections_of(basic.slimmed), folder, basic.slimmed.plan, basic.slimmed.certificate)
    write_manifest(folder, None, basic.slimmed.plan.digest)
    return folder


def test_the_record_comes_back_and_is_one_line_of_what_verifying_says(basic, shrunk, capsys):
    record = projections_of(basic.slimmed)
    assert record.count > 0
    found = verify_bundle(shrunk)
    assert found.projections == record
    assert str(found).splitlines()[-1] == str(record)
    assert verify_bundle(basic.folder).projections is None
    assert slimnet_cli.run(["verify", str(shrunk), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["projections"]["cuts"][0]["received"] == 1e-5


def alive(document: dict) -> None:
    """Say of every channel of a γ that it was set to zero; some are there."""
    channels = document["cuts"][0]["channels"]
    for name, found in channels.items():
        channels[name] = list(range(max(found) + 2))


def outside(document: dict) -> None:
    next(iter(document["cuts"][0]["channels"].values())).append(9999)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (alive, "it is there and is not"),
        (outside, "channel 9999 of .* the plan's network has"),
        (lambda document: document.update(patience=None), "patience"),
        (lambda document: [document], "must be an object"),
    ],
)
def test_a_record_that_was_forged_is_refused_in_one_line(shrunk, change, message):
    forge(shrunk, PROJECTIONS, change)
    assert message.split(" .*")[0] in refusal(BundleError, verify_bundle, shrunk)


def test_a_record_that_was_changed_or_lost_is_noticed_and_one_that_was_added_is_no_part_of_the_bundle(basic, shrunk):
    (shrunk / PROJECTIONS).write_text("{}")
    assert PROJECTIONS in refusal(ChangedBundleError, read_manifest, shrunk)
    (shrunk / PROJECTIONS).unlink()
    assert PROJECTIONS in refusal(ChangedBundleError, read_manifest, shrunk)
    write_manifest(shrunk, None, basic.slimmed.plan.digest)
    (shrunk / PROJECTIONS).write_text("{}")
    assert not read_manifest(shrunk).lists(PROJECTIONS)


def test_a_record_of_another_network_is_not_saved(basic, tmp_path):
    record = projections_of(basic.slimmed)
    other = dataclasses.replace(record.cuts[0], channels={"elsewhere.weight": (0,)})
    wrong = dataclasses.replace(record, cuts=(other,))
    message = refusal(BundleError, save, basic.slimmed, tmp_path / "slim", projections=wrong)
    assert "elsewhere.weight" in message
    assert everything(tmp_path) == {}
