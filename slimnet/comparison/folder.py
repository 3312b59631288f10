"""The folder of a comparison: every finished result is stored, so that no work is repeated."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slimnet.benchmark import Environment
from slimnet.comparison.outcome import Dense, Failure, Outcome
from slimnet.comparison.settings import Cell
from slimnet.errors import SlimnetError, UsageError
from slimnet.methods import Selection
from slimnet.storage.conditions import change_in_words
from slimnet.storage.files import os_errors_as, whole_file
from slimnet.storage.records import read_record
from slimnet.storage.written_folders import COMPARISON

CONDITIONS = "comparison.json"
RESULTS = "results.json"
AGAIN = "delete it, and it is made again"


@dataclass(frozen=True)
class Begun:
    """The content of `comparison.json`."""

    conditions: Mapping[str, Any]
    environment: Environment


@dataclass(frozen=True)
class Folder:
    """The files of a comparison.

    `comparison.json` holds its conditions, `dense.json` and `dense.onnx` are the dense network, `cells/KEY.json` is a
    finished row, `cells/KEY.failed.json` the reason why there is none, `results.json` all rows at the end,
    `networks/KEY.onnx` the slim network as evaluated, and `under_way/KEY` the state from which an unfinished cell
    resumes.
    """

    path: Path

    def begin(self, conditions: Mapping[str, Any], environment: Mapping[str, Any]) -> Environment:
        """Write the conditions into a new folder, or check that those of an existing one are the same.

        Returns the environment in which the comparison was started.

        Raises:
            UsageError: the conditions differ, or the folder holds other files.
        """
        file = self.path / CONDITIONS
        if not file.exists():
            COMPARISON.refuse_taken(self.path, UsageError)
            write(file, {"conditions": conditions, "environment": environment})
        begun = read_record(Begun, file, UsageError, advice="name another folder")
        change = change_in_words(begun.conditions, conditions)
        if change is not None:
            raise UsageError(
                f"{self.path} was begun with {change}: rows would not be comparable; go on with the old one, or name "
                "another folder"
            )
        return begun.environment

    @property
    def sparse(self) -> Path:
        """The folder of the network that is trained with L1 on γ, and of its checkpoints."""
        return self._made("sparse")

    @property
    def dense_onnx(self) -> Path:
        """The dense network's ONNX file."""
        return self.path / "dense.onnx"

    def dense(self) -> Dense | None:
        """The dense network's row, if it is stored."""
        file = self.path / "dense.json"
        return read_record(Dense, file, UsageError, advice=AGAIN) if file.exists() else None

    def keep_dense(self, dense: Dense) -> None:
        """Write the dense network's row."""
        write(self.path / "dense.json", asdict(dense))

    def outcome(self, cell: Cell) -> Outcome | None:
        """A cell's row, if it is finished."""
        file = self._row(cell)
        if not file.exists():
            return None
        return read_record(Outcome, file, UsageError, advice=AGAIN, others_ignored=True)

    def failure(self, cell: Cell) -> Failure | None:
        """Why a cell has no row, if that is known."""
        file = self._failed(cell)
        return read_record(Failure, file, UsageError, advice=AGAIN) if file.exists() else None

    def is_done(self, cell: Cell) -> bool:
        """Whether a cell has a row, or failed."""
        return self._row(cell).exists() or self._failed(cell).exists()

    def fail(self, failure: Failure, cell: Cell) -> None:
        """Write why a cell has no row."""
        write(self._failed(cell), asdict(failure))

    def finish(self, cell: Cell, outcome: Outcome) -> None:
        """Write a cell's row, and delete its intermediate state."""
        write(self._row(cell), outcome.to_dict())
        shutil.rmtree(self.under_way(cell), ignore_errors=True)

    def under_way(self, cell: Cell) -> Path:
        """The folder of the state from which an unfinished cell resumes."""
        return self._made("under_way", cell.key)

    def onnx(self, cell: Cell) -> Path:
        """The file of the cell's slim network."""
        return self._made("networks") / f"{cell.key}.onnx"

    def selection(self, cell: Cell) -> Selection | None:
        """The selection of a cell's method, if it is stored."""
        file = self.under_way(cell) / "selection.json"
        return read_record(Selection, file, UsageError, advice=AGAIN) if file.exists() else None

    def keep_selection(self, cell: Cell, selection: Selection) -> None:
        """Store the selection of a cell's method."""
        write(self.under_way(cell) / "selection.json", asdict(selection))

    def _row(self, cell: Cell) -> Path:
        return self._made("cells") / f"{cell.key}.json"

    def _failed(self, cell: Cell) -> Path:
        return self._made("cells") / f"{cell.key}.failed.json"

    def _made(self, *names: str) -> Path:
        path = self.path.joinpath(*names)
        with os_errors_as(path, SlimnetError):
            path.mkdir(parents=True, exist_ok=True)
        return path


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write JSON atomically.

    Raises:
        SlimnetError: it cannot be written.
    """
    with whole_file(path, SlimnetError) as file:
        file.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Read the output of `write`.

    Raises:
        UsageError: it is missing or holds no object.
    """
    return read_record(dict[str, Any], path, UsageError, advice=AGAIN)
