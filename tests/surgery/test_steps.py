"""What long work reports: steps to a callback, results and times to a logger that is silent unless asked."""

import logging
import re
import subprocess
import sys

import pytest
import torch
from networks import lively

import slimnet
from slimnet.steps import LOG, Steps

IMAGES = torch.zeros(2, 1, 8, 8)
ARGS = {"widths": [4, 6], "pool_after": [1], "hidden": 8, "in_channels": 1}
SEARCHING, CERTIFYING = "finding and cutting dead channels", "measuring the certificate"


@pytest.fixture(scope="module")
def dense():
    torch.manual_seed(0)
    return lively(slimnet.build("basicnet", ARGS)).eval()


def test_slim_reports_its_steps_and_the_batches_in_them(dense):
    """Two batches for the certificate, which is measured in one pass. Oracle: the slim network is the same one."""
    reported = []
    loader = [torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)]
    slimmed = slimnet.slim(dense, IMAGES, loader=loader, progress=lambda *step: reported.append(step))
    assert reported == [
        (0, 2, SEARCHING),
        (1, 2, SEARCHING),
        (1, 2, CERTIFYING),
        (1, 2, f"{CERTIFYING}, batch 1"),
        (1, 2, f"{CERTIFYING}, batch 2"),
        (2, 2, CERTIFYING),
    ]
    assert slimmed.plan == slimnet.slim(dense, IMAGES).plan


def test_a_criterion_on_data_reports_its_batches(dense):
    reported = []
    loader = [torch.randn(2, 1, 8, 8)] * 3
    slimnet.slim(dense, IMAGES, criterion="activation", loader=loader, progress=lambda *step: reported.append(step))
    assert reported[1:4] == [(0, 2, f"{SEARCHING}, batch {number}") for number in (1, 2, 3)]
    assert [finished for finished, _, _ in reported] == sorted(finished for finished, _, _ in reported)


def test_an_exception_in_the_callback_ends_the_work_and_leaves_nothing(basic, tmp_path):
    def stop(finished, total, doing):
        assert total == 3
        if finished == 2:
            raise RuntimeError(doing)

    with pytest.raises(RuntimeError, match="exporting"):
        slimnet.save(basic.slimmed, tmp_path / "slim", progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def logged(caplog, monkeypatch):
    """The records of the logger, also where another package of this process has disabled those there were."""
    monkeypatch.setattr(LOG, "disabled", False)
    monkeypatch.setattr(LOG, "propagate", True)
    return caplog


def test_the_logger_has_results_and_the_seconds_of_steps(dense, logged):
    logged.set_level(logging.DEBUG, "slimnet")
    slimnet.slim(dense, IMAGES)
    levels = [(record.levelname, record.name) for record in logged.records]
    assert levels == [("DEBUG", "slimnet"), ("DEBUG", "slimnet"), ("INFO", "slimnet")]
    assert re.fullmatch(rf"{CERTIFYING}: \d+\.\d{{3}} s", logged.messages[1])
    assert logged.messages[2].startswith("slimmed BasicNet, 0 of 28 channels removed; parameters ")


def test_it_is_silent_unless_a_program_asks_for_it():
    """A logger without a handler would write warnings to stderr. Oracle: what a process writes."""
    script = "import logging, slimnet; logging.getLogger('slimnet').warning('a warning')"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")


def test_names_of_files_are_printable_in_the_log(logged):
    logged.set_level(logging.INFO, "slimnet")
    slimnet.steps.log_result("written to a\x1b[0m\nb")
    assert logged.messages == ["written to a\\x1b[0m b"]


def test_without_a_callback_nothing_is_called():
    with Steps(1).step(0, "work"):
        pass
    assert list(Steps(1).counted([1, 2], 0, "work")) == [1, 2]


def test_verification_reports_its_steps_and_measures_again_only_with_the_dense_network(dense, tmp_path):
    reading, comparing, again = "reading the bundle", "comparing all forms", "measuring the certificate again"
    folder = slimnet.save(slimnet.slim(dense, IMAGES), tmp_path / "slim")
    reported = []
    slimnet.verify_bundle(folder, progress=lambda *step: reported.append(step))
    assert reported == [(0, 2, reading), (1, 2, reading), (1, 2, comparing), (2, 2, comparing)]
    reported.clear()
    loader = [torch.randn(2, 1, 8, 8)]
    slimnet.verify_bundle(folder, dense=dense, loader=loader, progress=lambda *step: reported.append(step))
    assert reported[-3:] == [(2, 3, again), (2, 3, f"{again}, batch 1"), (3, 3, again)]


@pytest.mark.parametrize(("export", "name"), [(slimnet.export_onnx, "net.onnx"), (slimnet.export_pt2, "net.pt2")])
def test_exports_report_their_steps(dense, tmp_path, export, name):
    reported = []
    export(dense, IMAGES, tmp_path / name, progress=lambda *step: reported.append(step))
    capturing, checking = "capturing the network", "translating and comparing"
    assert reported == [(0, 2, capturing), (1, 2, capturing), (1, 2, checking), (2, 2, checking)]
