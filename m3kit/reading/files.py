"""Any file as rows: dicts, each with its line. What the first bytes say counts more than the name.

A row that cannot be read is a ``BadRow`` in its place; where what follows cannot be told apart, ``BadRow`` is raised.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from m3kit.reading.csvfile import csv_rows, table_rows
from m3kit.reading.jsonfile import BOM, is_blank_line, json_values, parse_line
from m3kit.reading.problems import BadRow
from m3kit.reading.sources import data_kind, how_to_convert

BLOCK = 1 << 16
BATCH = 256  # rows of Parquet and Arrow
PACKINGS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
TABLES = {b"PAR1": "Parquet", b"ARROW1": "Arrow", b"PK\x03\x04": "XLSX"}
# What else a file may turn out to be, by its first bytes once it is unpacked, and what to do then.
FOREIGN = {
    b"\xff\xfe\x00\x00": ("UTF-32 text", "save the file as UTF-8"),
    b"\x00\x00\xfe\xff": ("UTF-32 text", "save the file as UTF-8"),
    b"BZh": ("packed with bzip2", "unpack it, or pack it with gzip"),
    b"\xfd7zXZ\x00": ("packed with xz", "unpack it, or pack it with gzip"),
    b"version https://git-lfs": ("only Git LFS's pointer to the data", "fetch the data: git lfs pull"),
    **{magic: (f"packed twice, {name} within", "pack it once only") for magic, name in PACKINGS.items()},
}

# The line (the row, where a file has no lines) in which a row begins, counted from 1; the row, or what is wrong with
# it; and the row as it stands there, where that is known.
Record = tuple[int, dict[str, Any] | BadRow, bytes | None]


@dataclass
class Reading:
    """A file that is read row by row, and what was decided for the user on the way."""

    path: Path
    textual: bool = False  # every value is text or null (CSV): numbers are still to be parsed
    where: str = "line"  # what a row's number counts
    notes: list[str] = field(default_factory=list)

    def records(self) -> Iterator[Record]:
        """All rows. Raises ``BadRow`` where reading stops, and for a file that holds none at all."""
        content, damage = content_of(self.path, self.notes)
        kind = self._kind(content)
        if damage and (not content or kind in TABLES.values()):  # those have their table of contents at their end
            damage.line = 1
            raise damage
        try:
            for line, record, raw in self._records(content, kind):
                if isinstance(record, BadRow) and record.code == "utf-8":
                    record.fix = self._conversion
                yield line, record, raw
        except BadRow as stop:
            if stop.code == "utf-8":
                stop.fix = self._conversion
            # That the data are cut off is said once.
            if not (damage and stop.code == "unfinished"):
                stop.what += "; reading stopped there"
                raise
        if damage:
            raise damage

    def _records(self, content: bytes, kind: str) -> Iterator[Record]:
        if kind == "lines":
            return _lines(content)
        if kind == "json":
            return json_values(content, self.notes)
        if kind == "XLSX":
            return table_rows(_sheet(content), self.notes)
        if kind in ("csv", "tsv"):
            self.textual = True
            return csv_rows(content, kind, self.notes)
        self.where = "row"
        return _table(content, kind)

    def _kind(self, content: bytes) -> str:
        named = data_kind(self.path)
        if kind := next((name for magic, name in TABLES.items() if content.startswith(magic)), None):
            if named != kind.lower():
                self.notes.append(f"holds {kind}, read as such")
            return kind
        if named in ("parquet", "xlsx"):
            raise BadRow(f"this is no {named} file", "save it again, or name it after what it holds", code="container")
        if named == "arrow":
            return "Arrow"
        first, second = [*islice(filter(None, map(bytes.strip, io.BytesIO(content))), 2), b"", b""][:2]
        # Whether lines are values of their own, as far as their ends tell.
        values = [line[:1] + line[-1:] in (b"{}", b"[]") for line in (first, second)]
        if named in ("csv", "tsv") and not values[0]:
            return named
        if first.startswith(b"[") and (named == "json" or not all(values)):
            return "json"
        if first == b"{" or (named == "json" and first.startswith(b"{") and not (second and values[0])):
            return "json"
        if named in ("json", "csv", "tsv") and first.startswith(b"{"):
            self.notes.append("holds JSON lines, read as such")
        return "lines"

    @cached_property
    def _conversion(self) -> str:
        return how_to_convert(self.path)


def read_values(path: Path) -> dict[str, Any]:
    """The one JSON object that a small file holds. Raises ``BadRow``."""
    return parse_line(_bytes_of(path))


def _bytes_of(file: Path) -> bytes:
    try:
        if file.is_file():  # a pipe would keep its reader waiting
            return file.read_bytes()
        what = "not a regular file" if file.exists() else "no such file"
    except OSError as error:
        what = f"the file cannot be read ({error.strerror or error})"
    raise BadRow(what, "put that right or leave the file out", code="unreadable")


def content_of(file: Path, notes: list[str]) -> tuple[bytes, BadRow | None]:
    """What the file holds: unpacked, in UTF-8, with LF at the ends of its lines; and where packed data are damaged.

    Raises ``BadRow`` for what is no data.
    """
    content, damage = _bytes_of(file), None
    if packing := next((name for magic, name in PACKINGS.items() if content.startswith(magic)), None):
        content, damage = _unpacked(content, packing)
    elif file.suffix.lower() in (".gz", ".zst"):
        notes.append("is not packed, whatever its name says; read as it is")
    if content in (b"", BOM) and not damage:
        raise BadRow("the file is empty", "fill it or leave it out", code="empty")
    for magic, (what, fix) in FOREIGN.items():
        if content.startswith(magic):
            raise BadRow(f"the file is {what}", fix, code="container")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            content = content.decode("utf-16").encode()
        except UnicodeDecodeError as error:
            raise BadRow(f"UTF-16 that is damaged ({error.reason})", "save it as UTF-8", code="utf-16") from error
        notes.append("is UTF-16, read as such")
    if b"\n" not in content and b"\r" in content.rstrip(b"\r") and not content.startswith(tuple(TABLES)):
        notes.append("its lines end with CR alone, as on old Macs; every CR is read as the end of a line")
        content = content.replace(b"\r", b"\n")
    return content.removeprefix(BOM), damage


def _unpacked(content: bytes, packing: str) -> tuple[bytes, BadRow | None]:
    """What packed data hold; where they are damaged, the whole lines before that, and what is wrong."""
    found, packed = bytearray(), io.BytesIO(content)
    try:
        if packing == "gzip":
            read = gzip.GzipFile(fileobj=packed).read1  # read() would lose what it has when it meets the damage
        else:
            import pyarrow

            read = pyarrow.input_stream(packed, compression="zstd").read
        while block := read(BLOCK):
            found += block
    except (EOFError, OSError, zlib.error) as error:
        del found[found.rfind(b"\n") + 1 :]
        what = f"the {packing} data are cut off or damaged here ({error}); reading stopped there"
        damage = BadRow(what, "copy the file again, or pack it again", found.count(b"\n") + 1, "damaged")
        return bytes(found), damage
    return bytes(found), None


def _lines(content: bytes) -> Iterator[Record]:
    for number, raw in enumerate(io.BytesIO(content), start=1):
        if not is_blank_line(raw):
            raw = raw.removesuffix(b"\n")
            record: dict[str, Any] | BadRow
            try:
                record = parse_line(raw)
            except BadRow as bad:
                record, bad.line = bad, None  # a line of JSON is line 1 to its parser
            yield number, record, raw


def _table(content: bytes, kind: str) -> Iterator[Record]:
    """The rows of Parquet, of an Arrow file, or of the stream that ``datasets.save_to_disk`` writes."""
    import pyarrow
    from pyarrow import ipc
    from pyarrow.parquet import ParquetFile

    # Not all that is broken is called so: bad UTF-8 and dates beyond Python's are a ValueError and an OverflowError.
    broken = (pyarrow.ArrowException, OSError, ValueError, OverflowError)
    number, source = 0, pyarrow.BufferReader(content)
    try:
        if kind == "Parquet":
            table = ParquetFile(source, page_checksum_verification=True)
            schema, batches = table.schema_arrow, table.iter_batches(batch_size=BATCH, use_threads=False)
        elif content.startswith(b"ARROW1"):
            table = ipc.open_file(source)
            schema, batches = table.schema, map(table.get_batch, range(table.num_record_batches))
        else:
            batches = ipc.open_stream(source)
            schema = batches.schema
        if len(set(schema.names)) < len(schema.names):
            raise BadRow("two columns have the same name", "name each column differently", code=kind.lower())
        classes = _class_names(schema.metadata or {})
        for batch in batches:
            try:
                rows = batch.to_pylist()
            except broken:
                rows = [None] * batch.num_rows
            for at, row in enumerate(rows):
                number += 1
                try:
                    record = _plain(row or batch.slice(at, 1).to_pylist()[0], classes)
                except broken as error:
                    what = f"this row cannot be read ({_first_line(error)})"
                    record = BadRow(what, "save its texts as UTF-8", code="parquet")
                yield number, record, str(row or "").encode() if isinstance(record, BadRow) else None
    except broken as error:
        what = f"the {kind} file is broken or cut off ({_first_line(error)})"
        raise BadRow(what, "copy it again or save it again", number + 1, code=kind.lower()) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """The names of the classes of each ``ClassLabel`` column, as the library datasets keeps them in the file."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _plain(row: dict[str, Any], classes: dict[str, list[str]]) -> dict[str, Any] | BadRow:
    """A row with the names of classes for their numbers, None for NaN, and texts for what JSON has no word for."""
    for name, value in row.items():
        if isinstance(value, bytes):  # as old Parquet has its texts
            try:
                row[name] = value.decode()
            except UnicodeDecodeError:
                what = f'"{name}" holds bytes that are no UTF-8'
                return BadRow(what, "save its texts as UTF-8", code="surrogate")
        elif isinstance(value, float) and math.isnan(value):
            row[name] = None
        elif name in classes and isinstance(value, int) and 0 <= value < len(classes[name]):
            row[name] = classes[name][value]
        elif not isinstance(value, str | int | float | list | dict | None):
            row[name] = str(value)
    return row


def _sheet(content: bytes) -> Iterator[tuple[Any, ...]]:
    """The rows of the first sheet of an Excel file."""
    from openpyxl import load_workbook

    try:
        workbook = load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheet = workbook.worksheets[0]
        sheet.reset_dimensions()  # what some programs write there is wrong
        yield from sheet.iter_rows(values_only=True)
    except Exception as error:  # the library lets through whatever a broken file makes of it
        what = f"a ZIP archive, or an Excel file that is broken ({type(error).__name__})"
        raise BadRow(what, "unpack it; save an Excel sheet as CSV in UTF-8", code="container") from error
