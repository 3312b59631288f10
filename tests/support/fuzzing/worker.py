"""A process that spoils and reads: numbers of mutations come in, a verdict for each goes out, a JSON line at a time."""

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

from fuzzing.hostile import CANARY
from fuzzing.readers import READERS
from fuzzing.specimens import CHECKPOINT_ARGS  # noqa: F401  (imports all that readers import, before the limits)
from fuzzing.spoiling import spoil
from slimnet.errors import SlimnetError

SECONDS = 10.0
"""Processor time that one reader may take."""

BYTES = 2 << 30
"""Memory that it may take beside what the process has."""

RUNNING = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect", "socket.bind")
"""Events of Python's audit that no reader may cause; decoders of images are forked, which is none of these."""

executed: list[str] = []


class SlowError(Exception):
    """A reader has used up its time."""


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """Note what only code from a file could have asked for."""
    if event in RUNNING and sys.executable not in repr(arguments):
        executed.append(f"{event} {arguments!r:.200}")
    if event == "import" and CANARY in str(arguments[0]):
        executed.append(f"import {arguments[0]}")
    if event == "compile" and CANARY in str(arguments[0]) and "import" in str(arguments[0]):
        executed.append(f"compile {arguments[0]!r:.200}")


def spoilt(number: int, seed: int, kind: str | None, specimens: Path, folder: Path) -> tuple[str, Path]:
    """Copy a specimen and spoil one file of it; the same for the same number and seed."""
    chance = random.Random(f"{seed}:{number}")
    kind = kind or chance.choice(list(READERS))
    shutil.copytree(specimens / kind, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in ("dense.pt", "lock"))
    file = chance.choice(files)
    file.write_bytes(spoil(file.name, chance, file.read_bytes()))
    return kind, file


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Bound time and memory while the context lasts."""

    def stop(*_: object) -> None:
        raise SlowError

    signal.signal(signal.SIGPROF, stop)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def verdict(kind: str, folder: Path, file: Path) -> str | None:
    """What is wrong with how slimnet reads a spoilt file; None where nothing is."""
    for place, read in enumerate(READERS[kind]):
        name, shown = f"{kind}, reader {place}", io.StringIO()
        executed.clear()
        try:
            with limited(), contextlib.redirect_stderr(shown), contextlib.redirect_stdout(shown):
                read(folder, file)
        except SlimnetError as error:
            if "\n" in str(error) or not str(error).isprintable():
                return f"unprintable: {name}: {error!r:.300}"
        except SlowError:
            return f"slow: {name}: over {SECONDS:g} s of processor time"
        except MemoryError:
            return f"memory: {name}: over {BYTES >> 30} GiB"
        except BaseException as error:  # whatever it is, people would see it
            last = traceback.extract_tb(error.__traceback__)[-1]
            return (
                f"traceback: {name}: {type(error).__name__}: {error!s:.200} ({Path(last.filename).name}:{last.lineno})"
            )
        if executed:
            return f"executed: {name}: {executed[0]}"
        if "Traceback" in shown.getvalue():
            return f"traceback: {name}: {shown.getvalue()[-300:]!r}"
        if "\x1b]" in shown.getvalue():
            return f"unprintable: {name}: an escape sequence reached the terminal"
    return None


def main() -> None:
    """Answer numbers on stdin with verdicts on stdout, until there are no more."""
    specimens, seed, kind = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    warnings.simplefilter("ignore")
    sys.addaudithook(watch)
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    os.chdir(scratch)
    try:
        for line in sys.stdin:
            number, folder, begun = int(line), scratch / line.strip(), time.process_time()
            name, file = spoilt(number, seed, kind, specimens, folder)
            answer = {"number": number, "kind": name, "file": file.name, "wrong": verdict(name, folder, file)}
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            answers.write(json.dumps(answer | {"seconds": time.process_time() - begun, "peak_mib": peak}) + "\n")
            answers.flush()
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
