"""Draw negatives from the passages of the same set, without false ones and without repeats."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Collection, Iterable


def same_text(text: str) -> str:
    """The form in which two passages count as the same: NFKC, case folded, white space folded."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


class NegativePool:
    """The passages of one set, each once, to draw negatives from.

    The draw for a row depends only on ``seed`` and the row's ``key``: not on what was drawn before, not on the
    process, not on PYTHONHASHSEED.
    """

    def __init__(self, passages: Iterable[str], seed: int):
        self._passages = list({same_text(passage): passage for passage in passages}.values())
        self._keys = [same_text(passage) for passage in self._passages]
        self._seed = seed

    def draw(self, key: str, count: int, forbidden: Collection[str]) -> list[str]:
        """Up to ``count`` different passages, none of which is the same text as one of ``forbidden``.

        Fewer come back only where the pool holds no more.
        """
        if count <= 0:
            return []
        taken = {same_text(text) for text in forbidden}
        generator = random.Random(f"{self._seed}/{key}")
        size = len(self._passages)
        # A sample a little larger than needed nearly always suffices; else the whole pool is walked in random order.
        for sample_size in (min(size, count + len(taken)), size):
            drawn = [i for i in generator.sample(range(size), sample_size) if self._keys[i] not in taken]
            if len(drawn) >= count:
                break
        return [self._passages[i] for i in drawn[:count]]
