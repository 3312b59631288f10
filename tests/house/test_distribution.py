"""The wheel and the sdist have what the code needs, and nothing else; the sdist builds the same wheel."""

import ast
import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("slimnet", "cli", "docs", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md")
OTHERS = ("CITATION.cff", "CONTRIBUTING.md", "SECURITY.md", "constraints.txt")
SKIPPED = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")
BUILD = "import sys, setuptools.build_meta as b; print(); print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"


def built(source: Path, kind: str, out: Path) -> Path:
    """A distribution built by the build backend itself, which pip and build call in the same way, without a network."""
    out.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", BUILD, kind, str(out)]
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A clean copy of what is built, in which building may leave files."""
    folder = tmp_path_factory.mktemp("source")
    for name in (*SOURCES, *OTHERS):
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, folder / name, ignore=SKIPPED)
        else:
            shutil.copy(path, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(source) -> Path:
    return built(source, "wheel", source / "out")


def files_of(wheel: Path) -> set[str]:
    """The files that a wheel installs, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def on_disk() -> set[str]:
    """What the packages have, code and data, by the names under which it is installed."""
    paths = [path for folder in ("slimnet", "cli") for path in (ROOT / folder).rglob("*") if path.is_file()]
    names = [path.relative_to(ROOT).as_posix() for path in paths if path.suffix != ".pyc"]
    return {re.sub("^cli/", "slimnet_cli/", name) for name in names}


def test_the_wheel_has_every_file_of_the_packages_and_no_other(wheel):
    """Templates, style, tables and py.typed as well; no tests and no benchmarks."""
    files = files_of(wheel)
    assert files == on_disk()
    assert {"slimnet/py.typed", "slimnet/report/templates/report.css", "slimnet/reproduction/tables.json"} <= files
    assert {name.partition("/")[0] for name in files} == {"slimnet", "slimnet_cli"}


def test_every_data_file_is_opened_by_the_code():
    """One that no code names is in the wheel for nothing, or its name is wrong in the code."""
    code = "".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "slimnet").rglob("*")
        if path.suffix != ".pyc" and path.is_file()
    )
    data = {Path(name) for name in on_disk() if not name.endswith(".py")} - {Path("slimnet/py.typed")}
    assert data
    assert not [path for path in data if path.name not in code and path.name.removesuffix(".html.jinja") not in code]


def test_the_metadata_say_what_pypi_shows(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (folder,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        metadata = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
        assert archive.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        scripts = archive.read(f"{folder}/entry_points.txt").decode()
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert scripts.split() == ["[console_scripts]", "slimnet", "=", "slimnet_cli:main"]


def test_the_sdist_builds_the_same_wheel(source, wheel, tmp_path):
    sdist = built(source, "sdist", tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = [path for path in tmp_path.iterdir() if path.name.startswith("slimnet-")]
    assert all((folder / name).is_file() for name in (*OTHERS, "LICENSE", "docs/versioning.md"))
    assert not any((folder / name).exists() for name in ("tests", "benchmarks"))
    assert files_of(built(folder, "wheel", tmp_path / "again")) == files_of(wheel)


COMPILE = """
import ast, pathlib, sys
known, *folders = sys.argv[1:]
for folder in folders:
    for path in sorted(pathlib.Path(folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        compile(tree, str(path), "exec")
        named = [each.module for each in ast.walk(tree) if isinstance(each, ast.ImportFrom) and not each.level]
        named += [alias.name for each in ast.walk(tree) if isinstance(each, ast.Import) for alias in each.names]
        for name in {each.partition(".")[0] for each in named} & set(known.split(",")) - sys.stdlib_module_names:
            print(path, name)
"""


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_every_python_that_the_metadata_name_compiles_the_code(version):
    """With its warnings as errors, and each module of the standard library that is imported is there."""
    interpreter = shutil.which(f"python{version}")
    if interpreter is None or subprocess.run([interpreter, "-V"], capture_output=True, check=False).returncode:
        pytest.skip(f"there is no Python {version}")
    command = [interpreter, "-I", "-W", "error", "-c", COMPILE, ",".join(sys.stdlib_module_names)]
    done = subprocess.run(
        [*command, str(ROOT / "slimnet"), str(ROOT / "cli")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_no_syntax_is_newer_than_the_oldest_python_of_the_metadata():
    """By the feature version of the parser; ruff's target is the same version."""
    for path in (path for folder in ("slimnet", "cli") for path in (ROOT / folder).rglob("*.py")):
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 11))
    assert 'target-version = "py311"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_installed_wheel_runs_from_its_own_files(wheel, tmp_path):
    """In a folder of its own, in isolation from this checkout: the command, and each file of data that it opens."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import slimnet, slimnet_cli\n"
        "from slimnet.reproduction.catalogue import document, tables\n"
        "from slimnet.report import rendering\n"
        "assert tables() and document('experiments.json')\n"
        "assert all(rendering.TEMPLATES.glob('*.html.jinja'))\n"
        "print(slimnet.__file__, slimnet_cli.__file__)\n"
        "sys.exit(slimnet_cli.run(['--help']))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    places = done.stdout.splitlines()[0].split()
    assert places == [str(tmp_path / "site" / name / "__init__.py") for name in ("slimnet", "slimnet_cli")]
    assert "Usage: slimnet" in done.stdout
