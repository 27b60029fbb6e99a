"""How often each data set is trained, and in which order its rows come: all told by the number of a step."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nlargest

import numpy as np
from torch.utils.data import get_worker_info

from m3kit.batches.layout import Candidate, Drawn, lay_out
from m3kit.batches.rows import Row

logger = logging.getLogger(__name__)

# Batches that are laid out together: enough that there is another for a row whose texts clash, and no more than take a
# second or two where most rows do.
BLOCK = 64
# Above this share of rows that find no place in a batch, that is told.
FEW_LEFT_OVER = 0.01
# What chance is needed for: each has a sequence of its own.
ORDER, PERMUTATION, DRAWING, SHUFFLING = range(4)


def generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


@dataclass
class RowSet:
    """Rows that are trained in batches of their own, again and again, each pass in another order."""

    path: str | None  # of its file; of a folder and "/*" for several in it; None for files of several folders
    files: list[str]
    rows: list[Row]
    type: str
    has_scores: bool
    batch_size: int  # of one process
    processes: int
    shares_negatives: bool
    seed: tuple[int, ...] = ()
    told: set[str] = field(init=False, default_factory=set)  # of what is told once
    # What was asked for last: a pass's order, and by (pass, block) its batches.
    _order: tuple[int, np.ndarray] = field(init=False, default=(-1, np.empty(0, int)))
    _block: tuple[tuple[int, int], list[list[Drawn]]] = field(init=False, default=((-1, -1), []))

    @property
    def name(self) -> str:
        return self.path or "all training data"

    @property
    def global_size(self) -> int:
        return self.batch_size * self.processes

    @property
    def batches(self) -> int:
        """Of one pass. The rows that are over are others each time."""
        return len(self.rows) // self.global_size

    def batch(self, running: int) -> list[Drawn]:
        """The batch with this number since the first epoch, over all processes."""
        done, number = divmod(running, self.batches)
        block = min(number // BLOCK, max(self.batches // BLOCK, 1) - 1)
        if self._block[0] != (done, block):
            self._block = (done, block), self._lay_out(done, block)
        return self._block[1][number - block * BLOCK]

    def _lay_out(self, done: int, block: int) -> list[list[Drawn]]:
        if self._order[0] != done:
            self._order = done, generator(*self.seed, PERMUTATION, done).permutation(len(self.rows))
        # The last block is longer, and has the rows that are over.
        is_last = (block + 2) * BLOCK > self.batches
        count = self.batches - block * BLOCK if is_last else BLOCK
        first = block * BLOCK * self.global_size
        numbers = self._order[1][first : None if is_last else first + count * self.global_size]
        random, candidates = generator(*self.seed, DRAWING, done, block), []
        for row in (self.rows[number] for number in numbers):
            query, *passages = row.texts
            pos, neg = passages[: row.positives], passages[row.positives :]
            candidates.append(Candidate(row, query, pos, neg, row.group, random))
        made = lay_out(candidates, count, self.global_size, self.processes, self.shares_negatives)
        if made.clashes:
            self._tell(
                "clashes",
                "some batches hold a passage twice, or one that answers another query: too many rows share it for "
                f"{self.processes} processes to have others",
            )
        elif made.left_over > FEW_LEFT_OVER * len(numbers):
            self._tell(
                "left over",
                f"about {made.left_over / len(numbers):.0%} of the rows have no place in an epoch: they share passages "
                "with too many others, and no batch may hold one twice; smaller batches have room for more, and a "
                "folder whose name ends in no_in_batch_neg has no such limit",
            )
        return made.batches

    def _tell(self, what: str, told: str) -> None:
        """Once, and by the first only of the processes that make batches ahead."""
        worker = get_worker_info()
        if what not in self.told and not (worker and worker.id):
            logger.warning(f"{self.name}: {told}")
        self.told.add(what)

    def heaviest(self) -> list[Drawn]:
        """The longest texts: at least as many characters as any batch of one process has."""
        found = []
        for size in {row.group for row in self.rows}:
            # A batch has groups of the size that all its rows can bring.
            able = [row for row in self.rows if row.group >= size]
            longest = nlargest(self.batch_size, able, key=lambda row: row.weight(size))
            found.append((sum(row.weight(size) for row in longest), size, longest))
        _, size, rows = max(found, key=lambda one: one[0])
        drawn = []
        for row in rows:
            texts = row.read()
            pos, neg = (sorted(range(len(texts[side])), key=lambda n: -len(texts[side][n])) for side in ("pos", "neg"))
            drawn.append(Drawn(row, pos[0], neg[: size - 1]))
        return drawn


def share_out(natural: Sequence[int], rows: Sequence[int], temperature: float) -> np.ndarray:
    """Batches an epoch of each data set: as many in all as ``natural``, those that have every row once.

    The rows that are trained of a data set are in proportion to its rows to the power of 1/temperature.
    """
    batches = np.asarray(natural)
    weights = np.log(batches) + (1 / temperature - 1) * np.log(np.asarray(rows))
    weights = np.exp(weights - weights.max())
    share = batches.sum() * weights / weights.sum()
    # Each has one, and then what is whole of its share; those that are furthest from theirs have what is over.
    counts = 1 + np.floor(share * (1 - len(share) / batches.sum())).astype(np.int64)
    while counts.sum() < batches.sum():
        counts[np.argmax(share - counts)] += 1
    return counts
