"""Whole batches of one data set each, as FlagEmbedding makes them, each a function of its number alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from xxhash import xxh3_64

from m3kit.batches.arguments import DataArguments
from m3kit.batches.layout import Drawn
from m3kit.batches.order import ORDER, SHUFFLING, RowSet, generator, share_out
from m3kit.batches.rows import SCORES, as_encoded
from m3kit.batches.sets import load_sets
from m3kit.data.convert import GRADED

Item = tuple[list[str], list[str], list[float] | None, bool]


class SameDatasetTrainDataset(Dataset):
    """Item epoch × len + step is this process's share of the batch of that step: (queries, passages, scores, flag).
    With ``epoch`` set, as for a loader that counts its steps from 0, items are counted from the first of that epoch.

    For each query come its passages, as many in all processes, the positive first; and their scores, if there is a
    teacher. The flag says that the passages of other rows are no negatives. In a batch, over all processes, no query or
    passage comes twice, and no row's positive beside another row. Rows of type ``graded_sts`` are pairs: of one passage
    a query, with their scores whatever ``knowledge_distillation`` says; a text may come twice.

    It does what FlagEmbedding's class of this name does, without its mistakes:

    - D1, D2: rows without ``prompt``, whose queries would begin with "None", and empty ``pos`` or ``neg`` are refused.
    - D3: a group is never larger than its rows have different passages; it is of one size in all processes.
    - D5: a file with fewer rows than batch × processes is trained in smaller batches, and that is said.
    - D6: the batch is as large as asked for, whatever the ``type``.
    - D7: rows with teacher scores and rows without, or of different types, never share a batch.
    - S2: an item depends on its number, not on how many were asked for before; nor on the order of a folder's files.
    """

    def __init__(
        self,
        args: DataArguments,
        default_batch_size: int,
        seed: int,
        process_index: int = 0,
        num_processes: int = 1,
        teacher_as_is: bool = True,
    ) -> None:
        """``teacher_as_is``: no setting changes the scale of teacher scores, so that of the rows is looked at."""
        self.args, self.seed, self.process_index, self.num_processes = args, seed, process_index, num_processes
        self.sets = load_sets(args, default_batch_size, seed, num_processes, teacher_as_is)
        sizes = [len(rows.rows) for rows in self.sets]
        self.counts = share_out([rows.batches for rows in self.sets], sizes, args.mixing_temperature)
        self.epoch = 0
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, int))  # the epoch last asked for: the set of each step

    def describe(self) -> list[dict[str, Any]]:
        """What is trained on, an entry a data set; the digest tells whether its files were changed."""
        return [
            {
                "path": rows.path,
                "type": rows.type or None,
                "rows": len(rows.rows),
                "batch_size_per_device": rows.batch_size,
                "batches_per_epoch": count,
                "in_batch_negatives": rows.shares_negatives,
                "teacher_scores": rows.has_scores,
                "digest": _digest(rows.files),
            }
            for rows, count in zip(self.sets, self.counts.tolist(), strict=True)
        ]

    def heaviest(self) -> list[Item]:
        """An item of each data set that has at least as many characters as any item of it."""
        return [self._item(rows, rows.heaviest()) for rows in self.sets]

    def characters(self) -> float:
        """Of the texts of a batch of one process: the mean over the batches of an epoch, by about 1,000 rows a set."""
        means = []
        for rows in self.sets:
            some = rows.rows[:: max(1, len(rows.rows) // 1000)]
            means.append(rows.batch_size * np.mean([r.lengths[0] + r.group * np.mean(r.lengths[1:]) for r in some]))
        return float(np.average(means, weights=self.counts))

    def __len__(self) -> int:
        return int(self.counts.sum())

    def __iter__(self) -> Iterator[Item]:
        """Those of an epoch: there is an item for any number, so Python's own way would never end."""
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Item:
        if number < 0:
            raise IndexError(f"batches are counted from 0, not {number}")
        number += self.epoch * len(self)
        epoch, step = divmod(number, len(self))
        if self._order[0] != epoch:
            order = np.repeat(np.arange(len(self.sets)), self.counts)
            self._order = epoch, generator(self.seed, ORDER, epoch).permutation(order)
        # Which set comes is left to chance; the batches of one come in order, so that each row comes as often.
        place = self._order[1][step]
        before = np.count_nonzero(self._order[1][:step] == place)
        batch = self.sets[place].batch(int(epoch * self.counts[place] + before))
        share = len(batch) // self.num_processes
        mine = batch[self.process_index * share : (self.process_index + 1) * share]
        return self._item(self.sets[place], mine, generator(self.seed, SHUFFLING, number, self.process_index))

    def _item(self, rows: RowSet, batch: Sequence[Drawn], random: np.random.Generator | None = None) -> Item:
        """``random``: for FlagEmbedding's ``shuffle_ratio``, without which no text is shuffled."""
        queries, passages, scores = [], [], []
        for drawn, positive, negatives in batch:
            row = drawn.read()
            text = row["pos"][positive]
            if random and len(text) > 100 and random.random() < self.args.shuffle_ratio:
                text = _shuffle(text, random)
            texts = [text, *(row["neg"][number] for number in negatives)]
            query, texts = as_encoded(self.args, rows.type, row, texts)
            queries.append(query)
            passages += texts
            if rows.has_scores:
                pos, neg = (row[name] for name in SCORES)
                scores += [pos[positive], *(neg[number] for number in negatives)]
        # Of one passage alone there is nothing that a teacher could say.
        taught = rows.has_scores and (rows.type == GRADED or len(passages) > len(queries))
        return queries, passages, scores if taught else None, not rows.shares_negatives


def _shuffle(text: str, random: np.random.Generator) -> str:
    size = len(text) // 3 + 1
    parts = [text[start : start + size] for start in range(0, len(text), size)]
    return " ".join(parts[number] for number in random.permutation(len(parts)))


def _digest(paths: Sequence[str]) -> str:
    found = xxh3_64()
    for path in paths:
        with open(path, "rb") as file:
            hashlib.file_digest(file, lambda: found)
    return found.hexdigest()
