"""Near-duplicates: texts that share most of their character trigrams.

Two texts are near-duplicates where the Jaccard similarity of their trigram sets is ``NEAR`` or more. Candidates come
from MinHash signatures in bands (Broder 1997; Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", ch. 3), and
every candidate is then compared exactly, so none is named wrongly. With eight bands of two, two texts at the threshold
are missed once in four thousand times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from m3kit.data.grouping import group, repeated

NEAR = 0.8
BANDS = 8
# Texts hashed together: what they need stays in the processor's cache.
AT_ONCE = 1_000
# Odd, as multiplication modulo 2^32 must be a permutation; fixed, as signatures are compared across runs.
_FACTORS = [int(factor) | 1 for factor in np.random.default_rng(1997).integers(2**31, 2**32, 2 * BANDS)]


def bands(same: list[str]) -> np.ndarray:
    """Band values of texts in their ``same_text`` form: uint64, shape (texts, BANDS).

    Two texts are candidates where any band has the same value in both.
    """
    values = np.empty((len(same), 2 * BANDS), np.uint32)
    for start in range(0, len(same), AT_ONCE):
        _minima(same[start : start + AT_ONCE], values[start : start + AT_ONCE])
    return values.view(np.uint64)


def grams(same: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(hashes of the texts' trigrams one text after the other, uint32; where each text begins)"""
    # A space on either side makes the first and the last word count like the others, and no text too short.
    framed = [f" {text} " for text in same]
    lengths = np.array([len(text) for text in framed])
    ends = np.cumsum(lengths)
    starts = ends - lengths
    characters = np.frombuffer("".join(framed).encode("utf-32-le"), np.uint32)
    hashes = characters * np.uint32(0x9E3779B1)
    # One multiplication after the other, so that the order of the characters counts.
    hashes[:-2] = ((hashes[:-2] ^ characters[1:-1]) * np.uint32(0x85EBCA6B) ^ characters[2:]) * np.uint32(0xC2B2AE35)
    hashes ^= hashes >> np.uint32(15)
    hashes *= np.uint32(0x27D4EB2F)
    hashes ^= hashes >> np.uint32(13)
    # The last two places of each text would reach into the next; they repeat the trigram before them.
    last = np.maximum(ends - 3, starts)
    hashes[ends - 1] = hashes[last]
    hashes[ends - 2] = hashes[last]
    return hashes, starts


def _minima(same: list[str], values: np.ndarray) -> None:
    """Fill in the least hash of each text's trigrams under each factor: the rows of ``values``."""
    hashes, starts = grams(same)
    hashed = np.empty_like(hashes)
    for column, factor in enumerate(_FACTORS[: values.shape[1]]):
        np.multiply(hashes, np.uint32(factor), out=hashed)
        values[:, column] = np.minimum.reduceat(hashed, starts)


