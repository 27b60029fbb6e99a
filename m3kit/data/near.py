"""Near-duplicates: texts that share most of their character trigrams.

Two texts are near-duplicates where the Jaccard similarity of their trigram sets is ``NEAR`` or more. Candidates come
from MinHash signatures in bands (Broder 1997; Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", ch. 3), and
every candidate is then compared exactly, so none is named wrongly. With eight bands of two, two texts at the threshold
are missed once in four thousand times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

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


def _minima(same: list[str], values: np.ndarray) -> None:
    """Fill in the least hash of each text's trigrams under each factor: the rows of ``values``."""
    # A space on either side makes the first and the last word count like the others, and no text too short.
    framed = [f" {text} " for text in same]
    lengths = np.array([len(text) for text in framed])
    ends = np.cumsum(lengths)
    starts = ends - lengths
    characters = np.frombuffer("".join(framed).encode("utf-32-le"), np.uint32)
    grams = characters * np.uint32(0x9E3779B1)
    # One multiplication after the other, so that the order of the characters counts.
    grams[:-2] = ((grams[:-2] ^ characters[1:-1]) * np.uint32(0x85EBCA6B) ^ characters[2:]) * np.uint32(0xC2B2AE35)
    grams ^= grams >> np.uint32(15)
    grams *= np.uint32(0x27D4EB2F)
    grams ^= grams >> np.uint32(13)
    # The last two places of each text would reach into the next; they repeat the trigram before them.
    last = np.maximum(ends - 3, starts)
    grams[ends - 1] = grams[last]
    grams[ends - 2] = grams[last]
    hashed = np.empty_like(grams)
    for column, factor in enumerate(_FACTORS[: values.shape[1]]):
        np.multiply(grams, np.uint32(factor), out=hashed)
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
        key = band(first)
        for column in range(first + 1, first + width):
            key = key * np.uint64(0x9E3779B97F4A7C15) ^ band(column)
        order, starts = repeated(key)
        later = np.delete(order, starts[:-1])
        packed.append(np.repeat(order[starts[:-1]], np.diff(starts) - 1) << 32 | later)
    pairs = np.unique(np.concatenate(packed))
    return np.stack([pairs >> 32, pairs & 0xFFFFFFFF])


# Texts looked at together, and likely pairs that are worth comparing exactly.
BLOCK = 500_000
COMPARED = 300_000
# With so few pairs in all one band that agrees is enough to look; with more two must, which at the threshold misses
# one pair in two hundred instead of one in four thousand.
FEW = 50_000_000


def matches(band: Callable[[int, int, int], np.ndarray], texts: int, others: np.ndarray) -> np.ndarray:
    """Likely pairs (text, other) of a number of texts with others, each once, int64 of shape (2, pairs).

    ``band`` gives one band of the texts from one number to another; ``others`` are bands as ``bands`` gives them. There
    are at most COMPARED pairs, those in which most bands agree.
    """
    groups = []
    for number in range(BANDS):
        order, starts = group(np.ascontiguousarray(others[:, number]))
        groups.append((others[order[starts[:-1]], number], order, starts))
    least = 1 if texts * len(others) <= FEW else 2
    found, agreements = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, texts if len(others) else 0, BLOCK):
        stop = min(texts, start + BLOCK)
        packed = [_equal(band(number, start, stop), *groups[number]) for number in range(BANDS)]
        pairs, agree = np.unique(np.concatenate(packed), return_counts=True)
        found.append((pairs + (start << 32))[agree >= least])
        agreements.append(agree[agree >= least])
    pairs, agree = np.concatenate(found), np.concatenate(agreements)
    if len(pairs) > COMPARED:
        pairs = np.sort(pairs[np.argsort(-agree, kind="stable")[:COMPARED]])
    return np.stack([pairs >> 32, pairs & 0xFFFFFFFF])


def _equal(column: np.ndarray, values: np.ndarray, order: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Pairs of a place in the column and a member of the group of the same value, packed; groups as ``group`` gives
    them, ``values`` in order."""
    place = np.searchsorted(values, column)
    place[place == len(values)] = 0
    texts = np.flatnonzero(values[place] == column)
    sizes = np.diff(starts)[place[texts]]
    # each text with every member of the group that it met
    first = starts[:-1][place[texts]] - (np.cumsum(sizes) - sizes)
    return np.repeat(texts, sizes) << 32 | order[np.repeat(first, sizes) + np.arange(sizes.sum())]


class NearTo:
    """Compares texts exactly with some others, which it takes apart once."""

    def __init__(self, others: list[str]):
        self._others, self._trigrams = others, {}

    def __call__(self, same: str, other: int) -> bool:
        if other not in self._trigrams:
            self._trigrams[other] = trigrams(self._others[other])
        right = self._trigrams[other]
        if len(same) + 2 < NEAR * len(right):
            return False  # it cannot have as many
        left = trigrams(same)
        shared = len(left & right)
        return shared >= NEAR * (len(left) + len(right) - shared)
