"""The best passages of each query by one score, kept while passages come in shards."""

from __future__ import annotations

import numpy as np


class Best:
    """At most ``depth`` passages a query, best first; of equal scores the lower passage number first.

    ``numbers`` int32, ``scores`` and ``dense`` (the dense scores of the same passages) float32, all of shape (queries,
    depth); where there are fewer the number is -1. Only what scores above ``least`` is kept.
    """

    def __init__(self, queries: int, depth: int, least: float = -np.inf):
        self.depth = depth
        self.numbers = np.full((queries, depth), -1, np.int32)
        self.scores = np.full((queries, depth), least, np.float32)
        self.dense = np.full((queries, depth), np.nan, np.float32)

    def add(self, first: int, scores: np.ndarray, dense: np.ndarray, numbers: np.ndarray) -> None:
        """Take what is good enough of a block of scores (queries from ``first`` on, passages).

        ``numbers`` are the passages', in ascending order and above all that came before.
        """
        # What only equals the last one kept has a higher number, and comes too late.
        entering = scores > self.scores[first : first + len(scores), -1:]
        crowded = np.flatnonzero(np.count_nonzero(entering, axis=1) > self.depth)
        if len(crowded):
            some = scores[crowded]
            entering[crowded] &= some >= np.partition(some, -self.depth, axis=1)[:, -self.depth, None]
        rows, columns = np.nonzero(entering)
        self._take(first + rows, numbers[columns], scores[rows, columns], dense[rows, columns])

    def merge(self, other: Best) -> None:
        """Take what another process found among other passages."""
        rows, places = np.nonzero(other.numbers >= 0)
        found = (array[rows, places] for array in (other.numbers, other.scores, other.dense))
        self._take(rows, *found)

    def _take(self, rows: np.ndarray, numbers: np.ndarray, scores: np.ndarray, dense: np.ndarray) -> None:
        touched = np.unique(rows)
        rows = np.concatenate([np.repeat(touched, self.depth), rows])
        numbers = np.concatenate([self.numbers[touched].ravel(), numbers])
        scores = np.concatenate([self.scores[touched].ravel(), scores])
        dense = np.concatenate([self.dense[touched].ravel(), dense])
        order = np.lexsort((numbers, -scores, rows))
        rows = rows[order]
        place = np.arange(len(rows)) - np.searchsorted(rows, rows)
        kept = place < self.depth
        where, order = (rows[kept], place[kept]), order[kept]
        self.numbers[where], self.scores[where], self.dense[where] = numbers[order], scores[order], dense[order]

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Its arrays for ``np.savez``, with names that begin with ``name``."""
        return {f"{name}.{part}": getattr(self, part) for part in ("numbers", "scores", "dense")}

    def restore(self, name: str, arrays) -> None:
        for part in ("numbers", "scores", "dense"):
            setattr(self, part, arrays[f"{name}.{part}"])
