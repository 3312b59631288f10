"""A process that spoils and reads: numbers of mutations come in, a verdict for each goes out, a JSON line at a time."""

import contextlib
import io
import json
import os
import re
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

# Its import cannot be tried again in a process where it once failed, as it may within the bounds below.
import torch._dynamo  # noqa: F401

from fuzzing.guard import Guard, difference, make_sentinel, tree
from fuzzing.hostile import CANARY
from fuzzing.mutation import Mutation
from fuzzing.readers import READERS
from fuzzing.specimens import make_specimens
from slimnet.errors import SlimnetError

SECONDS = 10.0
"""Processor time that one reader may take."""

BYTES = 2 << 30
"""Memory that it may take beside what the process has."""

MARKUP = re.compile(rf"<script>{CANARY}|<img src=x onerror={CANARY}")
"""What a page may hold of a hostile name only as text."""

OTHERS = "torchinductor_"
"""Temporary folders that torch makes for itself."""

guard = Guard()
"""Installed once in a process, since Python keeps its audit hooks."""


class SlowError(Exception):
    """A reader has used up its time."""


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Bound time and memory while the context lasts."""

    def stop(*_: object) -> None:
        raise SlowError

    before = signal.signal(signal.SIGPROF, stop)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, before)


def verdict(kind: str, folder: Path, file: Path, *, explain: bool = False) -> str | None:
    """What is wrong with how slimnet reads a spoilt file; None where nothing is. `explain` prints what readers say."""
    before = pages_in(folder)
    for place, read in enumerate(READERS[kind]):
        name, shown = f"{kind}, reader {place}", io.StringIO()
        guard.clear()
        wrong = said = None
        try:
            with limited(), contextlib.redirect_stderr(shown), contextlib.redirect_stdout(shown):
                said = read(folder, file)
        except SlimnetError as error:
            if "\n" in str(error) or not str(error).isprintable():
                wrong = f"unprintable: {name}: {error!r:.300}"
            said = error
        except SlowError:
            wrong = f"slow: {name}: over {SECONDS:g} s of processor time"
        except MemoryError:
            wrong = f"memory: {name}: over {BYTES >> 30} GiB"
        except BaseException as error:  # whatever it is, people would see it
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"({Path(last.filename).name}:{last.lineno})"
            wrong = f"traceback: {name}: {type(error).__name__}: {error!s:.200} {where}"
            if explain:
                traceback.print_exc()
        drawn = pages_in(folder) - before
        wrong = wrong or harm(name, shown.getvalue(), said, drawn)
        if explain:
            print(f"{name}: {shown.getvalue()}{said if said is not None else ''}"[:2000])
        if wrong:
            return wrong
    return None


def pages_in(folder: Path) -> set[str]:
    """The text of all pages in a folder; one that was spoilt is there before anything is read."""
    return {page.read_text(errors="replace") for page in folder.rglob("*.html")}


def harm(name: str, shown: str, said: object, pages: set[str]) -> str | None:
    """What a reader did, showed, returned or drew that it must not have."""
    if guard.executed:
        return f"executed: {name}: {guard.executed[0]}"
    if guard.written:
        return f"written: {name}: {guard.written[0]}"
    if "Traceback" in shown:
        return f"traceback: {name}: {shown[-300:]!r}"
    if "\x1b]" in shown:
        return f"unprintable: {name}: an escape sequence reached the terminal"
    if any(MARKUP.search(page) for page in (*pages, said if isinstance(said, str) else "")):
        return f"markup: {name}: a name from a file acts in a page"
    return None


class Reading:
    """Where mutations are made and read, with a tree beside of which nothing may change."""

    def __init__(self, specimens: Path, scratch: Path) -> None:
        self.specimens, self.scratch = specimens, scratch
        self.work, self.temporary = scratch / "work", scratch / "temporary"
        self.temporary.mkdir(parents=True)
        make_sentinel(scratch / "sentinel")
        self.before = self._outside()

    def make_specimen(self, kind: str) -> None:
        """Make the specimen of a kind where it is not there yet; it belongs to what may not change."""
        make_specimens(self.specimens, (kind,))
        self.before = self._outside()

    def _outside(self) -> dict[str, tuple[int, int, int]]:
        return tree(self.scratch / "sentinel") | tree(self.specimens)

    @contextlib.contextmanager
    def _here(self) -> Iterator[None]:
        """Be in an empty folder, with the folder for temporary files and the user's own beside it."""
        self.work.mkdir()
        places = {"HOME": str(self.scratch / "sentinel"), "TMPDIR": str(self.temporary)}
        known = {name: os.environ.get(name) for name in places}
        os.environ.update(places)
        tempfile.tempdir, earlier = None, tempfile.tempdir
        guard.within = tuple(os.path.realpath(place) for place in (self.work, self.temporary))
        try:
            with contextlib.chdir(self.work):
                yield
        finally:
            guard.within = ()
            tempfile.tempdir = earlier
            for name, value in known.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})
            shutil.rmtree(self.work, ignore_errors=True)

    def answer(self, mutation: Mutation, keep: Path | None = None, *, explain: bool = False) -> dict[str, object]:
        """Make and read one; its files are kept in a folder if anything is wrong, or where it is to be explained."""
        begun = time.process_time()
        with self._here():
            folder = self.work / str(mutation.number)
            with limited():
                file = mutation.make(self.specimens, folder)
            name = str(file.relative_to(folder))
            if keep is not None and explain:
                shutil.copytree(folder, keep, symlinks=True)
            wrong = verdict(mutation.kind, folder, file, explain=explain)
            outside = difference(self.before, self._outside())
            wrong = wrong or (f"written: {outside} was changed" if outside else None)
            left = sorted(path.name for path in self.temporary.iterdir() if not path.name.startswith(OTHERS))
            wrong = wrong or (f"left: {left[0]} among the temporary files" if left else None)
            for path in self.temporary.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        known = {"number": mutation.number, "kind": mutation.kind, "file": name, "wrong": wrong}
        return known | {"seconds": time.process_time() - begun, "peak_mib": peak}


def main() -> None:
    """Answer numbers and kinds on stdin with verdicts on stdout, until there are no more."""
    specimens, seed = Path(sys.argv[1]), int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    warnings.simplefilter("ignore")
    sys.dont_write_bytecode = True
    sys.addaudithook(guard)
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        reading = Reading(specimens, scratch)
        for line in sys.stdin:
            number, kind = line.split()
            answers.write(json.dumps(reading.answer(Mutation(seed, int(number), kind))) + "\n")
            answers.flush()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
