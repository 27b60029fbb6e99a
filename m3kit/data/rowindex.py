"""Where each row of a file stands, and the keys of its texts: what a set of any size is known by without its texts.

The columns lie in files and are read in slices, so that memory does not grow with the number of rows by more than the
one column at hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from m3kit.data.near import BANDS

ROWS_A_PART, BYTES_A_PART = 10_000, 8 * 1024 * 1024
# One value a row.
ROW_COLUMNS = {
    "offset": np.uint64,  # of the row's line in the file of JSON lines, in bytes
    "length": np.uint32,  # of that line
    "line": np.uint32,  # in the user's file
    "texts": np.uint32,  # how many keys the row has
    "positives": np.uint32,  # how many of them are positives (they follow the query)
    "row_key": np.uint64,  # of all its texts
    "repeats": np.bool_,  # two of its texts are the same
    "number": np.float64,  # a score, a label's number, or 1 where teacher scores are given
}
# Some values a row: of each text its key, and whether it may be too long for the model; of each query text (STS pairs
# have two) its bands.
BAND_COLUMNS = tuple(f"band{number}" for number in range(BANDS))
FLAT_COLUMNS = dict.fromkeys(("key", *BAND_COLUMNS), np.uint64) | {"long": np.bool_}


class RowIndexWriter:
    """Takes the columns batch by batch."""

    def __init__(self, folder: Path):
        folder.mkdir()
        self._folder = folder
        self._files = {name: (folder / name).open("wb") for name in ROW_COLUMNS | FLAT_COLUMNS}
        self._rows = 0

    def append(self, columns: dict[str, np.ndarray]) -> None:
        for name, file in self._files.items():
            np.ascontiguousarray(columns[name], (ROW_COLUMNS | FLAT_COLUMNS)[name]).tofile(file)
        self._rows += len(columns["line"])

    def close(self, **about) -> RowIndex:
        """``about``: what else is to be known of the set, as JSON."""
        for file in self._files.values():
            file.close()
        (self._folder / "about.json").write_text(json.dumps(about | {"rows": self._rows}), "utf-8")
        index = RowIndex(self._folder)
        first = np.zeros(self._rows + 1, np.int64)
        np.cumsum(index.column("texts"), out=first[1:], dtype=np.int64)
        index.save("first", first)
        return index


class RowIndex:
    """Columns of one file's rows, read in slices."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.about = json.loads((folder / "about.json").read_text("utf-8"))
        self.rows: int = self.about["rows"]

    def __len__(self) -> int:
        return self.rows

    def column(self, name: str, start: int = 0, stop: int | None = None, dtype=None) -> np.ndarray:
        """A slice of a column, one value a row unless it was saved otherwise."""
        dtype = np.dtype(dtype or (ROW_COLUMNS | FLAT_COLUMNS).get(name) or (self.folder / f"{name}.dtype").read_text())
        count = -1 if stop is None else max(0, stop - start)
        return np.fromfile(self.folder / name, dtype, count, offset=start * dtype.itemsize)

    def save(self, name: str, values: np.ndarray) -> None:
        """Keep a further column."""
        values.tofile(self.folder / name)
        (self.folder / f"{name}.dtype").write_text(values.dtype.str)

    def mapped(self, name: str) -> np.ndarray:
        """A column for access anywhere in it."""
        dtype = (ROW_COLUMNS | FLAT_COLUMNS).get(name) or np.dtype((self.folder / f"{name}.dtype").read_text())
        if (self.folder / name).stat().st_size == 0:
            return np.empty(0, dtype)
        return np.memmap(self.folder / name, dtype, mode="r")

    def keys(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """(keys, where): the keys of rows ``start`` to ``stop``; those of row start + i are where[i]:where[i + 1]."""
        first = self.column("first", start, stop + 1)
        return self.column("key", int(first[0]), int(first[-1])), first - first[0]

    def parts(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of rows that are converted together: so many, and fewer where they are long."""
        for first in range(0, self.rows, ROWS_A_PART):
            ends = np.cumsum(self.column("length", first, min(self.rows, first + ROWS_A_PART)), dtype=np.int64)
            start = 0
            while start < len(ends):
                limit = (ends[start - 1] if start else 0) + BYTES_A_PART
                stop = max(start + 1, int(np.searchsorted(ends, limit, side="right")))
                yield first + start, first + stop
                start = stop

    def band(self, number: int, start: int, stop: int) -> np.ndarray:
        """A slice of one band of the query texts."""
        return self.column(BAND_COLUMNS[number], start, stop)

    def query_keys(self) -> np.ndarray:
        """The key of each row's first text."""
        return self.mapped("key")[self.column("first", 0, self.rows)] if self.rows else np.empty(0, np.uint64)
