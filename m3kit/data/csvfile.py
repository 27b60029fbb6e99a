"""The rows of a CSV file as JSON objects, each with the line in which it starts; a bad row costs no other.

A cell is kept to the letter; an empty one is null.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from m3kit.data.problems import BadRow
from m3kit.data.sources import AS_UTF8, ROW_LIMIT, open_text
from m3kit.data.text import shown

LIST = 'cells of "{name}" that hold a JSON list of texts are read as that list'
CLOSE_QUOTES = 'close every quote, write a quote within a cell as "", and quote a cell with line ends'
BOM = "\ufeff"
# As pandas writes a column of lists.
NO_LIST = 'cells of "{name}" from line {line} on look like lists, but are no JSON lists of texts: read as one text each'


def csv_rows(source: Path, delimiter: str, notes: list[str]) -> Iterator[tuple[int, bytes | BadRow]]:
    """The line in which each row starts, and the row as JSON or what is wrong with it.

    Raises ``BadRow`` where what follows cannot be told apart any more.
    """
    header: list[str] = []
    first = ""  # the header as it stands there
    told: set[tuple[str, str]] = set()
    for line, cells, raw in _cells(source, delimiter):
        if not isinstance(cells, BadRow) and _quote_after_space(cells, raw, delimiter):
            what = "a quote after a space would be read as a part of the text"
            cells = BadRow(what, "delete the space before the quote", line, "csv-quotes", raw)
        if isinstance(cells, BadRow):
            if not header:
                raise cells
            yield line, cells
        elif not header:
            header, first = _checked_header(cells, line, notes), raw.strip()
        elif raw.strip(BOM).strip() == first:  # where files were put together
            yield line, BadRow("the header line once more", "delete it", code="csv-header", row=raw)
        elif len(cells) != len(header):
            what = f"{len(cells)} cells where the header has {len(header)}"
            fix = f'put a cell with "{delimiter}" or line ends in it into quotes'
            yield line, BadRow(what, fix, code="csv-fields", row=raw)
        else:
            row: dict[str, Any] = {}
            for name, cell in zip(header, cells, strict=True):
                row[name] = cell or None
                if cell.startswith(('["', "['")):
                    texts = _texts(cell)
                    row[name], what = (cell, NO_LIST) if texts is None else (texts, LIST)
                    if (name, what) not in told:
                        told.add((name, what))
                        notes.append(what.format(name=shown(name), line=line))
            yield line, orjson.dumps(row)
    if not header:
        raise BadRow("there is no header line", "put the names of the columns into the first line", code="csv-header")


def _cells(source: Path, delimiter: str) -> Iterator[tuple[int, list[str] | BadRow, str]]:
    """The rows that are not blank, each with the line in which it starts, and as it stands there."""
    csv.field_size_limit(ROW_LIMIT)
    flaws: list[BadRow] = []
    raw: list[str] = []  # the lines of the row at hand
    line = 1
    with open_text(source) as stream:
        lines = _text_lines(stream, flaws, raw)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            line += len(raw)
            raw.clear()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "limit" in str(error):
                    what = f"a cell of more than {ROW_LIMIT >> 20} MB"
                    raise BadRow(what, CLOSE_QUOTES, line, code="too-long") from error
                if "end of data" in str(error) or not _read_to_its_end(raw, lines, delimiter):
                    what = "a quote that opens in this row is never closed"
                    raise BadRow(what, CLOSE_QUOTES, line, code="unfinished") from error
                flaws.append(BadRow(f"not valid CSV ({error})", CLOSE_QUOTES, line, code="csv-quotes"))
                cells = []
            if flaws:
                flaws[0].row = "".join(raw)
                yield line, flaws[0], flaws[0].row
                flaws.clear()
            elif len(cells) > 1 or "".join(cells).strip():
                yield line, cells, "".join(raw)


def _read_to_its_end(raw: list[str], lines: Iterator[str], delimiter: str) -> bool:
    """Read the lines on which a bad row goes on, by a reader that forgives: they are no rows of their own.

    False where the file ends within a quote, or a cell has no end.
    """
    ended = False

    def all_of_it() -> Iterator[str]:
        nonlocal ended
        for text in chain(tuple(raw), lines):
            yield text.replace("\r", " ").replace("\0", "")  # not even this reader forgives those
        ended = True

    try:
        next(csv.reader(all_of_it(), delimiter=delimiter), None)
    except csv.Error:
        return False
    return not ended


def _text_lines(stream: BinaryIO, flaws: list[BadRow], read: list[str]) -> Iterator[str]:
    """The lines as text, also added to ``read``. The csv module is not told of what is wrong with one, so that it can
    go on after it."""
    for number, raw in enumerate(iter(lambda: stream.readline(ROW_LIMIT), b""), start=1):
        read.append(raw.decode("utf-8", "backslashreplace"))
        if len(raw) == ROW_LIMIT:
            raise BadRow(f"a line of {ROW_LIMIT >> 20} MB or more", "end each row with a line end", number, "too-long")
        if b"\0" in raw:
            flaws.append(BadRow("a NUL byte in the text", AS_UTF8, number, code="nul"))
            raw = raw.replace(b"\0", b"")
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError as error:
            flaws.append(BadRow(f"not UTF-8 (byte {error.start + 1})", AS_UTF8, number, code="utf-8"))
            yield raw.decode("utf-8", "replace")


def _quote_after_space(cells: list[str], raw: str, delimiter: str) -> bool:
    """Whether a cell is quoted, but only after a space, so that its quotes are no quotes."""
    suspects = [number for number, cell in enumerate(cells) if cell[:1] == " " and cell.lstrip(" ")[:1] == '"']
    if not suspects:
        return False
    # A text may begin so if it is quoted as a whole; then it stays the same where spaces before cells are skipped.
    skipping = csv.reader(io.StringIO(raw, newline="\n"), delimiter=delimiter, skipinitialspace=True)
    other = next(skipping, [])
    return len(other) != len(cells) or any(other[number] != cells[number] for number in suspects)


def _checked_header(cells: list[str], line: int, notes: list[str]) -> list[str]:
    header = [name.strip() for name in cells]
    if header != cells:
        notes.append("spaces around the names of its columns are left out")
    for name, count in Counter(header).items():
        if not name:
            fix = "name each column in the header line, or leave it out (pandas: index=False)"
            raise BadRow("a column without a name", fix, line, "csv-header")
        if count > 1:
            what = f'{count} columns are named "{shown(name)}"'
            raise BadRow(what, "name each column differently", line, "csv-header")
    return header


def _texts(cell: str) -> list[str] | None:
    try:
        values = orjson.loads(cell)
    except orjson.JSONDecodeError:
        return None
    return values if all(isinstance(value, str) for value in values) else None
