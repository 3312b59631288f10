"""What no reader may do while it reads: run something, connect, import the canary, write beside its folder."""

import ast
import os
import stat
import sys
import tempfile
from pathlib import Path

from fuzzing.hostile import CANARY

RUNNING = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect", "socket.bind")
"""Events of Python's audit that no reader may cause; decoders of images are forked, which is none of these."""

CHANGING = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
"""Events with a path that is changed; all their paths have to be inside of the folder."""

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FREE = ("/dev/null", "/dev/tty", "/proc/self/", os.path.join(tempfile.gettempdir(), "torchinductor_"))
"""Where anything may write; the last is the folder that parts of torch make when they are first imported."""

Tree = dict[str, tuple[int, int, int]]


class Guard:
    """Notes in `executed` and `written` what was done that must not be; writing is allowed in the folders `within`."""

    def __init__(self) -> None:
        self.executed: list[str] = []
        self.written: list[str] = []
        self.within: tuple[str, ...] = ()

    def clear(self) -> None:
        """Forget what was noted."""
        self.executed.clear()
        self.written.clear()

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        """Watch an event of Python's audit (`sys.addaudithook`)."""
        if event in RUNNING and not is_own(repr(arguments)):
            self.executed.append(f"{event} {arguments!r:.200}")
        if event == "import" and CANARY in str(arguments[0]):
            self.executed.append(f"import {arguments[0]}")
        if (
            event == "compile"
            and CANARY in str(arguments[0])
            and "import" in str(arguments[0])
            and not is_parsed_alone()
        ):
            self.executed.append(f"compile {arguments[0]!r:.200}")
        if self.within:
            for path in changed(event, arguments):
                if not self.allows(path):
                    self.written.append(f"{event} {path!r:.200}")

    def allows(self, path: str) -> bool:
        """Whether a path, its links followed, may be written."""
        # Python writes the bytecode of what it imports for the first time.
        return os.path.realpath(path).startswith((*self.within, *FREE)) or "/__pycache__/" in f"{path}/"


def is_own(arguments: str) -> bool:
    """Whether a program is Python's, or what its module `platform` asks for the processor's name."""
    return sys.executable in arguments or arguments.startswith("('uname', ['uname', '-p'],")


def is_parsed_alone() -> bool:
    """Whether `ast.parse` asks: NumPy reads the headers of arrays so, and makes no code of them."""
    frame = sys._getframe(2)
    return frame.f_code is ast.parse.__code__


def changed(event: str, arguments: tuple[object, ...]) -> list[str]:
    """The paths that an event is about to change."""
    if event == "open":
        path, _, flags = arguments
        return (
            [os.fsdecode(path)] if isinstance(path, str | bytes) and isinstance(flags, int) and flags & WRITING else []
        )
    if event not in CHANGING:
        return []
    paths = [os.fsdecode(each) for each in arguments[:2] if isinstance(each, str | bytes)]
    # A path relative to an open folder (as `shutil.rmtree` has them) is one of a folder that was entered before.
    return [path for path in paths if os.path.isabs(path) or arguments[-1] == -1]


def make_sentinel(folder: Path) -> Path:
    """A tree beside what is read, of which nothing may change."""
    (folder / "inner" / "empty").mkdir(parents=True)
    for name in ("net.pt", "inner/recipe.json", "inner/sweep.sqlite"):
        (folder / name).write_text("untouched\n")
    (folder / "link").symlink_to("net.pt")
    return folder


def tree(folder: Path) -> Tree:
    """Everything below a folder: kind, size and when it was changed last."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            status = os.lstat(os.path.join(place, name))
            found[os.path.join(place, name)] = (stat.S_IFMT(status.st_mode), status.st_size, status.st_mtime_ns)
    return found


def difference(before: Tree, after: Tree) -> str | None:
    """The first path that was written, made or removed."""
    paths = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return paths[0] if paths else None
