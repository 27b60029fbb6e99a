"""The data sets that batches are made of: FlagEmbedding's, each parted where its rows do not mix."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePath

from m3kit.batches.arguments import DataArguments
from m3kit.batches.order import RowSet
from m3kit.batches.rows import File, load_file
from m3kit.data.convert import CLASSIFIED, GRADED
from m3kit.errors import KitError

logger = logging.getLogger(__name__)

# With fewer labels a group holds most of them.
MANY_LABELS = 16
# Graded pairs are compared within a batch of one process: so many are 120 comparisons, and cost little.
FEWEST_GRADED = 16


def load_sets(args: DataArguments, batch_size: int, seed: int, processes: int, teacher_as_is: bool) -> list[RowSet]:
    """In an order that does not change with that of a folder's files, nor when a folder is moved.

    Raises ``KitError`` where there are no rows, or too few for the processes.
    """
    sources = list(_load(args, seed, teacher_as_is))
    if not sources:
        where = ", ".join(args.train_data)
        raise KitError(f"no row to train on in {where}; give the folders that `m3kit prepare` printed")
    found = {kind for files, _ in sources for file in files for kind in file.kinds}
    if args.knowledge_distillation and not any(has_scores for kind, has_scores in found if kind != GRADED):
        raise KitError(
            "knowledge_distillation is on, and no row has teacher scores; give the rows pos_scores and neg_scores, a "
            "reranker's raw scores, or --knowledge_distillation False"
        )
    if not args.same_dataset_within_batch:
        logger.warning("same_dataset_within_batch is off: `no_in_batch_neg` in folder names is ignored (D4)")
        sources = [([file for files, _ in sources for file in files], True)]
    sets = [made for files, shared in sources for made in _part(files, shared, args, batch_size, processes)]
    if not sets:
        raise KitError(f"no kind of rows is enough for {processes} processes; add rows, or train with one process")
    sets.sort(key=lambda made: _by_name(made.path or ""))
    for number, made in enumerate(sets):
        made.seed = seed, number
        _fit(made)
        if made.type == CLASSIFIED and not made.shares_negatives and not made.has_scores:
            _settle_labels(made, args.label_negatives, args.train_group_size)
    return sets


def _load(args: DataArguments, seed: int, teacher_as_is: bool) -> Iterator[tuple[list[File], bool]]:
    """FlagEmbedding's data sets: the files of each, and whether other rows' passages are negatives.

    All small files of a folder are one, and each other file. Where all are mixed, sizes and suffixes do not count (D4).
    """
    parted = args.same_dataset_within_batch
    for entry in args.train_data:
        is_folder = os.path.isdir(entry)
        paths = [os.path.join(entry, name) for name in sorted(os.listdir(entry))] if is_folder else [entry]
        found = [load_file(p, args, seed, teacher_as_is) for p in paths if p.endswith((".json", ".jsonl"))]
        files = [file for file in found if file.kinds]
        small = [file for file in files if parted and file.rows < args.small_threshold]
        shared = not parted or not (entry if is_folder else os.path.splitext(entry)[0]).endswith("no_in_batch_neg")
        yield from (([file], shared) for file in files if not parted or file.rows >= args.small_threshold)
        if small and is_folder and sum(file.rows for file in small) >= args.drop_threshold:
            yield small, shared


def _part(files: list[File], shared: bool, args: DataArguments, batch_size: int, processes: int) -> Iterator[RowSet]:
    """A set of each type, with and without teacher scores: a batch is of one kind (D7)."""
    files = sorted(files, key=lambda file: _by_name(file.path))
    folders = {os.path.dirname(file.path) for file in files}
    path = files[0].path if len(files) == 1 else os.path.join(*folders, "*") if len(folders) == 1 else None
    if args.same_dataset_within_batch:
        batch_size = min(file.batch_size or batch_size for file in files)
    kinds = sorted({kind for file in files for kind in file.kinds})
    for kind in kinds:
        rows = [row for file in files for row in file.kinds.get(kind, [])]
        made = RowSet(path, [file.path for file in files], rows, *kind, batch_size, processes, shared)
        if len(kinds) == 1 or len(rows) >= processes:
            yield made
        else:
            # To refuse the whole file for them would be worse.
            logger.warning(
                f"{made.name}: {len(rows)} row(s) are left out: no others have their type and teacher scores, or lack "
                f"these, and {processes} processes cannot share them"
            )


def _by_name(path: str) -> tuple[tuple[str, ...], str]:
    return PurePath(path).parts[-2:], path


def _fit(made: RowSet) -> None:
    if made.type == GRADED:
        # Pairs are no candidates for one another, whatever their folder is called, and too few are no batch.
        made.shares_negatives = False
        if made.batch_size < FEWEST_GRADED:
            made.batch_size = FEWEST_GRADED
            logger.warning(f"{made.name}: graded pairs are compared within a batch: batches of {FEWEST_GRADED}")
    rows, largest = len(made.rows), len(made.rows) // made.processes
    if largest == 0:
        raise KitError(
            f"{made.name}: a data set of {rows} row(s) cannot be shared by {made.processes} processes; add rows, leave "
            "it out, or train with one process"
        )
    if made.batch_size > largest:
        logger.warning(
            f"{made.name}: a data set of {rows} rows is too small for batches of {made.batch_size} on "
            f"{made.processes} process(es): batches of {largest} are used"
        )
        made.batch_size = largest


def _settle_labels(made: RowSet, wanted: str, group: int) -> None:
    """Where classified texts have their negatives from: the labels of the batch's other rows, or some that they bring.

    In the batch each row brings its label alone, and no label comes twice: as many texts are encoded as there are rows,
    and each has all other labels of the batch as negatives.
    """
    labels = Counter(row.texts[1] for row in made.rows)
    most, is_auto, size = max(labels.values()), wanted == "auto", made.batch_size
    reasons = [
        (wanted == "group", "as label_negatives says"),
        (is_auto and size < group, f"batches of {size} have fewer labels than groups of {group}"),
        # Else texts of one label would be each other's negatives.
        (
            any(row.positives > 1 or row.texts[0] in labels for row in made.rows),
            "the positives are not one label's text each",
        ),
        (is_auto and len(labels) < MANY_LABELS, f"there are {len(labels)} labels, fewer than {MANY_LABELS}"),
        (
            is_auto and most > made.batches,
            f"a label has {most} rows, and {made.batches} batches have room for it once each",
        ),
    ]
    if against := next((why for holds, why in reasons if holds), None):
        logger.info(f"{made.name}: negatives are of each row's own group: {against}")
        return
    made.shares_negatives, made.rows = True, [row._replace(group=1) for row in made.rows]
    why = f"no fewer than in groups of {group}, at less cost" if is_auto else "as label_negatives says"
    logger.info(f"{made.name}: negatives are the labels of the other rows of a batch: {size - 1} of them, {why}")
