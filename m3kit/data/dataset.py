"""One file of the user's, read: its rows' index, what it is, and the way back to its texts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from m3kit.data.jsonline import parse_line
from m3kit.data.reading import LayoutOf, Reading
from m3kit.data.rowindex import RowIndex

# A row's fate; from SET_ASIDE on it is the number of the reason.
USED, MERGED, HELD_OUT, SET_ASIDE = 0, 1, 2, 3


class Fates:
    """What becomes of each row of a set. A row that was given a fate other than USED keeps it."""

    def __init__(self, rows: int):
        self.of_row = np.zeros(rows, np.uint8)
        self.reasons: list[str] = []

    def give(self, rows: np.ndarray, fate: int) -> None:
        rows = np.asarray(rows, np.int64)
        rows = rows[self.of_row[rows] == USED]
        self.of_row[rows] = fate

    def set_aside(self, rows: np.ndarray, reason: str) -> None:
        if reason not in self.reasons:
            self.reasons.append(reason)
        self.give(rows, SET_ASIDE + self.reasons.index(reason))

    @property
    def used(self) -> np.ndarray:
        return self.of_row == USED

    def count(self, fate: int) -> int:
        return int(np.count_nonzero(self.of_row == fate))

    def counts_by_reason(self) -> Counter[str]:
        counts = {reason: self.count(SET_ASIDE + number) for number, reason in enumerate(self.reasons)}
        return Counter({reason: count for reason, count in counts.items() if count})


@dataclass
class DataSet:
    """A file's rows, and what is known of them before they are converted."""

    reading: Reading
    task: str
    reason: str  # how the task was told
    folder: str  # the name of its prepared folder
    index: RowIndex
    fates: Fates
    read: int  # rows in the file: those of the index and the bad ones
    bad: Counter[str]  # by the code of what is wrong with them
    sha256: str
    where: str = "line"  # what a row's number counts
    labels: list[str] = field(default_factory=list)  # by number
    label_texts: list[str] = field(default_factory=list)  # what stands for each label in classification
    types: dict[str | None, int] = field(default_factory=dict)
    unused_columns: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def source(self) -> Path:
        return self.reading.source


class Texts:
    """The texts of a set's rows, read where they stand."""

    def __init__(self, reading: Reading, index: RowIndex):
        self._index, self._layout_of = index, LayoutOf(reading)
        self._file = reading.lines.open("rb")
        self._offset, self._length = index.mapped("offset"), index.mapped("length")

    def rows(self, start: int, stop: int) -> Iterator[tuple[list[str], int, Any]]:
        """(texts, positives, value) of rows one after the other: see ``Layout.parse``."""
        for raw in self.lines(start, stop):
            yield self._parse(raw)

    def lines(self, start: int, stop: int) -> Iterator[bytes]:
        """The rows as they stand in the file."""
        if start == stop:
            return
        offsets = self._index.column("offset", start, stop).astype(np.int64)
        ends = offsets + self._index.column("length", start, stop)
        self._file.seek(offsets[0])
        data = self._file.read(int(ends[-1] - offsets[0]))
        for begin, end in zip((offsets - offsets[0]).tolist(), (ends - offsets[0]).tolist(), strict=True):
            yield data[begin:end]

    def row(self, number: int) -> tuple[list[str], int, Any]:
        """One row from anywhere in the file."""
        return self._parse(os.pread(self._file.fileno(), int(self._length[number]), int(self._offset[number])))

    def _parse(self, raw: bytes) -> tuple[list[str], int, Any]:
        try:
            record = orjson.loads(raw)
        except orjson.JSONDecodeError:
            record = parse_line(raw)  # what only the slower way reads: a byte order mark, NaN in a column not used
        return self._layout_of(record).parse(record)
