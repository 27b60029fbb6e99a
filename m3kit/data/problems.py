"""What can be wrong with a line of a user's file, and how it is told: file, line, what, fix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from m3kit.errors import KitError

SHOWN = 20


@dataclass(frozen=True)
class Problem:
    """One thing that must be put right before training; ``line`` counts from 1."""

    path: Path
    line: int
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}; {self.fix}"


class BadRow(Exception):
    """What is wrong with a row, and the fix. Who reads the file adds its name, and the line where it is not given."""

    def __init__(self, what: str, fix: str, line: int | None = None):
        super().__init__(what)
        self.what, self.fix, self.line = what, fix, line


def refuse(problems: list[Problem], where: str) -> None:
    """Raise ``KitError`` with the first problems and the count of all, if there are any; ``where`` they are."""
    if not problems:
        return
    lines = [str(problem) for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"… and {len(problems) - SHOWN} more")
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise KitError(f"{count} in {where}:\n  " + "\n  ".join(lines))
