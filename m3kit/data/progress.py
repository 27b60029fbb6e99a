"""One bar over reading, checking and writing, with rows a second and the time that is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from m3kit.progress import Bar, bar

# A row counts in parts, as it is read and as it is written, so that the bar moves evenly.
READ_SHARE = 0.75


class Progress:
    def __init__(self, made: Bar, both: bool):
        self._bar, self._read_share = made, READ_SHARE if both else 1.0
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
        self._bar.say(what)


@contextmanager
def progress(both: bool) -> Iterator[Progress]:
    """A bar on stderr where that is a terminal; ``both``: rows are written too."""
    with bar(0, "reading", "rows") as made:
        yield Progress(made, both)
