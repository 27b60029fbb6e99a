"""Which rows have the same key."""

from __future__ import annotations

import numpy as np

# Keys looked up together: what is needed for it stays small beside the column.
BLOCK = 1_000_000


def group(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(order, starts) of a uint64 column: the members of group g are order[starts[g]:starts[g + 1]], earliest first.

    Groups come in the order of their keys. Fewer than 2^32 values.
    """
    if not len(key):
        return np.empty(0, np.int64), np.zeros(1, np.int64)
    # Not a stable sort: it takes three times as long. The packed numbers put the members of a group in order again.
    order = np.argsort(key)
    ordered = key[order]
    new = np.empty(len(key), bool)
    new[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    del ordered
    packed = np.cumsum(new).astype(np.uint64)
    packed <<= np.uint64(32)
    packed |= order.view(np.uint64)
    packed.sort()
    packed &= np.uint64(0xFFFFFFFF)
    return packed.view(np.int64), np.append(np.flatnonzero(new), len(key))


def repeated(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(order, starts) as ``group`` gives them, of only those groups that have two members or more, sorted by their
    earliest member. Where few keys are repeated it takes a fraction of the time and of the memory."""
    ordered = np.sort(key)
    several = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    del ordered
    places = np.flatnonzero(among(key, several))
    order, starts = group(key[places])
    by_earliest = np.argsort(order[starts[:-1]])
    sizes = np.diff(starts)[by_earliest]
    new_starts = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=new_starts[1:])
    moved = np.repeat(starts[:-1][by_earliest] - new_starts[:-1], sizes) + np.arange(new_starts[-1])
    return places[order[moved]], new_starts


def earliest(key: np.ndarray) -> np.ndarray:
    """For each value the place of the first that is equal to it."""
    leaders = np.arange(len(key))
    order, starts = repeated(key)
    leaders[order] = np.repeat(order[starts[:-1]], np.diff(starts))
    return leaders


def among(key: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Which of a column's values are among some others, which are sorted."""
    found = np.zeros(len(key), bool)
    if len(values):
        for start in range(0, len(key), BLOCK):
            block = key[start : start + BLOCK]
            places = np.minimum(np.searchsorted(values, block), len(values) - 1)
            found[start : start + BLOCK] = values[places] == block
    return found
