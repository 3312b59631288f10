"""What a killed process left half-written is removed by the next one that writes there; what is in use never is."""

import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from processes import forkserver, runs

from slimnet.errors import SlimnetError
from slimnet.storage import staging
from slimnet.storage.files import held, whole_file, whole_folder
from slimnet.storage.staging import clear, is_staging, machine, staged_file, staged_folder, staging_path

KINDS = ("file", "folder")
FOREVER = 600.0


def stay_in(kind: str, target: Path, places: Connection) -> None:
    """Begin to write, and say where."""
    with {"file": whole_file, "folder": whole_folder}[kind](target, SlimnetError) as place:
        (place if kind == "file" else place / "weights").write_text("half")
        places.send(place)
        time.sleep(FOREVER)


def fork_in(target: Path, places: Connection) -> None:
    """Begin to write, and be killed while a forked child lives on."""
    with whole_file(target, SlimnetError) as place:
        if not (child := os.fork()):
            time.sleep(FOREVER)
        places.send((child, place))
        os.kill(os.getpid(), signal.SIGKILL)


def write_often(folder: Path, name: str) -> None:
    for number in range(100):
        with whole_file(folder / name, SlimnetError) as file:
            file.write_text(name * 1000)
        with whole_folder(folder / f"{name}{number}", SlimnetError) as made:
            (made / "weights").write_text(name)


@contextmanager
def writing(kind: str, target: Path) -> Iterator[tuple[BaseProcess, Path]]:
    """Another process in the middle of writing, and its staging."""
    context = forkserver()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=stay_in, args=(kind, target, theirs))
    process.start()
    try:
        yield process, ours.recv()
    finally:
        process.kill()
        process.join()


def killed(kind: str, target: Path) -> Path:
    """The staging of a process that was killed in the middle of writing."""
    with writing(kind, target) as (process, place):
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert place.exists()
    assert not target.exists()
    return place


def write(kind: str, target: Path) -> None:
    if kind == "file":
        with whole_file(target, SlimnetError) as place:
            place.write_text("whole")
    else:
        with whole_folder(target, SlimnetError) as place:
            (place / "weights").write_text("whole")


def hold(folder: Path) -> None:
    with held(folder, SlimnetError, "at work"):
        pass


@pytest.mark.parametrize("left", KINDS)
@pytest.mark.parametrize(
    "come", [lambda folder: write("file", folder / "other"), lambda folder: write("folder", folder / "other"), hold]
)
def test_the_next_command_removes_what_a_killed_process_left(left: str, come: Callable[[Path], None], tmp_path):
    place = killed(left, tmp_path / "target")
    come(tmp_path)
    assert not place.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_living_process_writes_stays(kind, tmp_path):
    """It stays until that process ends, even though others write the same target meanwhile."""
    with writing(kind, tmp_path / "target") as (process, place):
        write("file", tmp_path / "other")
        write(kind, tmp_path / "target")
        clear(tmp_path)
        assert place.exists()
        process.kill()
        process.join()
        clear(tmp_path)
        assert not place.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_what_this_machine_left_before_it_started_again_is_removed(kind, tmp_path, monkeypatch):
    """Whichever process has the number by now: what has no lock after the start is nobody's."""
    monkeypatch.setattr(staging, "host", lambda: "12345678")
    monkeypatch.setattr(staging, "machine", lambda: "00000000")
    places = [staging_path(tmp_path / name) for name in ("left", "in use")]
    for place in places:
        place.mkdir() if kind == "folder" else place.touch()
    monkeypatch.setattr(staging, "machine", lambda: "ffffffff")
    descriptor = os.open(places[1], os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    clear(tmp_path)
    os.close(descriptor)
    assert [place.exists() for place in places] == [False, True]


def test_a_machine_without_an_identity_is_known_by_when_it_started_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "HOST", tmp_path / "none")
    staging.host.cache_clear()
    try:
        place = staging_path(tmp_path / "target")
    finally:
        staging.host.cache_clear()
    place.touch()
    monkeypatch.setattr(staging, "machine", lambda: "ffffffff")
    clear(tmp_path)
    assert place.exists()
    assert is_staging(place.name)


