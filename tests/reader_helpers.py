"""A file of a test, read row by row, and texts that break careless readers."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import strategies as st

from m3kit.reading.files import Reading
from m3kit.reading.problems import BadRow

# What breaks careless readers: quotes, delimiters, every kind of line end, escapes, astral characters, markup.
NASTY = st.text(st.sampled_from('ab",;\t\n\r\\[]{}:\u2028\u2029\x85\x0b\x1c\ufeff é中😀𝄞')) | st.text()
ROWS = st.lists(st.tuples(NASTY, NASTY), max_size=8)
COMPLETE = [{"query": "q", "positive": "p"}, {"query": "r", "positive": "é😀\u2028"}]


class Read:
    """What became of a file: its rows and their lines, the bad rows, what stopped the reading, and what was noted."""

    def __init__(self, file: Path):
        self.values, self.lines, self.bad, self.texts, self.stop = [], [], [], [], None
        self.reading = Reading(file)
        try:
            for line, record, raw in self.reading.records():
                if isinstance(record, BadRow):
                    assert record.what and record.fix and raw is not None
                    self.bad.append((record.line or line, record.code))
                    self.texts.append(raw.decode("utf-8", "backslashreplace"))
                else:
                    self.values.append(record)
                    self.lines.append(line)
        except BadRow as stop:
            assert stop.what and stop.fix
            self.stop, self.what, self.fix = (stop.line or 1, stop.code), stop.what, stop.fix
        self.notes = self.reading.notes


@pytest.fixture
def read(tmp_path):
    """Read a file of the given name and content."""

    def of(name: str, content: bytes | str) -> Read:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return Read(tmp_path / name)

    return of


def fresh(tmp_path_factory, name: str, content: bytes) -> Read:
    file = tmp_path_factory.mktemp("rows") / name
    file.write_bytes(content)
    return Read(file)


def jsonl(rows) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def zstd(content: bytes) -> bytes:
    return pyarrow.compress(content, codec="zstd", asbytes=True)


def parquet(columns: dict, **options) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer, **options)
    return buffer.getvalue()


PACK = {"gz": gzip.compress, "zst": zstd}


def is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def noise(count: int) -> list[dict]:
    """Rows that do not pack well, so that a part of the packed file holds a part of the rows."""
    return [{"query": os.urandom(40).hex()} for _ in range(count)]
