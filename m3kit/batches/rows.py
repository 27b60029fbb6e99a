"""Files of prepared rows: loaded, checked row by row, and of each row noted what batches are made by."""

from __future__ import annotations

import contextlib
import glob
import logging
import math
import os
import random
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import datasets
from xxhash import xxh3_64_intdigest

from m3kit.batches.arguments import DataArguments
from m3kit.data.convert import GRADED
from m3kit.errors import KitError

logger = logging.getLogger(__name__)

PREPARE = "train on what `python -m m3kit prepare` writes"
NEEDED, SCORES, FURTHER = ("query", "pos", "neg", "prompt"), ("pos_scores", "neg_scores"), ("type", "train_group_size")
# FlagEmbedding's types, and the kit's, whose passages are prompted like the query.
SYMMETRIC = ("symmetric_sts", "symmetric_clustering", GRADED)
# Texts are cut to a number of tokens: what a text has beyond so many characters for each does not make it heavier.
CHARACTERS_PER_TOKEN = 6

Kind = tuple[str, bool]  # the type, "" for none, and whether there are scores to train by


class Row(NamedTuple):
    """Where a row's texts are, and in about 400 bytes what batches are made by.

    ``texts``: a hash each of the query, the ``positives`` positives and the negatives. ``lengths``: in characters with
    prompt and instruction, from the longest positive to the shortest, and so the negatives. ``group``: the most
    passages that it brings, its positive among them.
    """

    data: datasets.Dataset
    number: int
    texts: array
    lengths: array
    positives: int
    group: int

    def read(self) -> dict[str, Any]:
        return self.data[self.number]

    def weight(self, size: int) -> int:
        """Characters of the query and the longest group of that size."""
        first = 1 + self.positives
        return sum(self.lengths[:2]) + sum(self.lengths[first : first + size - 1])


class File(NamedTuple):
    path: str
    rows: int
    batch_size: int | None  # that of its first row
    kinds: dict[Kind, list[Row]]


def as_encoded(args: DataArguments, kind: str, row: dict[str, Any], passages: list[str]) -> tuple[str, list[str]]:
    """(query, passages) with prompt and instruction, as FlagEmbedding joins them for a type."""
    if kind in SYMMETRIC:
        passages = [args.query_instruction_format.format(row["prompt"], text) for text in passages]
    elif (instruction := args.passage_instruction_for_retrieval) is not None:
        passages = [args.passage_instruction_format.format(instruction, text) for text in passages]
    return args.query_instruction_format.format(row["prompt"], row["query"]), passages


def load_file(path: str, args: DataArguments, seed: int, teacher_as_is: bool) -> File:
    """Raises ``KitError`` for what trains on nonsense or fails deep inside; ``m3kit prepare`` writes rows that pass."""
    kinds: dict[Kind, list[Row]] = {}
    if not os.path.getsize(path):
        return File(path, 0, None, kinds)
    with _readable(path):
        # `datasets` reads a path as a pattern: brackets in it must be escaped.
        data = datasets.load_dataset("json", data_files=glob.escape(path), split="train", cache_dir=args.cache_path)
    if missing := [column for column in NEEDED if column not in data.column_names]:
        raise KitError(f'{path}: the rows have no "{missing[0]}"; {PREPARE}')
    batch_size = next(_rows(data, path)).get("batch_size")
    _check_size(batch_size, "batch_size", f"{path}: row 1")
    data = data.select_columns([name for name in (*NEEDED, *SCORES, *FURTHER) if name in data.column_names])
    numbers: Sequence[int] = range(len(data))
    if len(data) > args.max_example_num_per_dataset:
        numbers = sorted(random.Random(seed).sample(numbers, args.max_example_num_per_dataset))
        data = data.select(numbers)
    scored, as_probabilities = 0, True
    for place, row in enumerate(_rows(data, path)):
        where = f"{path}: row {numbers[place] + 1}"
        _check_texts(row, where)
        _check_size(row.get("train_group_size"), "train_group_size", where)
        has_scores = _check_scores(row, where, args)
        kind = (row.get("type") or "") if args.same_dataset_within_batch else ""
        kinds.setdefault((kind, has_scores), []).append(_note(data, place, row, kind, args))
        if has_scores:
            scored += 1
            as_probabilities = as_probabilities and all(0 <= score <= 1 for name in SCORES for score in row[name])
    types = {kind for kind, _ in kinds}
    if GRADED in types and len(types) > 1:
        raise KitError(f"{path}: rows of type {GRADED} and others; put each in a file of their own")
    if args.knowledge_distillation and scored < len(data):
        others = "the others are trained without a teacher, in batches of their own"
        logger.warning(f"teacher scores in {scored} of {len(data)} rows of {path}; {others}")
    if scored and GRADED not in types and as_probabilities and teacher_as_is:
        logger.warning(
            f"all teacher scores of {path} lie within 0 … 1, as probabilities and cosines do; they go through a "
            "softmax as they are, which makes them nearly equal: give a reranker's raw scores, from before its sigmoid "
            "(D7), or set --teacher_temperature 0.05, or --teacher_normalisation zscore"
        )
    return File(path, len(data), batch_size, kinds)