@pytest.mark.parametrize("kind", KINDS)
def test_what_another_machine_left_stays(kind, tmp_path, monkeypatch):
    """A lock held on another machine may not be seen here, so that nothing tells its staging from one in use."""
    place = killed(kind, tmp_path / "target")
    monkeypatch.setattr(staging, "machine", lambda: "00000000")
    monkeypatch.setattr(staging, "host", lambda: "00000000")
    clear(tmp_path)
    write("file", tmp_path / "other")
    assert place.exists()
    monkeypatch.undo()
    clear(tmp_path)
    assert not place.exists()


def test_a_machine_is_another_one_once_it_has_started_again(tmp_path, monkeypatch):
    before = machine()
    monkeypatch.setattr(staging, "BOOT", tmp_path / "boot_id")
    (tmp_path / "boot_id").write_text("1f2e3d4c-0000-4000-8000-000000000000\n")
    machine.cache_clear()
    assert machine() != before
    monkeypatch.undo()
    machine.cache_clear()
    assert machine() == before


def test_what_only_looks_like_staging_stays(tmp_path):
    """Files of others, among them those that an editor hides, are none of ours."""
    names = ("notes.tmp", ".net.swp", ".net.12345678.tmp", f"net.{machine()}.12345678.tmp", f".net.{machine()}.tmp")
    for name in names:
        (tmp_path / name).write_text("mine")
        assert not is_staging(name)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_text("mine")
    staging_path(tmp_path / "linked").symlink_to(tmp_path / "elsewhere")
    clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {*names, "elsewhere"}
    assert (tmp_path / "elsewhere" / "mine").read_text() == "mine"


@pytest.mark.parametrize("staged", [staged_file, staged_folder])
def test_staging_that_is_removed_before_it_has_its_lock_is_made_again(staged, tmp_path, monkeypatch):
    """Between the two system calls another command may take it for left behind."""
    real, removed = staging.fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        if not removed:
            (path,) = tmp_path.iterdir()
            removed.append(path)
            path.rmdir() if path.is_dir() else path.unlink()
        real(descriptor, operation)

    monkeypatch.setattr(staging.fcntl, "flock", flock)
    with staged(tmp_path / "target") as place:
        assert place.exists()
        assert place not in removed
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_is_written_to_and_cleared_of_nothing(tmp_path, monkeypatch):
    place = killed("file", tmp_path / "target")

    def flock(_: int, __: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(staging.fcntl, "flock", flock)
    write("file", tmp_path / "target")
    write("folder", tmp_path / "folder")
    assert place.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"target", "folder", place.name}


def test_many_commands_at_once_remove_it_once_and_disturb_nobody(tmp_path):
    """Each writes its own file, over and over, where much is left behind."""
    for number in range(3):
        killed("folder", tmp_path / f"left{number}")
    processes = [forkserver().Process(target=write_often, args=(tmp_path, name)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    for name in "abc":
        assert (tmp_path / name).read_text() == name * 1000
        assert all((tmp_path / f"{name}{number}" / "weights").read_text() == name for number in range(100))


def test_a_child_that_outlives_its_parent_keeps_what_both_have(tmp_path):
    """A forked process shares the lock; the staging is in use as long as one of them lives."""
    context = forkserver()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=fork_in, args=(tmp_path / "target", theirs))
    process.start()
    theirs.close()
    child, place = ours.recv()
    process.join()
    try:
        clear(tmp_path)
        assert place.exists()
    finally:
        os.kill(child, signal.SIGKILL)
    while runs(child):
        time.sleep(0.01)
    clear(tmp_path)
    assert not place.exists()
