"""Any source as JSON lines: packed files, CSV, Parquet and JSON arrays become a file with one JSON value a line.

Nothing is held in memory but a block, a batch or a row. What the first bytes say counts more than the name. Whether a
value is a row that can be used is left to who reads the lines.
"""

from __future__ import annotations

import errno
import json
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from m3kit.data.csvfile import csv_rows
from m3kit.data.jsonarray import SPACE, elements
from m3kit.data.problems import BadRow, Problem
from m3kit.data.sources import BLOCK, PARQUET, data_kind, open_text, plain_file, scratch_file
from m3kit.errors import KitError

BATCH = 256  # rows of Parquet

# Where each row stands in the user's file, and the row as JSON, or what is wrong with it.
Rows = Iterator[tuple[int, bytes | BadRow]]


@dataclass(frozen=True)
class JsonLines:
    path: Path  # plain UTF-8 JSON lines on this disk: the user's own file where it is that already
    numbers: np.ndarray | None  # int64: the line in the user's file of each line of `path`; None: they are the same
    textual: bool  # every value is text or null (CSV): numbers are still to be parsed
    where: str  # what `numbers` counts, from 1: "line", or "row" for Parquet
    notes: list[str]  # what was decided for the user, one plain sentence each
    bad: list[tuple[Problem, str]]  # rows that are not among the lines, each as it stands in the user's file


def as_json_lines(file: Path, scratch: Path, problems: list[Problem]) -> JsonLines | None:
    """The file as JSON lines, in ``scratch`` where it is not that already; None where nothing of it can be read.

    What is wrong with the file is added to ``problems``. Where that makes the rest unreadable, the rows before it are
    still given.
    """
    try:
        return _as_json_lines(file, scratch, problems)
    except BadRow as bad:
        problems.append(_problem(file, bad))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise KitError(f"no room left in {scratch} for {file}; make room or set TMPDIR") from error
        what = f"the file cannot be read ({error.strerror or error})"
        problems.append(Problem(file, 1, what, "put that right or leave the file out", code="unreadable"))
    return None


def _as_json_lines(file: Path, scratch: Path, problems: list[Problem]) -> JsonLines | None:
    notes: list[str] = []
    source, damage = plain_file(file, scratch, notes)
    if damage:
        problems.append(_problem(file, damage))
    kind = _kind(data_kind(file), source, notes)
    if kind == "lines":
        return JsonLines(source, None, textual=False, where="line", notes=notes, bad=[])
    bad: list[tuple[Problem, str]] = []
    target, numbers = scratch_file(scratch), array("q")
    with target.open("wb") as out:
        try:
            for number, row in READERS[kind](source, notes):
                if not isinstance(row, bytes):
                    problem = _problem(file, row, number)
                    if row.row is None:  # what stands there is no row that could be left out
                        problems.append(problem)
                    else:
                        bad.append((problem, row.row))
                else:
                    out.write(row + b"\n")
                    numbers.append(number)
        except BadRow as stop:
            if not (damage and stop.code == "unfinished"):  # that the data are cut off was said already
                stop.what += "; reading stopped there"
                problems.append(_problem(file, stop))
            if not numbers and not bad:
                return None
    where = "row" if kind == "parquet" else "line"
    return JsonLines(target, np.array(numbers, dtype=np.int64), kind in ("csv", "tsv"), where, notes, bad)


def _problem(file: Path, bad: BadRow, number: int = 1) -> Problem:
    return Problem(file, bad.line or number, bad.what, bad.fix, code=bad.code)


def _kind(named: str, source: Path, notes: list[str]) -> str:
    """``lines`` for JSON lines, or the key in ``READERS``."""
    first, second = _first_lines(source)
    if first.startswith(PARQUET):
        if named != "parquet":
            notes.append("holds Parquet, read as such")
        return "parquet"
    if named == "parquet":
        raise BadRow("this is no Parquet file", "save it again, or name it after what it holds", code="container")
    if named in ("csv", "tsv") and not (first[:1] in (b"{", b"[") and _is_json(first)):
        return named
    if first.startswith(b"[") and (named == "json" or not (_is_json(first) and _is_json(second))):
        notes.append("holds a JSON array, read as such")
        return "array"
    if named in ("json", "csv", "tsv") and first.startswith(b"{"):
        if second and not second.startswith(b"{") and not _is_json(first):
            fix = "write one object a line, or an array of objects"
            raise BadRow("this is one JSON object over several lines", fix, code="one-object")
        notes.append("holds JSON lines, read as such")
    return "lines"


def _first_lines(source: Path) -> tuple[bytes, bytes]:
    """The first two lines that are not blank. What follows a line of more than a block is not worth a look."""
    lines: list[bytes] = []
    with open_text(source) as stream:
        while len(lines) < 2 and (line := stream.readline(BLOCK)):
            if line.strip(SPACE):
                lines.append(line.strip(SPACE))
            if len(line) == BLOCK:
                break
    first, second = (*lines, b"", b"")[:2]
    return first, second


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _delimiter(source: Path, notes: list[str]) -> str:
    header, _ = _first_lines(source)
    delimiter = next((sign for sign in (b",", b";", b"\t") if sign in header), b",").decode()
    if delimiter != ",":
        notes.append(f"its columns are divided by {'semicolons' if delimiter == ';' else 'tabs'}, read as such")
    return delimiter


def _parquet(source: Path, _notes: list[str]) -> Rows:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    # Not all that is broken is called so: bad UTF-8 and dates beyond Python's are a ValueError and an OverflowError.
    broken = (pyarrow.ArrowException, OSError, ValueError, OverflowError)
    number = 0
    try:
        # Without pre_buffer and with a small buffer no column of a row group is held as a whole.
        with ParquetFile(source, buffer_size=BLOCK, pre_buffer=False, page_checksum_verification=True) as table:
            columns = table.schema_arrow.names
            if len(set(columns)) < len(columns):
                raise BadRow("two columns have the same name", "name each column differently", code="parquet")
            for batch in table.iter_batches(batch_size=BATCH, use_threads=False):
                try:
                    rows = batch.to_pylist()
                except broken:
                    rows = [_single_row(batch.slice(at, 1), broken) for at in range(batch.num_rows)]
                for row in rows:
                    number += 1
                    yield number, row if isinstance(row, BadRow) else _as_json(row)
    except broken as error:
        what = f"the Parquet file is broken or cut off ({_first_line(error)})"
        raise BadRow(what, "copy it again or save it again", number + 1, "parquet") from error


def _single_row(batch: Any, broken: tuple[type[Exception], ...]) -> dict[str, Any] | BadRow:
    try:
        return batch.to_pylist()[0]
    except broken as error:
        return BadRow(
            f"this row cannot be read ({_first_line(error)})", "save its texts as UTF-8", code="parquet", row=""
        )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _as_json(row: dict[str, Any]) -> bytes:
    """A row as JSON: what JSON has no word for as a string. NaN stays NaN, so that who reads the line can refuse it."""
    try:
        line = orjson.dumps(row, default=_as_text)
        if b"null" not in line or _is_finite(row):  # orjson writes null for NaN
            return line
    except TypeError:  # bytes that are not UTF-8
        pass
    return json.dumps(row, default=_as_text).encode()


def _as_text(value: Any) -> str:
    # Old Parquet has its texts as bytes. What is not UTF-8 becomes half a surrogate pair, which no reader takes.
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


READERS = {
    "csv": lambda source, notes: csv_rows(source, _delimiter(source, notes), notes),
    "tsv": lambda source, notes: csv_rows(source, "\t", notes),
    "array": lambda source, _notes: elements(source),
    "parquet": _parquet,
}
