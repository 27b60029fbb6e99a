"""A file of a test, read as JSON lines, and rows that break careless readers."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
from hypothesis import strategies as st

from m3kit.data.transcode import as_json_lines

# What breaks careless readers: quotes, delimiters, every kind of line end, escapes, astral characters, markup.
NASTY = st.text(st.sampled_from('ab",;\t\n\r\\[]{}:\u2028\u2029\x85\x0b\x1c\ufeff é中😀𝄞')) | st.text()
ROWS = st.lists(st.tuples(NASTY, NASTY), max_size=8)
COMPLETE = [{"query": "q", "positive": "p"}, {"query": "r", "positive": "é😀\u2028"}]


class Read:
    """What became of a file: its values, their places in the user's file, and what was said."""

    def __init__(self, file: Path):
        scratch = file.parent / "scratch"
        scratch.mkdir(exist_ok=True)
        self.file, self.problems = file, []
        self.result = as_json_lines(file, scratch, self.problems)
        told = [problem for problem, _ in self.result.bad] if self.result else []
        told = sorted([*self.problems, *told], key=lambda problem: problem.line)
        self.told = [(problem.line, problem.what) for problem in told]
        assert all(problem.path == file and problem.what and problem.fix for problem in self.problems)
        if self.result is None:
            assert self.problems
            return
        lines = self.result.path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
        self.lines = [line for line in lines if line.strip()]
        if self.result.numbers is not None:
            assert len(self.result.numbers) == len(self.lines)
            assert self.result.path.is_relative_to(scratch)

    @property
    def values(self):
        return [json.loads(line) for line in self.lines]

    @property
    def numbers(self):
        return self.result.numbers.tolist()

    @property
    def notes(self):
        return self.result.notes


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
