"""The program that measures an installation: which packages count, and their sizes. Times are not judged."""

from importlib.metadata import distribution
from pathlib import Path

import click
import install_size
import pytest

from slimnet.compat import fvcore, torch_pruning


@pytest.fixture(scope="module")
def plain() -> install_size.Installation:
    return install_size.installation("")


def test_all_that_comes_with_slimnet_is_measured(plain):
    """torch-pruning and fvcore are dependencies, and so is what they bring; extras are not."""
    names = {package.name for package in plain.packages}
    assert {"torch", "torchvision", "torch-pruning", "fvcore", "iopath", "tabulate", "onnxruntime", "click"} <= names
    assert not names & {"timm", "ray", "pytest", "slimnet"}
    assert not plain.missing
    assert all(package.size > 0 for package in plain.packages)
    assert plain.size == sum(package.size for package in plain.packages)
    assert fvcore()
    assert torch_pruning()


def test_the_size_of_a_package_is_that_of_its_files():
    """Oracle: the files in its two folders."""
    home = Path(click.__file__).parent
    folders = [home, *home.parent.glob("click-*.dist-info")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert install_size.size_of(distribution("click")) == sum(path.stat().st_size for path in files)


def test_an_extra_adds_its_packages_and_what_they_bring(plain):
    timm = install_size.installation("timm")
    added = {package.name for package in timm.packages} - {package.name for package in plain.packages}
    assert {"timm", "huggingface-hub"} <= added | set(timm.missing)
    assert "timm" in install_size.extras_of()
    assert "dev" not in install_size.extras_of()


def test_requirements_apply_by_their_markers_and_extras():
    found = install_size.required(
        ["plain>=1", "old; python_version < '3'", "more; extra == 'more'", "With_Extra[a,b]"], frozenset(["more"])
    )
    assert found == [
        ("plain", frozenset()),
        ("more", frozenset()),
        ("with-extra", frozenset(["a", "b"])),
    ]


def test_the_table_has_every_extra_and_time(plain):
    other = install_size.Installation("timm", plain.packages, ("absent",))
    assert install_size.seconds_of(["-c", "pass"], 1) > 0
    text = install_size.table([plain, other], {"import torch": 1.5})
    assert f"| none | {len(plain.packages)} |" in text
    assert "| timm (without absent) |" in text
    assert "| `import torch` | 1.50 |" in text
