"""The rows of test files, by the reader and the checks of training data; what is wrong is told with its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from m3kit.reading.files import Reading
from m3kit.reading.layouts import Layout, UnknownColumns, recognise
from m3kit.reading.problems import BadRow, Problem
from m3kit.reading.rows import Row, parse

Found = TypeVar("Found")
FORMS = {"sts": '{"sentence1": "…", "sentence2": "…", "score": 0.85}', "labelled": '{"text": "…", "label": "…"}'}


def read_objects(file: Path, make: Callable[[int, dict], Found], problems: list[Problem]) -> list[Found]:
    """What ``make`` makes of each row's line, counted from 1, and object; a ``BadRow`` from it is a problem there."""
    found: list[Found] = []
    before = len(problems)
    try:
        for line, record, _ in Reading(file).records():
            try:
                if isinstance(record, BadRow):
                    raise record
                found.append(make(line, record))
            except BadRow as bad:
                problems.append(bad.at(file, line))
    except BadRow as stop:
        problems.append(stop.at(file, 1))
    if not found and len(problems) == before:
        problems.append(Problem(file, 1, "the file holds no row", "fill it or take it out of the test data"))
    return found


def read_rows(file: Path, kind: str, problems: list[Problem]) -> list[Row]:
    """The rows of a kind, "sts" or "labelled". Scores of STS are taken to be of 0 to 5 where any is above 1."""

    def read(largest: float) -> tuple[list[Row], list[Problem]]:
        found: list[Problem] = []
        return read_objects(
            file, lambda line, record: parse(line, record, _layout(record, kind), False, largest), found
        ), found

    rows, found = read(1)
    if any(problem.code == "score-0-to-5" for problem in found):
        rows, found = read(5)
    problems += found
    return rows


def _layout(record: dict, kind: str) -> Layout:
    try:
        return recognise(record, {}, kind)
    except BadRow as bad:
        if isinstance(bad, UnknownColumns) or bad.code == "mixed-formats":
            columns = ", ".join(map(repr, record)) or "none"
            raise BadRow(f"its columns are {columns}", f"write {FORMS[kind]} in each row", code="columns") from bad
        raise


def string(row: dict, field: str) -> str:
    """A field without the white space around it; empty where the field is missing or null."""
    value = row.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRow(f"{field} is {type(value).__name__}, not a string", f'write "{field}" as a string')
    return value.strip()