def near_pairs(same: list[str], one: np.ndarray, other: np.ndarray) -> Iterator[tuple[int, float]]:
    """(place, similarity) of the near-duplicates among pairs of texts, given by their numbers in ``same``."""
    lengths = np.fromiter(map(len, same), np.int64, len(same))[np.stack([one, other])]
    # Trigrams may repeat in a text, so lengths that differ by more than NEAR allows do not quite rule a pair out.
    places = np.flatnonzero(lengths.min(axis=0) >= 0.9 * NEAR * lengths.max(axis=0))
    numbers, where = np.unique(np.concatenate([one[places], other[places]]), return_inverse=True)
    values = np.empty((len(numbers), 6), np.uint32)
    for start in range(0, len(numbers), AT_ONCE):
        chosen = numbers[start : start + AT_ONCE].tolist()
        _minima([same[number] for number in chosen], values[start : start + AT_ONCE])
    left, right = where[: len(places)], where[len(places) :]
    # Each agrees with a chance of the similarity: half of six do for 98 in 100 pairs at the threshold.
    for place in places[(values[left] == values[right]).sum(axis=1) >= 3].tolist():
        if (alike := similarity(same[one[place]], same[other[place]])) >= NEAR:
            yield place, alike


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of the trigrams of two texts in their ``same_text`` form, 0 to 1."""
    left, right = trigrams(one), trigrams(other)
    return len(left & right) / len(left | right)


def trigrams(same: str) -> set[str]:
    framed = f" {same} "
    return {framed[i : i + 3] for i in range(max(1, len(framed) - 2))}


def candidates(band: Callable[[int], np.ndarray], width: int = 1) -> np.ndarray:
    """Candidate pairs (earlier, later) of texts, each once, int64 of shape (2, pairs).

    ``band`` gives the values of all texts in one band. ``width`` bands are taken as one: more gives fewer and likelier
    candidates. In a run of equal values each member is paired with the first, so there are never more pairs than texts.
    """
    packed = [np.empty(0, np.int64)]
    for first in range(0, BANDS, width):
        order, starts = repeated(_joined(band(one) for one in range(first, first + width)))
        later = np.delete(order, starts[:-1])
        packed.append(np.repeat(order[starts[:-1]], np.diff(starts) - 1) << 32 | later)
    pairs = np.unique(np.concatenate(packed))
    return np.stack([pairs >> 32, pairs & 0xFFFFFFFF])


# Texts looked at together, and likely pairs that are worth comparing exactly.
BLOCK = 100_000
COMPARED = 300_000
# With so few pairs in all one band that agrees is enough to look; with more two must, which at the threshold misses
# one pair in two hundred instead of one in four thousand.
FEW = 50_000_000
# What agrees in one band with more texts than that, and than a hundredth of all, is written after a pattern.
COMMON = 5_000


def matches(
    band: Callable[[int, int, int], np.ndarray], texts: int, others: np.ndarray, width: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """(pairs, common): likely pairs (text, other) of a number of texts with others, each once, int64 of shape
    (2, pairs).

    ``band`` gives one band of the texts from one number to another; ``others`` are bands as ``bands`` gives them.
    ``width`` as for ``candidates``. There are at most COMPARED pairs, those in which most bands agree. Others that are
    ``common``, a mask, stand in no pair: in texts written after one pattern nearly all would have to be compared.
    """
    columns = range(0, BANDS, width)
    common = np.zeros(len(others), bool)
    for number in columns:
        together = range(number, number + width)
        groups = _groups(_joined(others[:, one] for one in together))
        hits = np.zeros(len(groups.values), np.int64)
        for start in range(0, texts if len(others) else 0, BLOCK):
            column = _joined(band(one, start, min(texts, start + BLOCK)) for one in together)
            hits += np.bincount(groups.place(column)[1], minlength=len(hits))
        common |= np.repeat(hits > max(COMMON, texts // 100), np.diff(groups.starts))[np.argsort(groups.order)]
    kept = np.flatnonzero(~common)
    table = [_groups(_joined(others[kept, one] for one in range(number, number + width))) for number in columns]
    least = 1 if texts * len(kept) <= FEW or width > 1 else 2
    found, agreements = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, texts if len(kept) else 0, BLOCK):
        stop = min(texts, start + BLOCK)
        packed = [
            groups.pairs(_joined(band(one, start, stop) for one in range(number, number + width)))
            for number, groups in zip(columns, table, strict=True)
        ]
        pairs, agree = np.unique(np.concatenate(packed), return_counts=True)
        found.append((pairs + (start << 32))[agree >= least])
        agreements.append(agree[agree >= least])
    pairs, agree = np.concatenate(found), np.concatenate(agreements)
    if len(pairs) > COMPARED:
        pairs = np.sort(pairs[np.argsort(-agree, kind="stable")[:COMPARED]])
    return np.stack([pairs >> 32, kept[pairs & 0xFFFFFFFF] if len(pairs) else pairs]), common


def _joined(columns: Iterator[np.ndarray]) -> np.ndarray:
    """Several bands taken as one."""
    key = next(columns)
    for column in columns:
        key = key * np.uint64(0x9E3779B97F4A7C15) ^ column
    return np.ascontiguousarray(key)


@dataclass(frozen=True)
class _Groups:
    """Members with equal values, as ``group`` gives them; ``values`` in order."""

    values: np.ndarray
    order: np.ndarray
    starts: np.ndarray

    def place(self, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(places in the column whose value is one of the groups', those groups)"""
        if not len(self.values):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        place = np.minimum(np.searchsorted(self.values, column), len(self.values) - 1)
        found = np.flatnonzero(self.values[place] == column)
        return found, place[found]

    def pairs(self, column: np.ndarray) -> np.ndarray:
        """Each place in the column with every member of the group that it met, packed."""
        found, met = self.place(column)
        sizes = np.diff(self.starts)[met]
        first = self.starts[:-1][met] - (np.cumsum(sizes) - sizes)
        return np.repeat(found, sizes) << 32 | self.order[np.repeat(first, sizes) + np.arange(sizes.sum())]


def _groups(column: np.ndarray) -> _Groups:
    order, starts = group(column)
    return _Groups(column[order[starts[:-1]]], order, starts)


class NearTo:
    """Compares texts exactly with some others, which it takes apart once."""

    def __init__(self, others: list[str]):
        self._others = others
        self._trigrams: dict[int, set[str]] = {}

    def __call__(self, same: str, other: int) -> bool:
        if other not in self._trigrams:
            self._trigrams[other] = trigrams(self._others[other])
        right = self._trigrams[other]
        if len(same) + 2 < NEAR * len(right):
            return False  # it cannot have as many
        left = trigrams(same)
        shared = len(left & right)
        return shared >= NEAR * (len(left) + len(right) - shared)
