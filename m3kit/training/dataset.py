"""FlagEmbedding's batches of one data set each, as a function of their number alone, and without its mistakes."""

from __future__ import annotations

import contextlib
import copy
import glob
import logging
import random
from collections.abc import Iterator, Sequence
from typing import Any

import datasets
from FlagEmbedding.abc.finetune.embedder.AbsDataset import AbsEmbedderSameDatasetTrainDataset
from torch.utils.data import get_worker_info
from xxhash import xxh3_64_hexdigest

from m3kit.errors import KitError
from m3kit.training.arguments import DataArguments
from m3kit.training.batches import DRAWING, ORDER, Recent, RowSet, generator, interleave, share_out
from m3kit.training.columns import (
    SCORES,
    check_rows,
    check_scores,
    digest,
    is_graded,
    with_grades,
    with_scores_as_numbers,
)
from m3kit.training.labels import settle_negatives
from m3kit.training.layout import Block, Candidate, Drawn, lay_out
from m3kit.training.plan import File, fit_batch_size, group_files, make_set, name, part_sets

logger = logging.getLogger(__name__)

Item = tuple[list[str], list[str], list[float] | None, bool]
# Above this share of rows that find no place in a batch, that is told.
FEW_LEFT_OVER = 0.01


class SameDatasetTrainDataset(AbsEmbedderSameDatasetTrainDataset):
    """Whole batches by number: item epoch × len + step is this process's share of the batch of that step.

    In each batch, over all processes, no query or passage comes twice, and no row's positive beside another row.

    - D1: refuses rows without ``prompt``, whose queries FlagEmbedding would begin with "None".
    - D2: refuses rows whose ``pos`` or ``neg`` is empty or no list.
    - D3: a group is never larger than its rows have different passages; it is of one size in all processes.
    - D5: a file with fewer rows than batch × processes is trained in smaller batches, and that is said.
    - D6: the batch is as large as asked for, whatever the ``type``.
    - D7: rows with teacher scores and rows without, or of different types, never share a batch.
    - S2: an item depends on its number, not on how many were asked for before; nor on the order of a folder's files.

    Rows of type ``graded_sts`` are pairs: a batch of them has one passage a query, and their scores whatever
    ``knowledge_distillation`` says; a text may come twice in it. For classified texts see ``labels``.
    """

    args: DataArguments

    def __init__(
        self,
        args: DataArguments,
        default_batch_size: int,
        seed: int,
        tokenizer: Any,
        process_index: int = 0,
        num_processes: int = 1,
        teacher_as_is: bool = True,
    ) -> None:
        """``teacher_as_is``: no setting changes the scale of teacher scores, so that of the rows is looked at."""
        self.seed = seed
        self._teacher_as_is = teacher_as_is
        self.files: list[File] = []
        self.sets: list[RowSet] = []
        self._epochs = Recent(2)
        self._told: set[str] = set()
        self._warn = logger.debug if process_index else logger.warning
        if not args.same_dataset_within_batch:
            # Where it mixes data sets, FlagEmbedding has no use for the sizes of files, nor for `type`.
            args = copy.copy(args)
            args.small_threshold = args.drop_threshold = 0
        try:
            # It ends with refresh_epoch, which makes the plan.
            super().__init__(args, default_batch_size, seed, tokenizer, process_index, num_processes)
        except ValueError as error:
            if self.files:
                raise
            where = ", ".join(args.train_data)
            raise KitError(f"no row to train on in {where}; give the folders that `m3kit prepare` printed") from error

    # ---- Loading ----

    def _load_dataset(self, file_path: str) -> datasets.Dataset:
        with _chance(self.seed):  # by which max_example_num_per_dataset draws
            # `datasets` reads a path as a pattern: brackets in it must be escaped.
            loaded = self._load_with_scores(glob.escape(file_path))
        if not len(loaded):
            return loaded
        check_rows(loaded, file_path)
        file = File(file_path, len(loaded))
        self.files.append(file)
        if is_graded(loaded, file_path):
            return with_grades(loaded, file_path, self.args.same_dataset_within_batch)
        if self.args.knowledge_distillation:
            loaded = with_scores_as_numbers(loaded, file_path)
            file.scored, probabilities = check_scores(loaded, file_path)
            self._tell_teacher(file, probabilities)
            return loaded
        return loaded.remove_columns([column for column in SCORES if column in loaded.column_names])

    def _load_with_scores(self, pattern: str) -> datasets.Dataset:
        """FlagEmbedding drops the scores where there is no teacher, and those of graded pairs with them."""
        args, self.args = self.args, copy.copy(self.args)
        self.args.knowledge_distillation = True
        try:
            return super()._load_dataset(pattern)
        finally:
            self.args = args

    def _tell_teacher(self, file: File, probabilities: bool) -> None:
        if file.scored < file.rows:
            self._warn(
                "teacher scores in %d of %d rows of %s; the others are trained without a teacher, in batches of their "
                "own",
                file.scored,
                file.rows,
                file.path,
            )
        elif self.process_index == 0:
            logger.info("teacher scores in all %d rows of %s", file.rows, file.path)
        if file.scored and probabilities and self._teacher_as_is:
            self._warn(
                "all teacher scores of %s lie within 0 … 1, as probabilities and cosines do; they go through a softmax "
                "as they are, which makes them nearly equal: give a reranker's raw scores, from before its sigmoid "
                "(D7), or set --teacher_temperature 0.05, or --teacher_normalisation zscore",
                file.path,
            )

    @staticmethod
    def _get_file_batch_size(temp_dataset: datasets.Dataset, default_batch_size: int) -> int:
        if "batch_size" in temp_dataset.column_names and temp_dataset["batch_size"][0]:
            return temp_dataset["batch_size"][0]
        return default_batch_size

    # ---- The plan ----

    def refresh_epoch(self) -> None:
        """Plan all epochs at once: after that there is nothing to refresh."""
        if self.sets:
            return
        args, processes = self.args, self.num_processes
        if args.knowledge_distillation and not any(file.scored for file in self.files):
            raise KitError(
                "knowledge_distillation is on, and no row has teacher scores; give the rows pos_scores and neg_scores, "
                "a reranker's raw scores, or --knowledge_distillation False"
            )
        groups = group_files(args.train_data, self.files, args.small_threshold, args.drop_threshold)
        if args.same_dataset_within_batch:
            kinds = zip(groups, self.batch_size_idxs, self.no_in_batch_neg_flags, strict=True)
            sets = [make_set(files, size, processes, not alone) for files, size, alone in kinds]
        else:
            files = [file for group in groups for file in group]
            sets = [make_set(files, self.defaut_batch_size, processes, True)]
        sets = part_sets(sets, self.dataset, args.same_dataset_within_batch, args.knowledge_distillation, self._warn)
        if not sets:
            raise KitError(f"no kind of rows is enough for {processes} processes; add rows, or train with one process")
        for number, rows in enumerate(sets):
            fit_batch_size(rows, self._warn)
            told = settle_negatives(rows, self.dataset, args.label_negatives, args.train_group_size)
            if told and self.process_index == 0:
                logger.info("%s: %s", name(rows), told)
            rows.seed = (self.seed, number)
        sizes = [len(rows.rows) for rows in sets]
        self.counts = share_out([rows.batches for rows in sets], sizes, args.mixing_temperature)
        self.rows_per_epoch = sum(int(count) * rows.global_size for count, rows in zip(self.counts, sets, strict=True))
        # What a block is laid out by. The other columns are read with the batch itself.
        columns = ["query", "pos", "neg", *(["train_group_size"] if self._has_group_sizes else [])]
        self._texts = self.dataset.select_columns(columns)
        self.sets = sets

    @property
    def _has_group_sizes(self) -> bool:
        # Like `type`, of no effect where data sets are mixed.
        return self.args.same_dataset_within_batch and "train_group_size" in self.dataset.column_names

    def describe(self) -> list[dict[str, Any]]:
        """What is trained on, an entry a data set; the digest tells whether its files were changed."""
        digests = {path: digest(path) for path in {path for rows in self.sets for path in rows.files}}
        described = []
        for rows, count in zip(self.sets, self.counts.tolist(), strict=True):
            found = [digests[path] for path in rows.files]
            described.append(
                {
                    "path": rows.path,
                    "type": rows.type,
                    "rows": len(rows.rows),
                    "batch_size_per_device": rows.batch_size,
                    "batches_per_epoch": count,
                    "in_batch_negatives": rows.in_batch_negatives,
                    "teacher_scores": rows.teacher_scores or rows.graded,
                    "digest": found[0] if len(found) == 1 else xxh3_64_hexdigest("".join(found).encode()),
                }
            )
        return described

    # ---- Items ----

    def __len__(self) -> int:
        return int(self.counts.sum())

    def __iter__(self) -> Iterator[Item]:
        """Those of the first epoch: there is an item for any number, so Python's own way would never end."""
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Item:
        number = int(number)
        if number < 0:
            raise IndexError(f"batches are counted from 0, not {number}")
        epoch, step = divmod(number, len(self))
        sets, running = self._epochs.get(
            epoch, lambda: interleave(self.counts, epoch, generator(self.seed, ORDER, epoch))
        )
        rows = self.sets[sets[step]]
        done, block, place = rows.locate(int(running[step]))
        batch = rows.blocks.get((done, block), lambda: self._lay_out(rows, done, block)).batches[place]
        share = len(batch) // self.num_processes
        mine = batch[self.process_index * share : (self.process_index + 1) * share]
        # FlagEmbedding draws too: in which order the negatives come, and what shuffle_ratio shuffles.
        with _chance(self.seed, number, self.process_index):
            raw = self._raw_batch(rows, mine)
            queries, passages, scores = self._create_batch_data(raw)
        if rows.graded:
            scores = [score for (score,) in raw["pos_scores"]]
        elif not rows.teacher_scores or len(passages) == len(queries):
            scores = None  # of one passage alone there is nothing that a teacher could say
        return queries, passages, scores, not rows.in_batch_negatives

    def _lay_out(self, rows: RowSet, done: int, block: int) -> Block:
        numbers, count = rows.block_rows(done, block)
        numbers = numbers.tolist()
        raw = self._texts[numbers]
        sizes = raw.get("train_group_size") or [None] * len(numbers)
        random = rows.random(DRAWING, done, block)
        candidates = [
            Candidate(number, query, pos, neg, self._group_size(rows, neg, size), random)
            for number, query, pos, neg, size in zip(numbers, raw["query"], raw["pos"], raw["neg"], sizes, strict=True)
        ]
        made = lay_out(candidates, count, rows.global_size, self.num_processes, rows.in_batch_negatives)
        if made.clashes:
            self._warn_once(
                "%s: some batches hold a passage twice, or one that answers another query: too many rows share it for "
                "%d processes to have others",
                name(rows),
                self.num_processes,
            )
        if made.left_over > FEW_LEFT_OVER * len(numbers):
            self._warn_once(
                "%s: about %.0f%% of the rows have no place in an epoch: they share passages with too many others, and "
                "no batch may hold one twice; smaller batches have room for more, and a folder whose name ends in "
                "no_in_batch_neg has no such limit",
                name(rows),
                100 * made.left_over / len(numbers),
            )
        return made

    def _group_size(self, rows: RowSet, neg: list[str], size: int | None) -> int:
        if rows.positives_alone:
            return 1
        raw: dict[str, list[Any]] = {"neg": [neg], "train_group_size": [size]}
        if rows.type is not None:
            raw["type"] = [rows.type]
        return self._get_train_group_size(raw)[0]

    def _get_train_group_size(self, batch_raw_data: dict[str, list[Any]]) -> tuple[int, str | None]:
        size, data_type = super()._get_train_group_size(batch_raw_data)
        # A native column `train_group_size` counts beside a `type` too (D6).
        sizes = [value for value in batch_raw_data.get("train_group_size", []) if value]
        fewest = min(len(negatives) for negatives in batch_raw_data["neg"])
        return min([size, *sizes, 1 + fewest]), data_type

    def _raw_batch(self, rows: RowSet, drawn: Sequence[Drawn]) -> dict[str, list[Any]]:
        """Rows as FlagEmbedding takes them, with no more passages than it is to use."""
        found = self.dataset[[one.row for one in drawn]]
        raw = {"query": found["query"], "prompt": found["prompt"]}
        pairs = [("pos", "neg"), SCORES] if rows.teacher_scores or rows.graded else [("pos", "neg")]
        for pos, neg in pairs:
            raw[pos] = [[values[one.positive]] for values, one in zip(found[pos], drawn, strict=True)]
            raw[neg] = [[values[n] for n in one.negatives] for values, one in zip(found[neg], drawn, strict=True)]
        raw["train_group_size"] = [1 + len(one.negatives) for one in drawn]
        if rows.type is not None:
            # The nearest type that FlagEmbedding knows: what goes before one sentence of a pair goes before both.
            raw["type"] = ["symmetric_sts" if rows.graded else rows.type] * len(drawn)
        return raw

    def _warn_once(self, message: str, *values: Any) -> None:
        worker = get_worker_info()
        if message not in self._told and not (worker and worker.id):
            self._told.add(message)
            self._warn(message, *values)


@contextlib.contextmanager
def _chance(*key: int) -> Iterator[None]:
    """Python's global chance as if begun with the key; afterwards as it was."""
    state = random.getstate()
    random.seed(repr(key))
    try:
        yield
    finally:
        random.setstate(state)
