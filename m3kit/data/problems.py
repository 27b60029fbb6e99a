"""What can be wrong with a user's data, and how it is told: code, severity, file, line, what, fix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from m3kit.errors import KitError

# How many are shown in all, and of one code where there are several.
SHOWN = 20
SHOWN_OF_A_CODE = 3

ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True)
class Problem:
    """One thing about the data that a user should know; ``line`` counts from 1.

    ``severity``: an "error" must be put right before training, a "warning" probably should, a "note" is a fact.
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
        return {
            "code": self.code,
            "severity": self.severity,
            "file": str(self.path),
            "line": self.line,
            "what": self.what,
            "fix": self.fix,
        }


class BadRow(Exception):
    """What is wrong with a row, and the fix. Who reads the file adds its name, and the line where it is not given.

    ``row`` is the row as it stands in the file, where who reads the file does not have it; ``path`` the file, where it
    is another than the one that is read.
    """

    def __init__(
        self,
        what: str,
        fix: str,
        line: int | None = None,
        code: str = "row",
        row: str | None = None,
        path: Path | None = None,
    ):
        super().__init__(what)
        self.what, self.fix, self.line, self.code, self.row, self.path = what, fix, line, code, row, path


class Findings:
    """All that was found: each in a file, counts and the first of each code in memory, so that a million are no more.

    With ``strict`` warnings count as errors. A problem that is ``skipped`` set its row aside, and stops nothing.
    """

    def __init__(self, path: Path, strict: bool = False):
        self.path, self._strict = path, strict
        self.counts: Counter[tuple[str, str]] = Counter()  # (severity, code)
        self.errors = 0
        self._first: dict[tuple[str, str], list[Problem]] = {}
        path.write_bytes(b"")

    def add(self, problems: Iterable[Problem], skipped: bool = False) -> None:
        import orjson  # `m3kit plan` finds data files before the packages are installed

        lines = []
        for problem in problems:
            if self._strict and problem.severity == WARNING:
                problem = replace(problem, severity=ERROR)
            key = ("set aside" if skipped else problem.severity, problem.code)
            self.counts[key] += 1
            self.errors += key[0] == ERROR
            first = self._first.setdefault(key, [])
            if len(first) < SHOWN:
                first.append(problem)
            lines.append(orjson.dumps(problem.as_json() | {"severity": key[0]}, option=orjson.OPT_APPEND_NEWLINE))
        if lines:
            with self.path.open("ab") as file:
                file.writelines(lines)

    def refuse(self, where: str) -> None:
        """Raise ``KitError`` that shows the first errors, if there are any."""
        if self.errors:
            lines = self._lines(ERROR)
            if self.errors > len(lines):
                lines.append("to see all of them: python -m m3kit check --json, with the same paths and options")
            raise KitError(f"{_count(self.errors)} in {where}:\n  " + "\n  ".join(lines))

    def tell(self, out: TextIO, severities: Iterable[str] = (WARNING, "set aside", NOTE)) -> None:
        """Print the first of each code and how many more there are."""
        for severity in severities:
            for line in self._lines(severity):
                print(f"{severity}: {line}", file=out)

    def summary(self) -> list[dict[str, str | int]]:
        """Counts by severity and code, in the order in which they were met."""
        return [{"severity": severity, "code": code, "count": n} for (severity, code), n in self.counts.items()]

    def _lines(self, severity: str) -> list[str]:
        """The first problems of one severity: a few of each code, more where there is one code only."""
        codes = [code for found, code in self.counts if found == severity]
        each = SHOWN if len(codes) == 1 and severity == ERROR else SHOWN_OF_A_CODE
        lines = []
        for code in codes:
            first, total = self._first[severity, code], self.counts[severity, code]
            lines += [str(problem) for problem in first[:each]]
            if total > each:
                lines.append(f"… and {total - each} more of this kind ({code})")
        return lines


def refuse(problems: list[Problem], where: str) -> None:
    """Raise ``KitError`` with the first problems and the count of all, if there are any; ``where`` they are."""
    if not problems:
        return
    lines = [str(problem) for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"… and {len(problems) - SHOWN} more")
    raise KitError(f"{_count(len(problems))} in {where}:\n  " + "\n  ".join(lines))


def _count(number: int) -> str:
    return "1 problem" if number == 1 else f"{number} problems"
