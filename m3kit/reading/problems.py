"""What can be wrong with a user's data, and how it is told: one message for each kind and file."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TextIO

from m3kit.errors import KitError

ERROR, WARNING, NOTE, ASIDE = "error", "warning", "note", "set aside"
# Messages that are shown, and examples in one.
SHOWN, EXAMPLES = 20, 3


@dataclass(frozen=True)
class Problem:
    """One thing about the data that a user should know; ``line`` counts from 1.

    ``severity``: an "error" must be put right before training, a "warning" probably should, a "note" is a fact; what
    is "set aside" was an error, and cost only its row.
    """

    path: Path
    line: int
    what: str
    fix: str
    code: str = "row"
    severity: str = ERROR

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}; {self.fix}"

    def as_json(self) -> dict[str, str | int]:
        fields = asdict(self)
        return {
            "code": fields.pop("code"),
            "severity": fields.pop("severity"),
            "file": str(fields.pop("path")),
        } | fields


class BadRow(Exception):
    """What is wrong with a row, and the fix. Who reads the file adds its name, and the line where it is not given."""

    def __init__(self, what: str, fix: str, line: int | None = None, code: str = "row"):
        super().__init__(what)
        self.what, self.fix, self.line, self.code = what, fix, line, code

    def at(self, path: Path, line: int, severity: str = ERROR) -> Problem:
        """Return the problem of a row that begins in this line."""
        return Problem(path, self.line or line, self.what, self.fix, self.code, severity)


class Findings:
    """All that was found. With ``strict`` warnings count as errors."""

    def __init__(self, strict: bool = False):
        self.problems: list[Problem] = []
        self._strict = strict

    def add(self, *problems: Problem) -> None:
        for problem in problems:
            if self._strict and problem.severity == WARNING:
                problem = replace(problem, severity=ERROR)
            self.problems.append(problem)

    @property
    def errors(self) -> int:
        return self.count(ERROR)

    def count(self, severity: str) -> int:
        return sum(problem.severity == severity for problem in self.problems)

    def refuse(self, where: str) -> None:
        """Raise ``KitError`` that shows the errors, if there are any."""
        all_told_by = "python -m m3kit check --json, with the same paths and options"
        refuse([problem for problem in self.problems if problem.severity == ERROR], where, all_told_by)

    def tell(self, out: TextIO, severities: Iterable[str] = (WARNING, ASIDE, NOTE)) -> None:
        """Print one message for each kind and file."""
        for severity in severities:
            for message in messages(problem for problem in self.problems if problem.severity == severity):
                print(f"{severity}: {message}", file=out)

    def summary(self) -> list[dict[str, str | int]]:
        """Counts by severity and code, in the order in which they were met."""
        counts: dict[tuple[str, str], int] = defaultdict(int)
        for problem in self.problems:
            counts[problem.severity, problem.code] += 1
        return [{"severity": severity, "code": code, "count": n} for (severity, code), n in counts.items()]

    def write(self, path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(problem.as_json(), ensure_ascii=False) + "\n" for problem in self.problems)


def messages(problems: Iterable[Problem]) -> list[str]:
    """One message for each kind (code) and file: the first place, how many there are, three examples, the fix."""
    groups: dict[tuple[Path, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        groups[problem.path, problem.code].append(problem)
    found = []
    for first, *others in groups.values():
        message = str(first)
        if others and all((other.what, other.fix) == (first.what, first.fix) for other in others):
            lines = ", ".join(str(other.line) for other in (first, *others[: EXAMPLES - 1]))
            more = ", …" if len(others) >= EXAMPLES else ""
            # The fix comes last: it may be a command to paste.
            message = str(replace(first, what=f"{first.what} ({len(others) + 1} such rows: {lines}{more})"))
        elif others:
            message += "".join(
                f"\n    line {other.line}: {other.what}; {other.fix}" for other in others[: EXAMPLES - 1]
            )
            if len(others) >= EXAMPLES:
                message += f"\n    … {len(others) + 1} of this kind ({first.code})"
        found.append(message)
    return found


def refuse(problems: list[Problem], where: str, all_told_by: str = "") -> None:
    """Raise ``KitError`` with a message for each kind and file, if there are any problems; ``where`` they are.

    ``all_told_by``: what tells each single one, where the message does not.
    """
    if not problems:
        return
    found = messages(problems)
    lines = found[:SHOWN]
    if len(found) > SHOWN:
        lines.append(f"… and {len(found) - SHOWN} more kinds and files")
    if all_told_by and len(problems) > len(lines):
        lines.append(f"each single one is in: {all_told_by}")
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise KitError(f"{count} in {where}:\n  " + "\n  ".join(lines))
