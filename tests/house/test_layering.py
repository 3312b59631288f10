"""Public names, packages, small files, and a library without a terminal; the order of imports is import-linter's."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import slimnet

ROOT = Path(__file__).parents[2]
LIBRARY = sorted((ROOT / "slimnet").rglob("*.py"))
SOURCES = [
    path for folder in ("slimnet", "cli", "benchmarks", "examples", "tests") for path in (ROOT / folder).rglob("*.py")
]
PUBLIC = [
    "Certificate",
    "ImageSpec",
    "Inspection",
    "Monitor",
    "OnnxExport",
    "Shrinker",
    "Slimmed",
    "SlimmedOnnx",
    "SlimnetError",
    "SurgeryPlan",
    "Verification",
    "apply_plan",
    "build",
    "certify",
    "export_executorch",
    "export_int8",
    "export_ncnn",
    "export_onnx",
    "export_openvino",
    "export_pt2",
    "inspect",
    "load",
    "load_checkpoint",
    "push_to_hub",
    "save",
    "slim",
    "slim_onnx",
    "verify_bundle",
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def test_every_package_is_installed() -> None:
    """A folder that pyproject.toml does not list works in a checkout and is missing from a wheel."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {module_name(path) for path in LIBRARY if path.name == "__init__.py"}
    commands = {path.parent for path in (ROOT / "cli").rglob("__init__.py")}
    named = {".".join(("slimnet_cli", *path.relative_to(ROOT / "cli").parts)) for path in commands}
    assert folders | named == set(listed)


NAMES = {module_name(path) for path in LIBRARY}


def imports(path: Path) -> set[str]:
    """The modules that a file imports when it is imported itself (not what its functions import later)."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & NAMES or {node.module or ""}
    return found


def test_the_public_names_are_these():
    assert slimnet.__all__ == PUBLIC


def test_names_that_are_imported_on_demand_are_listed_as_well():
    """In a fresh process, in which nothing has asked for them."""
    code = "import slimnet; print(set(slimnet.__all__) - set(dir(slimnet)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_package_has_the_marker_of_a_typed_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for file in project["tool"]["setuptools"]["package-data"]["slimnet"]:
        assert (ROOT / "slimnet" / file).is_file()


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name):
    assert getattr(slimnet, name).__doc__


@pytest.mark.parametrize("path", LIBRARY, ids=module_name)
def test_the_library_has_no_terminal(path):
    """No click, no rich, no print, and nothing of the command line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert "print" not in calls
    modules = {name.partition(".")[0] for name in imports(path)}
    assert not modules & {"click", "rich", "slimnet_cli", "benchmarks", "tqdm"}


def test_imports_follow_the_contracts():
    """Rooms are in order, and no imports are circular, lazy ones and those for type checking included."""
    lint_imports = pytest.importorskip("importlinter.cli").lint_imports
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_packages_that_break_are_imported_in_one_place_only():
    for path in LIBRARY:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        if {name.partition(".")[0] for name in names} & {"torchvision", "timm", "fvcore", "torch_pruning"}:
            assert module_name(path) == "slimnet.compat"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= (600 if "tests" in path.relative_to(ROOT).parts else 400)
