"""torchvision and timm come in through one door, whether or not torchvision's compiled library loads."""

import importlib.util
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slimnet import compat
from slimnet.errors import UsageError


def run_fresh(code: str, *arguments: str) -> str:
    """What a script prints in an interpreter of its own where warnings are errors."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def write_stub(folder: Path, body: str) -> str:
    """Write a package that stands for torchvision, with `body` in its `__init__`; returns the folder."""
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(textwrap.dedent(body))
    return str(folder)


def torchvision_modules() -> dict[str, object]:
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "torchvision"}


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Put a package of that body in torchvision's place until the test ends."""
    real = torchvision_modules()
    for name in real:
        del sys.modules[name]
    yield lambda body: monkeypatch.syspath_prepend(write_stub(tmp_path, body))
    for name in torchvision_modules():
        del sys.modules[name]
    sys.modules.update(real)


def test_torchvision_networks_run_even_after_an_import_that_failed():
    """Python keeps submodules of a package whose import failed; another import on top of them fails again."""
    printed = run_fresh("""
        import torch
        from slimnet import compat
        try:
            import torchvision
        except RuntimeError:
            pass
        network = compat.torchvision().models.resnet18(num_classes=3).eval()
        print(tuple(network(torch.zeros(2, 3, 32, 32)).shape), compat.torchvision() is compat.torchvision())
    """)
    assert printed == "(2, 3) True"


def test_only_the_operators_that_the_import_misses_are_declared(tmp_path):
    folder = write_stub(
        tmp_path,
        """
        import torch
        torch.library.register_fake("torchvision::qnms")(lambda dets, scores, threshold: scores)
        """,
    )
    printed = run_fresh(
        """
        import sys, torch
        from slimnet import compat
        sys.path.insert(0, sys.argv[1])
        compat.torchvision()
        print(hasattr(torch.ops.torchvision, "qnms"), hasattr(torch.ops.torchvision, "nms"))
        """,
        folder,
    )
    assert printed == "True False"


def test_nothing_is_declared_where_torchvision_imports_by_itself(stub):
    before = list(compat._declarations)
    stub("answer = 42")
    assert compat.torchvision().answer == 42
    assert compat._declarations == before


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise RuntimeError('operator torchvision::unheard_of does not exist')", "unheard_of"),
        ("raise RuntimeError('built for another CUDA\\nsecond line')", "built for another CUDA"),
        ("import a_library_that_is_missing", "a_library_that_is_missing"),
        ("raise OSError('libcudart.so: cannot open')", "libcudart"),
    ],
)
def test_a_torchvision_that_is_broken_otherwise_is_reported_in_one_line(stub, body, reason):
    stub(body)
    with pytest.raises(UsageError, match=reason) as caught:
        compat.torchvision()
    assert "reinstall it to match torch" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is an optional extra")
def test_timm_comes_with_networks():
    assert compat.timm().is_model("resnet18")


def test_a_missing_timm_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"timm is not installed; pip install '\.\[timm\]' in a clone of slimnet"):
        compat.timm()


def test_fvcore_warns_of_nothing_when_it_is_imported():
    """In an interpreter where warnings are errors: it compiles functions by a way that torch calls deprecated."""
    printed = run_fresh("""
        import warnings
        from slimnet import compat
        before = list(warnings.filters)
        print(compat.fvcore().__name__, compat.fvcore() is compat.fvcore(), warnings.filters == before)
    """)
    assert printed == "fvcore.nn True True"
