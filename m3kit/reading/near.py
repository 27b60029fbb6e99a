"""Near-duplicates: texts that share most of their character trigrams (Jaccard similarity of at least ``NEAR``).

Likely pairs have some of the rarest longer sequences of characters of each in common (prefix filtering: Chaudhuri et
al. 2006; Bayardo et al. 2007), which are found by sorting. Each likely pair is then compared exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

NEAR = 0.8
# Characters of a sequence. Near-duplicates have at least half of these in common. So of the rarest 0.7 of each text,
# which are looked at, 0.2 of all must agree.
SPAN, SHARE, HALF = 5, 0.7, 0.5
# Sequences are told apart by so many bits, of few texts by fewer; they are counted up to so many bits.
BITS, FEW, FEWER_BITS, COUNT_BITS = 22, 500, 16, 16
# Texts compared at once with all others.
AT_ONCE = 5_000
# Sequences that more texts have belong to a pattern that many texts follow. The more texts, the fewer may have one: so
# many pairs are looked at, about forty times.
FREQUENT, WORK = 50, 5_000_000


def near_pairs(
    one: Sequence[str], other: Sequence[str] | None = None, most: int = 1 << 62
) -> Iterator[tuple[int, int, float]]:
    """(place in ``one``, place in ``other``, similarity) of near-duplicates of two lists of texts.

    Without ``other``: the pairs within ``one``, each once, the earlier text first. ``most``: the largest number of
    pairs for each text of ``one``; texts written after one pattern may all be alike. Texts are in their ``same_text``
    form.
    """
    texts = one if other is None else other
    frequent = max(FREQUENT, WORK // max(len(one), len(texts)))
    left_over = [most] * len(one)
    bits = BITS if len(one) > FEW else FEWER_BITS
    rows, sequences = _sequences(one, bits)
    counts = np.minimum(np.bincount(sequences, minlength=1 << bits), (1 << COUNT_BITS) - 1)
    owners, rare = _rarest(rows, sequences, counts, frequent)
    order = np.argsort(rare, kind="stable")
    owners, rare = owners[order], rare[order]
    sizes = np.bincount(rows, minlength=len(one))
    for start in range(0, len(texts), AT_ONCE):
        block = texts[start : start + AT_ONCE]
        rows, sequences = _sequences(block, bits)
        others, found = _rarest(rows, sequences, counts, frequent)
        order = np.argsort(found)
        others, found = others[order], found[order]
        low, high = np.searchsorted(rare, found, "left"), np.searchsorted(rare, found, "right")
        met = high - low
        which = np.repeat(low - (np.cumsum(met) - met), met) + np.arange(met.sum())
        pairs, agreeing = np.unique(owners[which] << 32 | np.repeat(others, met), return_counts=True)
        left, right = pairs >> 32, pairs & 0xFFFFFFFF
        larger = np.maximum(sizes[left], np.bincount(rows, minlength=len(block))[right])
        likely = agreeing >= np.maximum(1, (SHARE - HALF) * larger - 1)
        if other is None:
            likely &= left < right + start
        for place, match in zip(left[likely].tolist(), (right[likely] + start).tolist(), strict=True):
            if left_over[place] and (alike := similarity(one[place], texts[match])) >= NEAR:
                left_over[place] -= 1
                yield place, match, alike


def similarity(one: str, other: str) -> float:
    """The Jaccard similarity of the trigrams of two texts in their ``same_text`` form."""
    # A space on either side makes the first and the last word count like the others, and no text too short.
    left, right = ({text[at : at + 3] for at in range(max(1, len(text) - 2))} for text in (f" {one} ", f" {other} "))
    return len(left & right) / len(left | right)


def _sequences(same: Sequence[str], bits: int) -> tuple[np.ndarray, np.ndarray]:
    """(text, sequence) of all sequences of ``SPAN`` characters of each text, each once and as a number: int64."""
    framed = [f" {text} ".ljust(SPAN) for text in same]
    lengths = np.array([len(text) for text in framed], np.int64)
    characters = np.frombuffer("".join(framed).encode("utf-32-le", "surrogatepass"), np.uint32)
    hashes = characters * np.uint32(0x9E3779B1)
    for at in range(1, SPAN):  # one multiplication after the other, so that the order of the characters counts
        hashes[:-at] = (hashes[:-at] ^ characters[at:]) * np.uint32(0x85EBCA6B)
    hashes ^= hashes >> np.uint32(15)
    hashes *= np.uint32(0x27D4EB2F)
    rows = np.repeat(np.arange(len(framed)), lengths)
    # The last places of each text reach into the next.
    inside = np.arange(len(rows)) <= (np.cumsum(lengths) - SPAN)[rows]
    both = rows[inside] << bits | (hashes[inside] >> np.uint32(32 - bits)).astype(np.int64)
    both.sort()
    both = both[np.append(True, both[1:] != both[:-1])] if len(both) else both
    return both >> bits, both & ((1 << bits) - 1)


def _rarest(rows: np.ndarray, sequences: np.ndarray, counts: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """(text, sequence) of only the rarest sequences of each text, without those that no text has, or too many have."""
    count = counts[sequences]
    packed = (rows << COUNT_BITS | count) << BITS | sequences
    packed.sort()
    sizes = np.bincount(rows)
    place = np.arange(len(packed)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    count = packed >> BITS & ((1 << COUNT_BITS) - 1)
    packed = packed[(place < (SHARE * sizes + 1)[rows]) & (count > 0) & (count <= most)]
    return packed >> (BITS + COUNT_BITS), packed & ((1 << BITS) - 1)