def _rows(data: datasets.Dataset, path: str) -> Iterator[dict[str, Any]]:
    with _readable(path):
        for part in data.iter(1000):
            yield from (dict(zip(part, values, strict=True)) for values in zip(*part.values(), strict=True))


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    """``KitError`` where a file has no rows of JSON: of what is wrong `datasets` says little, and not in which file."""
    try:
        yield
    except (ValueError, datasets.exceptions.DatasetGenerationError) as error:
        reason = error.__cause__ or error
        if not isinstance(reason, ValueError):  # such as a full disk
            raise
        raise KitError(f"{path}: cannot be read as rows of JSON ({reason}); {PREPARE}") from error


def _check_texts(row: dict[str, Any], where: str) -> None:
    if not isinstance(row["prompt"], str):
        raise KitError(f'{where} has no "prompt" (an empty one will do); {PREPARE}')
    if not isinstance(row["query"], str):
        raise KitError(f'{where}: "query" is no text; {PREPARE}')
    if not isinstance(row.get("type") or "", str):
        raise KitError(f'{where}: "type" is no text; {PREPARE}')
    for name in ("pos", "neg"):
        texts = row[name]
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise KitError(f'{where}: "{name}" is no list with a passage in it; {PREPARE}')


def _check_size(value: Any, name: str, where: str) -> None:
    """One that FlagEmbedding's rows may bring; empty and 0 stand for none."""
    if value is not None and (type(value) is not int or value < 0):
        raise KitError(f'{where}: "{name}" is {value!r}; give a whole number above 0, or leave it out')


def _check_scores(row: dict[str, Any], where: str, args: DataArguments) -> bool:
    """Whether the row is trained by its scores: FlagEmbedding would take them for those of other passages (D7)."""
    has_scores, is_graded = all(row.get(name) is not None for name in SCORES), row.get("type") == GRADED
    if is_graded and not args.same_dataset_within_batch:
        cure = "leave same_dataset_within_batch on, or prepare the pairs with --sts_as contrastive"
        raise KitError(f"{where}: graded pairs need batches of their own; {cure}")
    if is_graded and not has_scores:
        raise KitError(f'{where}: of type {GRADED}, and has no "pos_scores" and "neg_scores"; give it a score')
    if not has_scores or not (is_graded or args.knowledge_distillation):
        return False
    for passages, name in zip(("pos", "neg"), SCORES, strict=True):
        scores = row[name]
        if not isinstance(scores, list) or not all(type(s) in (int, float) and math.isfinite(s) for s in scores):
            raise KitError(f'{where}: "{name}" is no list of finite numbers; give the teacher\'s raw scores')
        if len(scores) != len(row[passages]):
            what = f'"{name}" has {len(scores)} scores for {len(row[passages])} passages'
            raise KitError(f"{where}: {what}; give one score a passage, in the same order")
    return True


def _note(data: datasets.Dataset, place: int, row: dict[str, Any], kind: str, args: DataArguments) -> Row:
    pos, neg = row["pos"], row["neg"]
    query, passages = as_encoded(args, kind, row, pos + neg)
    most = CHARACTERS_PER_TOKEN * args.passage_max_len
    lengths = [min(len(text), most) for text in passages]
    falling = sorted(lengths[: len(pos)], reverse=True) + sorted(lengths[len(pos) :], reverse=True)
    group = 1 if kind == GRADED else 2 if kind == "only_1neg" else args.train_group_size
    if args.same_dataset_within_batch and (own := row.get("train_group_size")):
        # Beside a type, FlagEmbedding does not look at a row's own size (D6).
        group = min(group, own) if kind else own
    return Row(
        data,
        place,
        texts=array("Q", (xxh3_64_intdigest(text.encode()) for text in (row["query"], *pos, *neg))),
        lengths=array("i", [min(len(query), CHARACTERS_PER_TOKEN * args.query_max_len), *falling]),
        positives=len(pos),
        group=min(group, 1 + len(neg)),
    )
