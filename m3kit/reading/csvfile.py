"""The rows of a table as dicts, each with the line in which it starts: CSV, and the sheets that others read.

A cell is kept to the letter; an empty one is None. A bad row costs no other.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from m3kit.reading.jsonfile import undecoded
from m3kit.reading.layouts import is_header
from m3kit.reading.problems import BadRow
from m3kit.reading.text import shown

CELL_LIMIT = 1 << 26  # characters; more is a forgotten quote
CLOSE_QUOTES = 'close every quote, write a quote within a cell as "", and quote a cell with line ends'
TRIPLE = ["query", "positive", "negative"]
# What divides the columns, as the first line says that Excel writes.
_EXCEL = re.compile(rb"sep=([,;\t|])\r?\n", re.IGNORECASE)
Row = tuple[int, dict[str, Any] | BadRow, bytes | None]


def csv_rows(content: bytes, kind: str, notes: list[str]) -> Iterator[Row]:
    """The rows of CSV, or of tab-separated values (``kind`` "tsv"). Raises ``BadRow`` where reading has to stop."""
    lines = io.TextIOWrapper(io.BytesIO(content), "utf-8", "surrogateescape", newline="\n")
    excel = _EXCEL.match(content)
    usual = delimiter = "\t" if kind == "tsv" else ","
    if excel:
        delimiter = excel[1].decode()
        next(lines)
    elif kind == "csv":
        delimiter = max(",;\t", key=content[: 1 << 16].lstrip().partition(b"\n")[0].decode("latin-1").count)
    if delimiter != usual:
        name = {",": "commas", ";": "semicolons", "\t": "tabs"}.get(delimiter, repr(delimiter))
        notes.append(f"its columns are divided by {name}, read as such")
    header: list[str] = []
    first = ""  # the header as it stands there
    for line, raw in _rows(lines, delimiter, 2 if excel else 1):
        cells, text = _cells(raw, delimiter, line), raw.strip("\ufeff \r\n")
        row: dict[str, Any] | BadRow
        if isinstance(cells, BadRow):
            if not header:
                raise cells
            row = cells
        elif not header:
            if delimiter != "\t" or len(cells) != len(TRIPLE) or is_header([cell.strip() for cell in cells]):
                header, first = _header(cells, line, notes), text
                continue
            notes.append("has no header line; its three columns are taken for query, positive and negative")
            header, first = TRIPLE, ""
            row = _row(header, cells, notes)
        elif text == first:  # where files were put together
            row = BadRow("the header line once more", "delete it", code="csv-header")
        elif len(cells) != len(header):
            fix = f'put a cell with "{delimiter}" or line ends in it into quotes'
            row = BadRow(f"{len(cells)} cells where the header has {len(header)}", fix, code="csv-fields")
        else:
            row = _row(header, cells, notes)
        yield line, row, raw.encode("utf-8", "surrogateescape") if isinstance(row, BadRow) else None
    if not header:
        raise BadRow("there is no header line", "put the names of the columns into the first line", code="csv-header")


def table_rows(rows: Iterable[tuple[Any, ...]], notes: list[str]) -> Iterator[Row]:
    """The rows of a sheet whose first row that is not empty names its columns."""
    header: list[str] = []
    for line, cells in enumerate(rows, start=1):
        width = max((number for number, cell in enumerate(cells, start=1) if cell is not None), default=0)
        if width and not header:
            header = _header(["" if cell is None else str(cell) for cell in cells[:width]], line, notes)
        elif width > len(header):
            wide = BadRow("a cell in a column without a name", "name the column or empty it", code="csv-fields")
            yield line, wide, str(cells).encode()
        elif width:
            yield line, _row(header, [*cells, *[None] * len(header)], notes), None


def _rows(lines: Iterable[str], delimiter: str, line: int) -> Iterator[tuple[int, str]]:
    """The rows that are not blank, as they stand there, each with its line: by a reader that forgives.

    What a bad row has on further lines is thus taken for no row of its own.
    """
    csv.field_size_limit(CELL_LIMIT)
    raw: list[str] = []

    def without_cr() -> Iterator[str]:
        for text in lines:
            raw.append(text)
            yield text.replace("\r", " ")  # within a cell without quotes not even this reader forgives it

    try:
        for cells in csv.reader(without_cr(), delimiter=delimiter):
            if len(cells) > 1 or "".join(cells).strip():
                yield line, "".join(raw)
            line += len(raw)
            raw.clear()
    except csv.Error as error:
        raise BadRow("a cell without an end", CLOSE_QUOTES, line, code="too-long") from error


def _cells(raw: str, delimiter: str, line: int) -> list[str] | BadRow:
    """The cells of a row, or what is wrong with it. Raises ``BadRow`` where a quote is open to the end of the file."""
    flaw = undecoded(raw, line)
    try:
        cells = next(csv.reader([raw], delimiter=delimiter, strict=True))
    except csv.Error as error:
        # One more line is a part of the row only where a quote is open.
        if len([*csv.reader([raw.replace("\r", " "), ""], delimiter=delimiter)]) == 1:
            raise BadRow("a quote that opens in this row is never closed", CLOSE_QUOTES, line, "unfinished") from error
        return flaw or BadRow(f"not valid CSV ({error})", CLOSE_QUOTES, line, "csv-quotes")
    bare = [cell.lstrip(" ") for cell in cells]
    if not flaw and any(cell != text and text.startswith('"') for cell, text in zip(cells, bare, strict=True)):
        # A text may begin so if it is quoted as a whole; then it stays the same where spaces before cells are skipped.
        skipping = next(csv.reader([raw], delimiter=delimiter, skipinitialspace=True))
        if [cell.lstrip(" ") for cell in skipping] != bare:
            what = "a quote after a space would be read as a part of the text"
            return BadRow(what, "delete the space before the quote", line, "csv-quotes")
    return flaw or cells


def _header(cells: list[str], line: int, notes: list[str]) -> list[str]:
    header = [name.strip() for name in cells]
    if header != cells:
        notes.append("spaces around the names of its columns are left out")
    for name, count in Counter(header).items():
        if not name:
            fix = "name each column in the header line, or leave it out (pandas: index=False)"
            raise BadRow("a column without a name", fix, line, "csv-header")
        if count > 1:
            raise BadRow(f'{count} columns are named "{shown(name)}"', "name each differently", line, "csv-header")
    return header


def _row(header: list[str], cells: list[Any], notes: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=False):
        row[name] = None if cell == "" else cell
        if isinstance(cell, str) and (cell == "[]" or cell.startswith(('["', "['"))):
            texts = _texts(cell)
            row[name] = cell if texts is None else texts
            note = f'cells of "{shown(name)}" that hold a list of texts are read as that list'
            if texts is None:
                note = f'cells of "{shown(name)}" look like lists of texts, but are none: read as one text each'
            if note not in notes:
                notes.append(note)
    return row


def _texts(cell: str) -> list[str] | None:
    """The texts of a list as JSON has it, or as Python (pandas) prints it."""
    try:
        values = json.loads(cell)
    except (ValueError, RecursionError):
        try:
            values = ast.literal_eval(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
        # Of numpy's lists, which have no commas, Python would make one text.
        if str(values).replace(" ", "") != cell.replace(" ", ""):
            return None
    return values if all(isinstance(value, str) for value in values) else None
