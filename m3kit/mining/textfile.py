"""Texts on disk, read by their number: what is held in memory is eight bytes a text."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np


class TextWriter:
    """Append texts to a new file; ``close`` writes where each begins beside it."""

    def __init__(self, path: Path):
        self._path, self._file, self._starts = path, path.open("wb"), array("q", [0])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def append(self, text: str) -> None:
        self._starts.append(self._starts[-1] + self._file.write(text.encode("utf-8")))

    def close(self) -> None:
        self._file.close()
        np.save(self._path.with_suffix(".npy"), np.frombuffer(self._starts, np.int64))


class TextFile(Sequence):
    """The texts that a ``TextWriter`` wrote."""

    def __init__(self, path: Path):
        self._file = path.open("rb")
        self._starts = np.load(path.with_suffix(".npy"))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> str:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self.part(number, number + 1)[0]

    def part(self, start: int, stop: int) -> list[str]:
        """The texts ``start`` to ``stop``, in one read."""
        places = self._starts[start : stop + 1].tolist()
        data = os.pread(self._file.fileno(), places[-1] - places[0], places[0])
        return [
            data[one - places[0] : other - places[0]].decode("utf-8")
            for one, other in zip(places[:-1], places[1:], strict=True)
        ]
