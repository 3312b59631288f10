"""What an installation costs: the size of every package that slimnet brings, with and without its extras, and imports.

Sizes are those of the files that each package's metadata lists, as installed in this environment; which packages belong
to slimnet follows from pyproject.toml and the requirements of the packages. Times are of new interpreters: the best of
three.

    python benchmarks/install_size.py              # the table, of this environment; `make size` runs it with --quick
    python benchmarks/install_size.py --json       # the same as data
"""

import argparse
import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parent.parent / "pyproject.toml"
MEGABYTE = 1e6
LARGEST = 12
"""The number of packages that the table names; the rest is one line."""
IMPORTS = ("pass", "import slimnet", "import torch", "import slimnet.counting", "import slimnet.benchmark")
COMMANDS = (("--help",), ("inspect", "--help"), ("slim", "missing.pt", "--arch", "resnet20"))
DEVELOPMENT = "dev"
TRIES = 3


@dataclass(frozen=True)
class Package:
    """One installed package: its version, and the bytes of its files."""

    name: str
    version: str
    size: int


@dataclass(frozen=True)
class Installation:
    """The packages that slimnet needs with one of its extras ("" is none), and those of them that are not installed."""

    extra: str
    packages: tuple[Package, ...]
    missing: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all packages."""
        return sum(package.size for package in self.packages)


def installation(extra: str) -> Installation:
    """What slimnet and its requirements take, followed from package to package."""
    found: dict[str, Package] = {}
    missing: set[str] = set()
    project, seen = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"], set()
    own = [*project["dependencies"], *(project["optional-dependencies"][extra] if extra else ())]
    waiting = required(own, frozenset())
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            each = distribution(name)
        except PackageNotFoundError:
            missing.add(name)
            continue
        found[name] = Package(name, each.version, size_of(each))
        waiting += required(each.requires or (), extras)
    packages = sorted(found.values(), key=lambda package: -package.size)
    return Installation(extra, tuple(packages), tuple(sorted(missing)))


def required(requirements: Iterable[str], extras: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    """The packages that apply here, with the extras that are asked of them."""
    found = []
    for text in requirements:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            found.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found


def size_of(package: Distribution) -> int:
    """Bytes of the files that a package's metadata lists; compiled Python beside them is not counted."""
    paths = [Path(str(file.locate())) for file in package.files or () if file.suffix != ".pyc"]
    return sum(path.stat().st_size for path in paths if path.is_file())


def extras_of() -> list[str]:
    """The extras that users may ask for."""
    extras = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    return [extra for extra in extras if extra != DEVELOPMENT]


def seconds_of(command: list[str], tries: int) -> float:
    """The shortest time of a command in a new interpreter, whatever its exit code."""
    times = []
    for _ in range(tries):
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], capture_output=True, check=False)
        times.append(time.perf_counter() - start)
    return min(times)


def times(tries: int) -> dict[str, float]:
    """Seconds of every import and command by name; the first is an interpreter that does nothing."""
    found = {code: seconds_of(["-c", code], tries) for code in IMPORTS}
    commands = {f"slimnet {' '.join(words)}": ["-m", "slimnet_cli", *words] for words in COMMANDS}
    return found | {name: seconds_of(command, tries) for name, command in commands.items()}


def table(found: Iterable[Installation], seconds: dict[str, float]) -> str:
    """The sizes and times as Markdown."""
    plain, *others = found
    lines = [f"| package | MB of {plain.size / MEGABYTE:,.0f} |", "|---|---:|"]
    lines += [f"| {each.name} {each.version} | {each.size / MEGABYTE:,.1f} |" for each in plain.packages[:LARGEST]]
    rest = plain.packages[LARGEST:]
    lines.append(f"| {len(rest)} others | {sum(each.size for each in rest) / MEGABYTE:,.1f} |")
    lines += ["", "| with the extra | packages | MB | more than without |", "|---|---:|---:|---:|"]
    for each in (plain, *others):
        more = (each.size - plain.size) / MEGABYTE
        missing = f" (without {', '.join(each.missing)})" if each.missing else ""
        name = each.extra or "none"
        lines.append(f"| {name}{missing} | {len(each.packages)} | {each.size / MEGABYTE:,.0f} | {more:,.0f} |")
    if seconds:
        lines += ["", "| in a new interpreter | seconds |", "|---|---:|"]
        lines += [f"| `{name}` | {each:.2f} |" for name, each in seconds.items()]
    return "\n".join(lines)


def main() -> None:
    """Measure this environment and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print data")
    parser.add_argument("--quick", action="store_true", help="time everything once")
    given = parser.parse_args()
    found = [installation(extra) for extra in ("", *extras_of())]
    seconds = times(1 if given.quick else TRIES)
    if given.json:
        print(json.dumps({"installations": [asdict(each) for each in found], "seconds": seconds}, indent=1))
    else:
        print(table(found, seconds))


if __name__ == "__main__":
    main()
