"""Which rows of which data set are trained at a step: told by its number alone, so that nothing need be remembered."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Rows that exchange their places so that no batch has a text twice, read and laid out together: enough batches that
# there is another for a row, and not so many that it takes seconds to find that there is none.
BLOCK_ROWS, BLOCK_BATCHES, MOST_BLOCK_BATCHES = 4096, 16, 256
# Where rows are long, a block is smaller: each worker of each process holds one.
BLOCK_BYTES, FEWEST_BLOCK_BATCHES = 64_000_000, 4
# What chance is needed for: each has a sequence of its own.
ORDER, PERMUTATION, DRAWING = range(3)


class EpochSampler:
    """A batch sampler for torch's DataLoader: the numbers of an epoch's items, one by one."""

    def __init__(self, batches: int) -> None:
        self.batches, self.epoch = batches, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        first = self.epoch * self.batches
        return ([number] for number in range(first, first + self.batches))


def share_out(natural: Sequence[int], rows: Sequence[int], temperature: float) -> np.ndarray:
    """Batches an epoch of each data set: as many in all as ``natural``, those that have every row once.

    The rows that are trained of a data set are in proportion to its rows to the power of 1/temperature.
    """
    batches = np.asarray(natural)
    weights = np.log(batches) + (1 / temperature - 1) * np.log(np.asarray(rows))
    weights = np.exp(weights - weights.max())
    share = batches.sum() * weights / weights.sum()
    counts = np.maximum(np.floor(share), 1).astype(np.int64)
    while (missing := batches.sum() - counts.sum()) != 0:
        # One batch at a time, to or from whichever is furthest from its share; each keeps one.
        lack = share - counts
        if missing > 0:
            counts[np.argmax(lack)] += 1
        else:
            counts[np.argmin(np.where(counts > 1, lack, np.inf))] -= 1
    return counts


def interleave(counts: np.ndarray, epoch: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """For each step of an epoch: the number of the data set, and which of all batches of it, since the first epoch.

    Only which data set comes is left to chance: the batches of one come in order, so a block is worked out but once.
    """
    order = np.repeat(np.arange(len(counts)), counts)
    random.shuffle(order)
    running = np.empty(len(order), np.int64)
    running[np.argsort(order, kind="stable")] = np.concatenate(
        [np.arange(epoch * count, (epoch + 1) * count) for count in counts]
    )
    return order, running


def generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


class Recent:
    """The last few results, by what they were asked with."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self.kept:
            made = make()
            while len(self.kept) >= self.size:
                del self.kept[next(iter(self.kept))]
            self.kept[key] = made
        return self.kept[key]


@dataclass
class RowSet:
    """Rows that are trained in batches of their own, again and again, each pass in another order."""

    path: str | None  # of its file; of a folder and "/*" for several small ones in it; None for all data together
    files: list[str]
    rows: np.ndarray  # their numbers in the whole
    batch_size: int  # of one process
    processes: int
    in_batch_negatives: bool
    bytes_per_row: float
    type: str | None = None
    teacher_scores: bool = False
    graded: bool = False  # pairs with a score each, which are compared within a batch
    positives_alone: bool = False  # groups of one passage: the positives of the other rows are the negatives, if any
    seed: tuple[int, ...] = ()
    blocks: Recent = field(init=False, default_factory=lambda: Recent(2))
    _permutations: Recent = field(init=False, default_factory=lambda: Recent(2))

    @property
    def global_size(self) -> int:
        return self.batch_size * self.processes

    @property
    def batches(self) -> int:
        """Of one pass. The rows that are over are others each time."""
        return len(self.rows) // self.global_size

    def locate(self, running: int) -> tuple[int, int, int]:
        """(pass, block, place in the block) of the batch with this number since the first epoch."""
        done, number = divmod(running, self.batches)
        blocks = self._blocks()
        block = ((number + 1) * blocks - 1) // self.batches
        return done, block, number - block * self.batches // blocks

    def block_rows(self, done: int, block: int) -> tuple[np.ndarray, int]:
        """The rows of a block, in the order of chance, and the batches to make of them: the last has what is over."""
        blocks = self._blocks()
        first, last = (number * self.batches // blocks for number in (block, block + 1))
        order = self._permutations.get(done, lambda: self.random(PERMUTATION, done).permutation(self.rows))
        stop = None if block + 1 == blocks else last * self.global_size
        return order[first * self.global_size : stop], last - first

    def random(self, *key: int) -> np.random.Generator:
        return generator(*self.seed, *key)

    def _blocks(self) -> int:
        wanted = min(max(BLOCK_ROWS / self.global_size, BLOCK_BATCHES), MOST_BLOCK_BATCHES)
        most = max(BLOCK_BYTES / self.bytes_per_row / self.global_size, FEWEST_BLOCK_BATCHES)
        return max(1, round(self.batches / min(wanted, most)))
