"""The state and outcome of each cell of a sweep: one row in an SQLite file, updated immediately."""

import dataclasses
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimnet.errors import SlimnetError, UsageError
from slimnet.storage.files import open_file
from slimnet.storage.records import build, from_json
from slimnet.sweep.grid import Cell

SCHEMA = """
CREATE TABLE IF NOT EXISTS cells (
    key TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    varied TEXT NOT NULL,
    recipe TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed')),
    started REAL,
    finished REAL,
    error TEXT,
    result TEXT
)
"""


@dataclass(frozen=True)
class Row:
    """The stored state of one cell: `state` is waiting, running, done or failed; times are seconds since 1970."""

    key: str
    varied: str
    recipe: str
    state: str
    started: float | None
    finished: float | None
    error: str | None
    result: dict[str, Any] | None


class Store:
    """The table of a sweep's cells in a file. Every change is on the disk when its method returns.

    Raises:
        UsageError: the file is not such a table, or cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        with self._changing() as table:
            _refuse_code(table)
            table.execute(SCHEMA)
            table.execute("SELECT key, position, varied, recipe, state, started, finished, error, result FROM cells")

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        # A new connection for each change, so that threads need no lock, and a killed process holds nothing.
        try:
            if self._path.exists():
                # SQLite would block on a named pipe.
                open_file(self._path).close()
            with closing(sqlite3.connect(self._path, timeout=60)) as connection, connection:
                connection.execute("PRAGMA synchronous = FULL")
                yield connection
        except OSError as error:
            raise UsageError(f"{self._path}: {error.strerror}; name another folder") from error
        except sqlite3.OperationalError as error:
            # Text that is not UTF-8 is refused by Python, without SQLite's code.
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) == sqlite3.SQLITE_ERROR:
                raise UsageError(f"{self._path}: not the table of a sweep ({error}); name another folder") from error
            raise SlimnetError(f"{self._path}: {error}; free space there, or name another folder") from error
        except (sqlite3.DatabaseError, UnicodeError) as error:
            # SQLite's own message quotes a damaged name, which Python cannot decode.
            raise UsageError(f"{self._path}: not the table of a sweep ({error}); name another folder") from error

    def add(self, cells: Iterable[Cell]) -> None:
        """Append new cells as waiting; existing ones are not changed."""
        with self._changing() as table:
            (first,) = table.execute("SELECT coalesce(max(position), -1) + 1 FROM cells").fetchone()
            table.executemany(
                "INSERT OR IGNORE INTO cells (key, position, varied, recipe, state) VALUES (?, ?, ?, ?, 'waiting')",
                [(cell.key, first + n, cell.varied, cell.recipe.to_json()) for n, cell in enumerate(cells)],
            )

    def wait_again(self, *, failed: bool) -> None:
        """Set cells that were running when a sweep ended to waiting, and with `failed` those that failed too."""
        states = ("running", "failed") if failed else ("running", "running")
        with self._changing() as table:
            table.execute("UPDATE cells SET state = 'waiting', error = NULL WHERE state IN (?, ?)", states)

    def begin(self, key: str) -> None:
        """Set a cell to running."""
        self._set(key, state="running", started=time.time(), finished=None, error=None)

    def finish(self, key: str, result: Mapping[str, Any]) -> None:
        """Set a cell to done, with its result."""
        self._set(key, state="done", finished=time.time(), result=json.dumps(result, allow_nan=False, default=str))

    def fail(self, key: str, error: str) -> None:
        """Set a cell to failed; `error` is the reason in one line."""
        self._set(key, state="failed", finished=time.time(), error=error)

    def leave(self, key: str) -> None:
        """Set an interrupted cell to waiting."""
        self._set(key, state="waiting")

    def _set(self, key: str, **values: Any) -> None:
        names = ", ".join(f"{name} = ?" for name in values)
        with self._changing() as table:
            table.execute(f"UPDATE cells SET {names} WHERE key = ?", (*values.values(), key))

    def rows(self, keys: Iterable[str] | None = None) -> list[Row]:
        """The cells in order; only those with these keys, if given."""
        wanted = None if keys is None else set(keys)
        with self._changing() as table:
            found = table.execute(
                "SELECT key, varied, recipe, state, started, finished, error, result FROM cells ORDER BY position"
            ).fetchall()
        every = [_row(*values) for values in found]
        return [row for row in every if wanted is None or row.key in wanted]


def _refuse_code(table: sqlite3.Connection) -> None:
    """Refuse views and triggers, which SQLite would run and which may not terminate.

    Raises:
        sqlite3.DatabaseError: the table has one.
    """
    found = table.execute("SELECT type, name FROM sqlite_schema WHERE type IN ('view', 'trigger')").fetchone()
    if found is not None:
        raise sqlite3.DatabaseError(f"it holds the {found[0]} {found[1]!r:.40}")


def _row(*values: Any) -> Row:
    names = [field.name for field in dataclasses.fields(Row)]
    plain = dict(zip(names, values, strict=True))
    result = plain["result"]
    known = from_json(dict[str, Any], result, "the result of a cell", UsageError) if isinstance(result, str) else result
    return build(Row, plain | {"result": known}, "a cell of the sweep", UsageError)
