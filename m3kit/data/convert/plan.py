"""What is decided about a set as a whole, and what a process needs to convert any part of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from m3kit.data.dataset import DataSet, Texts
from m3kit.data.grouping import repeated
from m3kit.data.negatives import walk
from m3kit.data.problems import BadRow
from m3kit.data.reading import Reading
from m3kit.data.rowindex import RowIndex
from m3kit.data.settings import Settings


@dataclass(frozen=True)
class Plan:
    """How the rows of one set are converted."""

    reading: Reading
    task: str
    index_folder: Path
    reasons: tuple[str, ...]
    settings: Settings
    type: str  # FlagEmbedding's
    negatives: int  # wanted for each query
    label_texts: tuple[str, ...] = ()
    shared: Path | None = None  # positives that other files give for queries of this one


def make_plan(data: DataSet, settings: Settings, kind: str, negatives: int, shared: Path | None = None) -> Plan:
    data.index.save("fate", data.fates.of_row)
    return Plan(
        data.reading,
        data.task,
        data.index.folder,
        tuple(data.fates.reasons),
        settings,
        kind,
        negatives,
        tuple(data.label_texts),
        shared,
    )


@dataclass
class Tally:
    """What was added and left out while converting."""

    negatives_added: int = 0
    texts_removed: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, other: Tally) -> Tally:
        self.negatives_added += other.negatives_added
        self.texts_removed += other.texts_removed
        return self

    def distinct(self, texts: dict[int, str], found: list[tuple[int, str]]) -> None:
        """Add texts by their keys to ``texts``; repeats are counted."""
        before = len(texts)
        for key, text in found:
            texts.setdefault(key, text)
        if repeats := len(found) - (len(texts) - before):
            self.texts_removed["given twice for one query"] += repeats


class Source:
    """A set as ``convert`` reads it: its texts, and a pool to draw negatives from."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.index = RowIndex(plan.index_folder)
        self.texts = Texts(plan.reading, self.index)

    @cached_property
    def key(self) -> np.ndarray:
        return self.index.mapped("key")

    @cached_property
    def first(self) -> np.ndarray:
        return self.index.mapped("first")

    @cached_property
    def pool(self) -> np.ndarray:
        return self.index.mapped("pool")

    def keys(self, row: int) -> list[int]:
        return self.key[int(self.first[row]) : int(self.first[row + 1])].tolist()

    def text(self, number: int) -> str:
        """A text by its number in the whole set."""
        row = int(np.searchsorted(self.first, number, side="right")) - 1
        return self.texts.row(row)[0][number - int(self.first[row])]

    def draw(self, key: int, count: int, forbidden: Collection[int]) -> list[str]:
        """Up to ``count`` different texts of the pool for the query with that key, none whose key is forbidden."""
        drawn: list[str] = []
        if count <= 0:
            return drawn
        for place in walk(self.plan.settings.seed, key, len(self.pool)):
            number = int(self.pool[place])
            if int(self.key[number]) not in forbidden:
                drawn.append(self.text(number))
                if len(drawn) == count:
                    break
        return drawn


def save_pool(index: RowIndex, rows: np.ndarray, skip_query: bool) -> None:
    """Keep the numbers of the different texts of some rows, in file order; ``rows`` is a mask.

    With ``skip_query`` the first text of each row is no passage.
    """
    counts = index.column("texts")
    allowed = np.repeat(rows, counts)
    if skip_query:
        allowed[index.column("first", 0, len(rows))] = False
    numbers = np.flatnonzero(allowed).astype(np.uint32)
    del allowed
    order, starts = repeated(index.column("key")[numbers])
    index.save("pool", np.delete(numbers, np.delete(order, starts[:-1])))


def prepared_row(query: str, pos: list[str], neg: list[str], prompt: str, kind: str) -> dict:
    if not neg:
        raise BadRow(
            "no negative here, and no other passage to draw one from", "give it one, or add rows", code="no-negative"
        )
    return {"query": query, "pos": pos, "neg": neg, "prompt": prompt, "type": kind}
