"""One mutation: a specimen's folder with one file spoilt, the same for the same seed and number."""

import contextlib
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from fuzzing.signing import sign_again
from fuzzing.specimens import SPECIMENS
from fuzzing.spoiling import spoil

GIVEN = ("lock", "given.pt")
"""Files of a specimen that a reader names itself, which nobody else can have spoilt."""


@dataclass(frozen=True)
class Mutation:
    """Which one; `kind` is that of the specimen."""

    seed: int
    number: int
    kind: str

    @property
    def replay(self) -> str:
        """The command that makes and reads it again."""
        return f"python -m fuzzing --replay {self.seed} {self.number} --kind {self.kind}"

    def make(self, specimens: Path, folder: Path) -> Path:
        """Copy the specimen, and spoil one file, which is returned; half of the time others are made to agree."""
        chance = random.Random(f"{self.seed}:{self.number}:{self.kind}")
        shutil.copytree(specimens / self.kind, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in GIVEN)
        file = chance.choice(files)
        file.write_bytes(spoil(file.name, chance, file.read_bytes()))
        deep = chance.random() < 0.5
        # A file that cannot be read cannot be signed for.
        with contextlib.suppress(Exception):
            sign_again(folder, file, deep=deep)
        return file


def kind_of(seed: int, number: int, kinds: tuple[str, ...] = tuple(SPECIMENS)) -> str:
    """The kind of specimen that a number spoils."""
    return random.Random(f"{seed}:{number}").choice(kinds)
