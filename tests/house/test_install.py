"""How slimnet is installed: from a clone, since its name on PyPI is another project's."""

import re
import tomllib
from pathlib import Path

import pytest

from slimnet.version import install_command

ROOT = Path(__file__).parents[2]
PLACES = ("slimnet", "cli", "docs", "examples", "benchmarks", "README.md", "CONTRIBUTING.md", "SECURITY.md")
KINDS = {".py", ".md", ".ipynb", ".jinja", ".toml", ".yml"}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]

FROM_PYPI = re.compile(r"pip install (-\S+ )*['\"]?slimnet\b|\bslimnet\[[a-z]|pypi\.org/project/slimnet")
"""What would install or show the other project."""


def texts() -> list[Path]:
    """Every text that a user may read, in a file or in what a program prints."""
    files = [path for place in PLACES for path in [ROOT / place, *(ROOT / place).rglob("*")]]
    return [path for path in files if path.is_file() and path.suffix in KINDS]


def test_no_text_installs_the_package_of_that_name_on_pypi():
    found = [(path, FROM_PYPI.search(path.read_text(encoding="utf-8"))) for path in texts()]
    assert len(found) > 400
    assert [f"{path.relative_to(ROOT)}: {match[0]}" for path, match in found if match] == []


@pytest.mark.parametrize(
    "text", ["pip install slimnet", "pip install -U slimnet", "pip install 'slimnet[hub]'", "pypi.org/project/slimnet/"]
)
def test_such_a_text_is_found(text):
    assert FROM_PYPI.search(text)


def test_every_extra_that_a_message_or_a_page_names_exists():
    asked = {path: re.findall(r"install_command\([\"'](.+?)[\"']\)", path.read_text("utf-8")) for path in texts()}
    written = {path: re.findall(r"pip install '\.\[([a-z0-9-]+)\]'", path.read_text("utf-8")) for path in texts()}
    named = {extra for extras in [*asked.values(), *written.values()] for extra in extras}
    assert {"hub", "timm", "openvino-int8", "ray"} <= named <= set(EXTRAS)
    assert install_command("hub") == "pip install '.[hub]' in a clone of slimnet"
