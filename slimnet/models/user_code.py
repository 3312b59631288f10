"""import_user_code: the module that an architecture names, installed, in the working folder, or a file."""

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


def import_user_code(name: str) -> ModuleType:
    """Import a module by its name, or a file by its path (`nets/mine.py`).

    The working folder is searched last, and only for this module and what it imports: a program does not otherwise look
    there, and a file that lies there by chance shall not take the place of an installed package. A file may import the
    modules beside it. Importing it twice gives the same module.

    Raises:
        Exception: whatever the code itself raises; ModuleNotFoundError and FileNotFoundError where there is none.
    """
    if name.endswith(".py"):
        return _import_file(Path(name))
    with last_on_path(Path.cwd()):
        return importlib.import_module(name)


def _import_file(path: Path) -> ModuleType:
    place = path.resolve(strict=True)
    # Two files of one name in different folders are two modules.
    name = f"{place.stem}_{hashlib.sha256(str(place).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, place)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Code that looks itself up, such as a dataclass, finds it there.
    sys.modules[name] = module
    try:
        with last_on_path(place.parent):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def last_on_path(folder: Path) -> Iterator[None]:
    """Search a folder after all others."""
    entry = str(folder)
    sys.path.append(entry)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        # The last of several alike: the others are not ours.
        del sys.path[len(sys.path) - 1 - sys.path[::-1].index(entry)]
