"""Compare the installed packages with the pins of a requirements file.

Uses only the standard library: m3kit/environment.py runs it with any Python, to find one that has the packages.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version


def unmet(requirements: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Yield name, wanted and installed version ("" if missing) of each line NAME==VERSION that is not met."""
    for line in requirements:
        name, _, wanted = line.partition("#")[0].strip().partition("==")
        if not name:
            continue
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = ""
        # A local part, such as the +cpu of a torch build, is no other version.
        if installed.partition("+")[0] != wanted:
            yield name, wanted, installed


def main(file: str) -> int:
    """Print this interpreter's path, or else what it lacks first; the exit code is then 1."""
    lacks = f"it is Python {sys.version_info[0]}.{sys.version_info[1]}" if sys.version_info < (3, 11) else ""
    with open(file, encoding="utf-8") as requirements:
        for name, wanted, installed in unmet(requirements):
            lacks = lacks or (f"it has {name} {installed} instead of {wanted}" if installed else f"it has no {name}")
    print(lacks or sys.executable)
    return int(bool(lacks))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
