"""One bar over reading, checking and writing, with rows a second and the time that is left."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

# A row counts in parts, as it is read and as it is written, so that the bar moves evenly.
READ_SHARE = 0.75
# Characters for what is being done.
WIDEST = 30


class Progress:
    def __init__(self, bar: tqdm, both: bool):
        self._bar, self._read_share = bar, READ_SHARE if both else 1.0
        self._bytes = self._cut_bytes = self._cut_rows = 0

    def expect(self, size: int) -> None:
        """So many more bytes are to be read (fewer, where it is negative)."""
        self._bytes += size

    def cut(self, size: int, rows: int) -> None:
        """So many bytes turned out to be so many rows; the others are taken to be like them."""
        self._cut_bytes += size
        self._cut_rows += rows
        self._bar.total = round(self._cut_rows * max(1.0, self._bytes / self._cut_bytes))

    def read(self, rows: int) -> None:
        self._bar.update(rows * self._read_share)

    def written(self, rows: int) -> None:
        self._bar.update(rows * (1 - self._read_share))

    def close(self) -> None:
        """Before results are printed where the bar stands."""
        self._bar.close()

    def say(self, what: str) -> None:
        """What is being done."""
        self._bar.set_description_str(what if len(what) <= WIDEST else what[: WIDEST - 1] + "…")


@contextmanager
def progress(both: bool) -> Iterator[Progress]:
    """A bar on stderr where that is a terminal; ``both``: rows are written too."""
    shown = "{desc}: {percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} rows [{elapsed}<{remaining}, {rate_fmt}]"
    # tqdm takes a size of 0 × 0, which a terminal in a container may have, to the letter, and shows nothing.
    size = shutil.get_terminal_size()
    with tqdm(
        bar_format=shown,
        total=0,
        unit=" rows",
        ncols=size.columns,
        nrows=size.lines,
        disable=None,
        file=sys.stderr,
        mininterval=0.5,
    ) as bar:
        yield Progress(bar, both)
