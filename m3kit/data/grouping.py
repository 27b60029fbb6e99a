"""Which rows have the same key."""

from __future__ import annotations

import numpy as np


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


def earliest(order: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """For each value the earliest member of its group, from what ``group`` gives."""
    leaders = np.empty(len(order), np.int64)
    leaders[order] = np.repeat(order[starts[:-1]], np.diff(starts))
    return leaders


def larger_groups(order: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(order, starts) of only those groups that have two members or more, sorted by their earliest member."""
    sizes = np.diff(starts)
    chosen = np.flatnonzero(sizes > 1)
    chosen = chosen[np.argsort(order[starts[chosen]])]
    sizes = sizes[chosen]
    new_starts = np.zeros(len(chosen) + 1, np.int64)
    np.cumsum(sizes, out=new_starts[1:])
    places = np.repeat(starts[chosen] - new_starts[:-1], sizes) + np.arange(new_starts[-1])
    return order[places], new_starts
