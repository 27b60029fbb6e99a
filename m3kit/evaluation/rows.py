"""The lines of test files and the JSON objects on them; what is wrong with a line is told with its number."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from m3kit.data.problems import BadRow, Problem

Row = TypeVar("Row")


def lines(file: Path, problems: list[Problem]) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, counted from 1, without their line ends."""
    # Split bytes, not text: str.splitlines would also cut at characters that may stand inside a JSON string.
    for number, raw in enumerate(file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            line = raw.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError:
            problems.append(Problem(file, number, "is not UTF-8", "save the file as UTF-8"))
            continue
        if line.strip():
            yield number, line


def read_objects(file: Path, parse: Callable[[int, dict], Row], shape: str, problems: list[Problem]) -> list[Row]:
    """What ``parse`` makes of each line's number and object; a ``BadRow`` from it is a problem of that line.

    ``shape`` shows what an object looks like, for the fix.
    """
    rows: list[Row] = []
    for number, line in lines(file, problems):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise BadRow("is not a JSON object", f"write {shape}")
            rows.append(parse(number, row))
        except json.JSONDecodeError as error:
            problems.append(Problem(file, number, f"is broken JSON ({error})", "write one JSON object on a line"))
        except BadRow as bad:
            problems.append(Problem(file, number, bad.what, bad.fix))
    if not rows and not problems:
        problems.append(Problem(file, 1, "has no rows", "write one JSON object on a line"))
    return rows


def string(row: dict, field: str) -> str:
    """A field without the white space around it; empty where the field is missing or null."""
    value = row.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRow(f"{field} is {type(value).__name__}, not a string", f'write "{field}" as a string')
    return value.strip()
