"""Networks that are not on the CPU: the cases of `device_*.py`, on a GPU or one made of the CPU (see `elsewhere`)."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import backend_registration

SUPPORT = Path(__file__).parents[1] / "support"
CASES = sorted(str(path) for path in SUPPORT.glob("device_*.py"))
can_pretend = "_setup_privateuseone_for_python_backend" in vars(backend_registration)


@pytest.mark.skipif(not (can_pretend or torch.cuda.is_available()), reason="this torch takes no device in Python")
def test_cases_hold_on_a_device():
    """In a process of their own: a process that has had such a device cannot be forked, which other tests do."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *CASES]
    done = subprocess.run(command, cwd=SUPPORT.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
