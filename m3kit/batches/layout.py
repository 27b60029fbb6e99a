"""Rows into batches in which no query or passage comes twice: a pure function of the rows and the chance it is given.

A text that comes twice is a false negative: what answers one query would be pushed away from another that it answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Drawn(NamedTuple):
    """A row in its batch, and the numbers of those of its passages that are used there."""

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
        self, row: Any, query: Hashable, pos: Sequence, neg: Sequence, group: int, random: np.random.Generator
    ):
        self.row, self.group = row, group
        # What answers the query must not be a negative of it, whether or not it is the positive drawn.
        self.keys: set[Hashable] = {query, *pos}
        self.positive = int(random.integers(len(pos)))
        order = random.permutation(len(neg)).tolist()
        self.negatives: dict[Hashable, int] = {}  # text: its number
        for number in order:
            if neg[number] not in self.keys:
                self.negatives.setdefault(neg[number], number)
        self.brings = self.keys.union(list(self.negatives)[: group - 1])
        self.any_negative = order[0]


class Batch:
    """What lies in a batch so far. ``keys``: of its rows, and a negative of each; ``texts``: all that they bring."""

    def __init__(self, shares_negatives: bool) -> None:
        self.shares_negatives = shares_negatives
        self.rows: list[tuple[int, Candidate, list[int]]] = []
        self.keys: set[Hashable] = set()
        self.texts: set[Hashable] = set()

    def take(self, place: int, row: Candidate, whole: bool, forced: bool = False) -> bool:
        """Take the row, if nothing comes twice then. ``whole``: nor if the groups become smaller by it."""
        fits = self.texts.isdisjoint(row.brings) if whole else self.keys.isdisjoint(row.keys)
        free = [text for text in row.negatives if text not in self.keys][: row.group - 1]
        if not forced and (not fits or (row.group > 1 and not free)):
            return False
        if self.shares_negatives:
            self.keys |= row.keys.union(free[:1])
            self.texts |= row.brings
        first = row.negatives[free[0]] if free else row.any_negative
        self.rows.append((place, row, [first] if row.group > 1 else []))
        return True

    def draw(self) -> list[Drawn]:
        """Give each row one more negative, until they have enough or one has none left that is not in the batch."""
        self.rows.sort(key=lambda found: found[0])
        most = min(row.group for _, row, _ in self.rows) - 1
        texts, drawn = set(self.keys), [negatives[:most] for *_, negatives in self.rows]
        while len(drawn[0]) < most:
            more = []
            for (_, row, _), negatives in zip(self.rows, drawn, strict=True):
                free = (one for one in row.negatives.items() if one[0] not in texts and one[1] not in negatives)
                text, number = next(free, (None, None))
                if number is not None:
                    more.append([*negatives, number])
                if self.shares_negatives:
                    texts.add(text)
            if len(more) < len(drawn):
                break
            drawn = more
        return [Drawn(row.row, row.positive, found) for (_, row, _), found in zip(self.rows, drawn, strict=True)]


def lay_out(rows: Sequence[Candidate], count: int, size: int, processes: int, shares_negatives: bool) -> Block:
    """Put the rows, which come in the order of chance, into ``count`` batches of at most ``size``.

    There are at least ``count`` × ``size`` rows. Each batch gets a multiple of ``processes``, and is never empty: first
    rows go where they bring all their passages, then where they bring fewer, and then batches stay smaller. Only where
    there would not be a row for each process is one taken that clashes.
    """
    batches = [Batch(shares_negatives) for _ in range(count)]
    left = list(range(len(rows)))
    if shares_negatives:
        # Rows whose texts many others bring are spread over the batches while there is room; else by chance.
        brought = Counter(text for row in rows for text in (*row.keys, *row.negatives))
        left.sort(key=lambda place: -max(brought[key] for key in rows[place].keys))

    def settle(place: int, whole: bool) -> bool:
        # From the batch on in which the row would be, were there no clashes.
        near = (batches[(place // size + step) % count] for step in range(count))
        return any(len(batch.rows) < size and batch.take(place, rows[place], whole) for batch in near)

    for whole in (True, False):
        left = [place for place in left if not settle(place, whole)]
    for batch in batches:
        whole_share = max(len(batch.rows) // processes, 1) * processes
        left += [place for place, *_ in batch.rows[whole_share:]]
        del batch.rows[whole_share:]
    clashes = 0
    for batch in batches:
        while len(batch.rows) < processes:
            fitting = (place for place in left if batch.take(place, rows[place], whole=False))
            place = next(fitting, None)
            if place is None:
                place, clashes = left[0], clashes + 1
                batch.take(place, rows[place], whole=False, forced=True)
            left.remove(place)
    return Block([batch.draw() for batch in batches], len(left) - (len(rows) - count * size), clashes)
