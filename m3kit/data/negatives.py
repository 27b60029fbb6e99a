"""Draw from a numbered set in an order that depends on a seed and a key alone."""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd

_MASK = (1 << 64) - 1


def mix(seed: int, key: int) -> int:
    """A 64-bit number that depends on both (the finalizer of SplitMix64, Steele et al. 2014)."""
    value = (key ^ (seed * 0x9E3779B97F4A7C15)) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def walk(seed: int, key: int, size: int) -> Iterator[int]:
    """All of 0 … size - 1, each once, from a random start on with a random stride.

    Whoever draws takes what is allowed until there is enough: nothing drawn before, no process and no PYTHONHASHSEED
    takes part, no memory is needed, and what is there is found even where nearly everything is forbidden.
    """
    if size == 0:
        return
    start = mix(seed, key) % size
    stride = 1 + mix(seed + 1, key) % size
    while gcd(stride, size) != 1:
        stride += 1
    for step in range(size):
        yield (start + step * stride) % size
