"""Rows into batches in which no query or passage comes twice: a pure function of the rows and the chance it is given.

A text that comes twice is a false negative: what answers one query would be pushed away from another that it answers.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np


class Drawn(NamedTuple):
    """A row in its batch, and which of its passages are used there."""

    row: int
    positive: int
    negatives: list[int]


class Block(NamedTuple):
    batches: list[list[Drawn]]
    # Rows that found no place although there was room, and rows that took one beside a text of theirs.
    left_over: int
    clashes: int


class Candidate:
    """A row that looks for a batch. ``group``: passages that it should bring, its positive among them."""

    __slots__ = ("row", "keys", "positive", "negatives", "least", "wanted", "any_negative")

    def __init__(self, row: int, query: str, pos: list[str], neg: list[str], group: int, random: np.random.Generator):
        self.row = row
        # What answers the query must not be a negative of it, whether or not it is the positive drawn.
        self.keys = {query, *pos}
        self.positive = int(random.integers(len(pos)))
        order = random.permutation(len(neg)).tolist()
        self.negatives: dict[str, int] = {}
        for number in order:
            if neg[number] not in self.keys:
                self.negatives.setdefault(neg[number], number)
        self.least = min(2, group)
        self.wanted = min(group, 1 + len(self.negatives))
        self.any_negative = order[0]


class Batch:
    """What lies in a batch so far: groups of one size, which shrinks when a row can bring no more.

    ``used`` holds the rank of each text: 0 if it belongs to a query, n if it is the n-th negative of one. In groups of
    n passages the texts of rank n and above are cut off, so that others may bring them.
    """

    def __init__(self, shares_negatives: bool) -> None:
        self.shares_negatives = shares_negatives
        self.members: list[tuple[int, Candidate, list[int]]] = []
        self.size = sys.maxsize
        self.used: dict[str, int] = {}

    def fit(self, row: Candidate) -> int:
        """The largest size of groups with which the row can be in here and nothing comes twice; 0: with none."""
        size = min(self.size, row.wanted)
        if self.shares_negatives:
            for key in row.keys:
                size = min(size, self.used.get(key, size))
            ranks = sorted((self.used.get(text, size) for text in row.negatives), reverse=True)
            while size > 1 and ranks[size - 2] < size:
                size -= 1
        return size if size >= row.least else 0

    def join(self, place: int, row: Candidate, size: int) -> None:
        free = (item for item in row.negatives.items() if self.used.get(item[0], size) >= size)
        self._add(place, row, size, list(islice(free, size - 1)))

    def force(self, place: int, row: Candidate) -> None:
        """Take the row although something comes twice."""
        size = max(min(self.size, row.wanted), row.least)
        best = sorted(row.negatives.items(), key=lambda item: item[0] in self.used)
        self._add(place, row, size, (best or [("", row.any_negative)])[: size - 1])

    def _add(self, place: int, row: Candidate, size: int, negatives: list[tuple[str, int]]) -> None:
        self.size = size
        if self.shares_negatives:
            self.used.update(dict.fromkeys(row.keys, 0))
            for rank, (text, _) in enumerate(negatives, start=1):
                self.used[text] = rank
        self.members.append((place, row, [number for _, number in negatives]))

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

    def with_room(place: int) -> Iterator[Batch]:
        """From the row's own batch on: which is the one it would be in, were there no clashes."""
        for step in range(count):
            batch = batches[(place // size + step) % count]
            if len(batch.members) < size:
                yield batch

    waiting = []
    for place in _hardest_first(rows) if shares_negatives else range(len(rows)):
        row = rows[place]
        for batch in with_room(place):
            if (group := batch.fit(row)) == min(batch.size, row.wanted):
                batch.join(place, row, group)
                break
        else:
            waiting.append(place)

    left = []
    for place in waiting:
        fits = ((batch.fit(rows[place]), batch) for batch in with_room(place))
        best = max(fits, key=lambda fit: fit[0], default=None)
        if best and best[0]:
            best[1].join(place, rows[place], best[0])
        else:
            left.append(place)

    for batch in batches:
        if len(batch.members) > processes:
            keep = len(batch.members) // processes * processes
            left += [place for place, *_ in batch.members[keep:]]
            del batch.members[keep:]
    clashes = 0
    for batch in batches:
        for place in left if len(batch.members) < processes else ():
            if len(batch.members) < processes and (group := batch.fit(rows[place])):
                batch.join(place, rows[place], group)
        taken = {place for place, *_ in batch.members}
        left = [place for place in left if place not in taken]
        while len(batch.members) < processes:
            batch.force(left[0], rows[left.pop(0)])
            clashes += 1
    return Block([batch.drawn() for batch in batches], len(left) - (len(rows) - count * size), clashes)


def _hardest_first(rows: Sequence[Candidate]) -> list[int]:
    """Rows whose texts many others bring are spread over the batches while there is room; else by chance."""
    count = Counter(text for row in rows for texts in (row.keys, row.negatives) for text in texts)
    return sorted(range(len(rows)), key=lambda place: -max(count[key] for key in rows[place].keys))
