"""One bar over reading, checking and writing, with rows a second and the time that is left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

# A row counts in parts, as it is read and as it is written, so that the bar moves evenly.
READ_SHARE = 0.75


class Progress:
    def __init__(self, bar: tqdm, both: bool):
        self._bar, self._read_share = bar, READ_SHARE if both else 1.0

    def expect(self, rows: int) -> None:
        self._bar.total = (self._bar.total or 0) + rows

    def read(self, rows: int) -> None:
        self._bar.update(rows * self._read_share)

    def written(self, rows: int) -> None:
        self._bar.update(rows * (1 - self._read_share))

    def close(self) -> None:
        """Before results are printed where the bar stands."""
        self._bar.close()

    def say(self, what: str) -> None:
        """What is being done where no row moves on."""
        self._bar.set_description(what)


@contextmanager
def progress(both: bool) -> Iterator[Progress]:
    """A bar on stderr where that is a terminal; ``both``: rows are written too."""
    shown = "{desc}: {percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} rows [{elapsed}<{remaining}, {rate_fmt}]"
    with tqdm(total=0, unit=" rows", bar_format=shown, disable=None, file=sys.stderr, mininterval=0.5) as bar:
        yield Progress(bar, both)
