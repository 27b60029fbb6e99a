"""The data sets that batches are made of: files as FlagEmbedding groups them, each parted where its rows do not mix."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

import datasets
import numpy as np

from m3kit.data.convert import GRADED
from m3kit.errors import KitError
from m3kit.training.batches import RowSet
from m3kit.training.columns import has_scores, types_of

# Graded pairs are compared within a batch of one process: so many are 120 comparisons, and cost little.
FEWEST_GRADED = 16


@dataclass
class File:
    """A file that was loaded. ``start``: the number of its first row in the whole; None where it is left out."""

    path: str
    rows: int
    scored: int = 0
    start: int | None = None


def group_files(
    train_data: Sequence[str], files: Sequence[File], small_threshold: int, drop_threshold: int
) -> list[list[File]]:
    """The files of each of FlagEmbedding's data sets, from the order in which it loaded them; places them in the whole.

    It makes one set of all small files of a folder, and of no others.
    """
    groups: list[list[File]] = []
    coming = list(files)
    for entry in train_data:
        here: list[File] = []
        while coming and entry in (coming[0].path, os.path.dirname(coming[0].path)) and coming[0] not in here:
            here.append(coming.pop(0))
        small = [file for file in here if file.rows < small_threshold]
        groups += [[file] for file in here if file.rows >= small_threshold]
        if small and os.path.isdir(entry) and sum(file.rows for file in small) >= drop_threshold:
            groups.append(small)
    start = 0
    for file in (file for group in groups for file in group):
        file.start = start
        start += file.rows
    return groups


def make_set(files: Sequence[File], batch_size: int, processes: int, in_batch_negatives: bool) -> RowSet:
    """In the order of their names, whatever order they were loaded in."""
    files = sorted(files, key=lambda file: by_name(file.path))
    folders = {os.path.dirname(file.path) for file in files}
    path = files[0].path if len(files) == 1 else os.path.join(*folders, "*") if len(folders) == 1 else None
    rows = [np.arange(file.start, file.start + file.rows, dtype=np.int32) for file in files if file.start is not None]
    return RowSet(
        path=path,
        files=[file.path for file in files],
        rows=np.concatenate(rows),
        batch_size=batch_size,
        processes=processes,
        in_batch_negatives=in_batch_negatives,
        bytes_per_row=sum(os.path.getsize(file.path) for file in files) / sum(file.rows for file in files),
    )


def part_sets(
    sets: Sequence[RowSet], dataset: datasets.Dataset, by_type: bool, by_scores: bool, warn: Callable
) -> list[RowSet]:
    """Each set in as many as it has types of rows, with and without teacher scores: a batch is of one kind (D7)."""
    types, codes = types_of(dataset) if by_type else ([None], np.zeros(len(dataset), np.int16))
    codes = 2 * codes + (has_scores(dataset) if by_scores else 0)
    parted = []
    for whole in sorted(sets, key=lambda whole: by_name(whole.path or "")):
        kinds = codes[whole.rows]
        found = np.unique(kinds).tolist()
        for kind in found:
            rows = whole.rows[kinds == kind] if len(found) > 1 else whole.rows
            if len(found) > 1 and len(rows) < whole.processes:
                # To refuse the whole file for them would be worse.
                warn(
                    "%s: %d row(s) are left out: no others have their type and teacher scores, or lack these, and %d "
                    "processes cannot share them",
                    name(whole),
                    len(rows),
                    whole.processes,
                )
            else:
                parted.append(replace(whole, rows=rows, type=types[kind // 2], teacher_scores=bool(kind % 2)))
    return [_as_graded(rows, warn) if rows.type == GRADED else rows for rows in parted]


def _as_graded(rows: RowSet, warn: Callable) -> RowSet:
    """Graded pairs are no candidates for one another, whatever their folder is called, and too few are no batch."""
    size = max(rows.batch_size, FEWEST_GRADED)
    if size > rows.batch_size:
        warn("%s: graded pairs are compared within a batch: batches of %d", name(rows), size)
    return replace(
        rows, batch_size=size, in_batch_negatives=False, teacher_scores=False, graded=True, positives_alone=True
    )


def fit_batch_size(rows: RowSet, warn: Callable) -> None:
    """D5: a batch is no larger than the set, and a set that gives none is refused."""
    largest = len(rows.rows) // rows.processes
    if largest == 0:
        raise KitError(
            f"{name(rows)}: a data set of {len(rows.rows)} row(s) cannot be shared by {rows.processes} processes; "
            "add rows, leave it out, or train with one process"
        )
    if rows.batch_size > largest:
        warn(
            "%s: a data set of %d rows is too small for batches of %d on %d process(es): batches of %d are used",
            name(rows),
            len(rows.rows),
            rows.batch_size,
            rows.processes,
            largest,
        )
        rows.batch_size = largest


def by_name(path: str) -> tuple[str, str]:
    """To sort by: the last two parts first, so that a folder that was moved keeps its order."""
    return "/".join(PurePath(path).parts[-2:]), path


def name(rows: RowSet) -> str:
    return rows.path or "all training data"
