"""Near-duplicates of a few texts among all of a set, by comparing each with each.

For texts written after one pattern: their signatures agree whatever they say, so that nothing else tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from m3kit.data.dataset import DataSet, Texts
from m3kit.data.near import NEAR, NearTo, grams
from m3kit.data.reading import Reading
from m3kit.data.rowindex import RowIndex
from m3kit.data.text import same_text
from m3kit.data.workers import Workers

# Trigrams are told apart by so many bits; a collision changes a count by one, hence the slack before the exact look.
BITS, SLACK = 20, 0.05
# Texts compared at once with all the others.
AT_ONCE = 2_000


@dataclass(frozen=True)
class _Part:
    reading: Reading
    index_folder: Path
    start: int
    stop: int
    width: int
    others: tuple[str, ...]


def near_rows(data: DataSet, width: int, others: list[str], workers: Workers) -> Iterator[tuple[int, int]]:
    """(row, other) of each row one of whose first ``width`` texts is nearly one of the others, which are in their
    ``same_text`` form."""
    folder = data.index.folder
    parts = (_Part(data.reading, folder, start, stop, width, tuple(others)) for start, stop in data.index.parts())
    for found in workers.map(_near_rows, parts):
        yield from found


def _near_rows(part: _Part) -> list[tuple[int, int]]:
    rows = Texts(part.reading, RowIndex(part.index_folder)).rows(part.start, part.stop)
    flat = [same_text(text) for texts, _, _ in rows for text in texts[: part.width]]
    others = _trigrams(list(part.others))
    sizes, near_to = np.asarray(others.sum(axis=1)).ravel(), NearTo(list(part.others))
    transposed = others.T.tocsr()
    found = []
    for first in range(0, len(flat), AT_ONCE):
        some = _trigrams(flat[first : first + AT_ONCE])
        shared = (some @ transposed).toarray()
        either = np.asarray(some.sum(axis=1)) + sizes - shared
        for place, other in np.argwhere(shared >= (NEAR - SLACK) * either).tolist():
            if near_to(flat[first + place], other):
                found.append((part.start + (first + place) // part.width, other))
    return found


def _trigrams(same: list[str]) -> csr_matrix:
    """Which trigrams each text has: ones, shape (texts, 2^BITS)."""
    values, starts = grams(same)
    columns = values >> np.uint32(32 - BITS)
    ends = np.append(starts, len(values))
    matrix = csr_matrix((np.ones(len(values), np.float32), columns, ends), shape=(len(same), 1 << BITS))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix
