"""Rows into batches in which no query or passage comes twice: a pure function of the rows and the chance it is given.

A text that comes twice is a false negative: what answers one query would be pushed away from another that it answers.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Drawn(NamedTuple):
    """A row in its batch, and which of its passages are used there."""

    row: Any
    positive: int
    negatives: list[int]


class Block(NamedTuple):
    batches: list[list[Drawn]]
    # Rows that found no place although there was room, and rows that took one beside a text of theirs.
    left_over: int
    clashes: int


class Candidate:
    """A row that looks for a batch. ``group``: passages that it should bring, its positive among them."""

    def __init__(
        self,
        row: Any,
        query: Hashable,
        pos: Sequence[Hashable],
        neg: Sequence[Hashable],
        group: int,
        random: np.random.Generator,
    ):
        self.row = row
        # What answers the query must not be a negative of it, whether or not it is the positive drawn.
        self.keys = {query, *pos}
        self.positive = int(random.integers(len(pos)))
        self.negatives: dict[Hashable, int] = {}
        order = random.permutation(len(neg)).tolist()
        for number in order:
            if neg[number] not in self.keys:
                self.negatives.setdefault(neg[number], number)
        self.least, self.wanted = min(2, group), min(group, 1 + len(self.negatives))
        if not self.negatives:
            # Only for a row that must have a place.
            self.negatives[neg[order[0]]] = order[0]


class Batch:
    """What lies in a batch so far: groups of one size, which shrinks when a row can bring no more.

    ``used`` holds the rank of each text: 0 if it belongs to a query, n if it is the n-th negative of one. In groups of
    n passages the texts of rank n and above are cut off, so that others may bring them.
    """

    def __init__(self, shares_negatives: bool) -> None:
        self.shares_negatives = shares_negatives
        self.members: list[tuple[int, Candidate, list[int]]] = []
        self.size = sys.maxsize
        self.used: dict[Hashable, int] = {}

    def fit(self, row: Candidate) -> int:
        """The largest size of groups with which the row can be in here and nothing comes twice; 0: with none."""
        size = min(self.size, row.wanted)
        if self.shares_negatives:
            size = min([size, *(self.used[key] for key in row.keys if key in self.used)])
            ranks = sorted((self.used.get(text, size) for text in row.negatives), reverse=True)
            while size > 1 and ranks[size - 2] < size:
                size -= 1
        return size if size >= row.least else 0

    def add(self, place: int, row: Candidate) -> None:
        """Take the row, even if it does not fit and something comes twice."""
        self.size = size = self.fit(row) or min(self.size, max(row.wanted, row.least))
        free_first = sorted(row.negatives.items(), key=lambda item: self.used.get(item[0], size) < size)[: size - 1]
        if self.shares_negatives:
            self.used.update(dict.fromkeys(row.keys, 0))
            self.used.update((text, rank) for rank, (text, _) in enumerate(free_first, start=1))
        self.members.append((place, row, [number for _, number in free_first]))

    def drawn(self) -> list[Drawn]:
        self.members.sort(key=lambda member: member[0])
        return [Drawn(row.row, row.positive, negatives[: self.size - 1]) for _, row, negatives in self.members]


def lay_out(rows: Sequence[Candidate], count: int, size: int, processes: int, shares_negatives: bool) -> Block:
    """Put the rows, which come in the order of chance, into ``count`` batches of at most ``size``.

    There are at least ``count`` × ``size`` rows. Each batch gets a multiple of ``processes``, and is never empty: first
    rows go where they bring all their passages, then where they bring fewer, and then batches stay smaller. Only where
    there would not be a row for each process is one taken that clashes.
    """
    batches = [Batch(shares_negatives) for _ in range(count)]

    def settle(place: int, whole: bool) -> bool:
        """From the batch on in which the row would be, were there no clashes."""
        row, found, most = rows[place], None, 0
        for step in range(count):
            batch = batches[(place // size + step) % count]
            fit = batch.fit(row) if len(batch.members) < size else 0
            if fit > most and (not whole or fit == min(batch.size, row.wanted)):
                found, most = batch, fit
                if whole:
                    break
        if found:
            found.add(place, row)
        return found is not None

    left = list(range(len(rows)))
    if shares_negatives:
        # Rows whose texts many others bring are spread over the batches while there is room; else by chance.
        brought = Counter(text for row in rows for texts in (row.keys, row.negatives) for text in texts)
        left.sort(key=lambda place: -max(brought[key] for key in rows[place].keys))
    for whole in (True, False):
        left = [place for place in left if not settle(place, whole)]
    for batch in batches:
        if len(batch.members) > processes:
            keep = len(batch.members) // processes * processes
            left += [place for place, *_ in batch.members[keep:]]
            del batch.members[keep:]
    clashes = 0
    for batch in batches:
        while len(batch.members) < processes:
            place = next((place for place in left if batch.fit(rows[place])), None)
            clashes += place is None
            place = left[0] if place is None else place
            left.remove(place)
            batch.add(place, rows[place])
    return Block([batch.drawn() for batch in batches], len(left) - (len(rows) - count * size), clashes)
