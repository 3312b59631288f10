"""The notebooks of examples/ run from their first cell to their last, as Jupyter runs them, and are stored without
outputs."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))
LONGEST = 60
"""Seconds of one core, the start of the kernel included."""

RUN = """
import json, sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
json.dump([cell.get("outputs", []) for cell in notebook.cells], sys.stdout)
"""


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["compare_methods", "slim_torchvision", "watch_filters_die"]


SAMPLE = "slim_torchvision"
"""The notebook that a plain run of the tests executes: each takes half a minute of one core."""


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[] if path.stem == SAMPLE else pytest.mark.sweep) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_a_notebook_runs(path, tmp_path):
    """In a kernel, within a minute of one core; what it claims, it asserts itself, and no cell writes a warning."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    environment = os.environ | {
        "JUPYTER_RUNTIME_DIR": str(tmp_path),
        "IPYTHONDIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < LONGEST
    assert "certificate holds" in done.stdout
    assert '"name": "stderr"' not in done.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_valid_and_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in code] == [([], None)] * len(code)
