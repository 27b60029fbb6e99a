"""What is asked of a file of prepared rows, column by column: millions of rows cannot be looked at one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64

from m3kit.data.convert import GRADED
from m3kit.errors import KitError

HINT = "train on what `python -m m3kit prepare` writes"
SCORES = ("pos_scores", "neg_scores")
PART_ROWS = 100_000


class Teacher(NamedTuple):
    """The teacher scores of a file: how many rows have them, and whether all lie within 0 … 1."""

    rows: int
    probabilities: bool


def check_rows(loaded: datasets.Dataset, path: str) -> None:
    """Refuse what trains on nonsense or fails deep inside; ``m3kit prepare`` writes rows that pass."""
    for column in ("query", "pos", "neg", "prompt"):
        if column not in loaded.column_names:
            raise KitError(f'{path}: the rows have no "{column}"; {HINT}')
    if number := _first(loaded, "prompt", _is_text, pc.is_null, _no_text):
        raise KitError(f'{path}: row {number} has no "prompt" (an empty one will do); {HINT}')
    if number := _first(loaded, "query", _is_text, pc.is_null, _no_text):
        raise KitError(f'{path}: row {number}: "query" is no text; {HINT}')
    for column in ("pos", "neg"):
        if number := _first(loaded, column, _is_texts, _lacks_passages, _no_passages):
            raise KitError(f'{path}: row {number}: "{column}" is no list with a passage in it; {HINT}')


def with_scores_as_numbers(loaded: datasets.Dataset, path: str) -> datasets.Dataset:
    """All files alike: one with whole numbers cannot be put together with one that has fractions."""
    wanted = datasets.List(datasets.Value("float64"))
    for column in SCORES:
        kind = loaded.features.get(column)
        if kind not in (None, wanted, datasets.Value("null")):
            try:
                loaded = loaded.cast_column(column, wanted)
            except (pa.ArrowException, TypeError, ValueError) as error:
                hint = "give lists of numbers, the teacher's raw scores"
                raise KitError(f'{path}: "{column}" is not a list of numbers in every row; {hint}') from error
    return loaded


def check_scores(loaded: datasets.Dataset, path: str) -> Teacher:
    """Refuse scores that FlagEmbedding would take for those of other passages."""
    if not set(SCORES) <= set(loaded.column_names):
        return Teacher(0, False)
    rows, lowest, highest, start = 0, math.inf, -math.inf, 1
    for part in _parts(loaded, ["pos", "neg", *SCORES]):
        has = pc.and_(*(pc.is_valid(part[name]) for name in SCORES))
        rows += pc.sum(has).as_py() or 0
        for passages, scores in zip(("pos", "neg"), SCORES, strict=True):
            if not pc.any(has).as_py():
                continue
            differs = pc.not_equal(pc.list_value_length(part[passages]), pc.list_value_length(part[scores]))
            if (place := pc.index(pc.and_kleene(has, differs), True).as_py()) >= 0:
                counts = len(part[scores][place]), len(part[passages][place])
                what = '"{}" has {} scores for {} passages'.format(scores, *counts)
                raise KitError(f"{path}: row {start + place}: {what}; give one score a passage, in the same order")
            values = pc.list_flatten(part[scores].filter(has))
            if values.null_count or not pc.all(pc.is_finite(values)).as_py():
                bad = (number for number, row in enumerate(part[scores].to_pylist(), start) if not _are_finite(row))
                hint = "give the teacher's raw score"
                raise KitError(f'{path}: row {next(bad)}: "{scores}" holds what is no finite number; {hint}')
            lowest = min(lowest, pc.min(values).as_py())
            highest = max(highest, pc.max(values).as_py())
        start += len(part)
    return Teacher(rows, lowest >= 0 and highest <= 1)


def is_graded(loaded: datasets.Dataset, path: str) -> bool:
    """Whether the rows of a file are graded pairs. Refuses a file of these and others."""
    types, codes = types_of(loaded)
    if GRADED in types and len(types) > 1:
        raise KitError(f"{path}: rows of type {GRADED} and others; put each in a file of their own")
    return types == [GRADED] and len(codes) > 0


def with_grades(loaded: datasets.Dataset, path: str, same_dataset_within_batch: bool) -> datasets.Dataset:
    """Graded pairs with their scores as numbers. Refuses pairs without a score, and batches of pairs and other rows."""
    if not same_dataset_within_batch:
        raise KitError(
            f"{path}: graded pairs need batches of their own; leave same_dataset_within_batch on, or prepare the pairs "
            "with --sts_as contrastive"
        )
    loaded = with_scores_as_numbers(loaded, path)
    if check_scores(loaded, path).rows < len(loaded):
        raise KitError(f'{path}: a row of type {GRADED} has no "pos_scores" and "neg_scores"; give it a score')
    return loaded


def types_of(dataset: datasets.Dataset) -> tuple[list[str | None], np.ndarray]:
    """The different types, None before all others, and for each row the number of its own."""
    if dataset.features.get("type", datasets.Value("null")) == datasets.Value("null"):
        return [None], np.zeros(len(dataset), np.int8)
    found: list[str | None] = []
    parts = []
    for part in _parts(dataset, ["type"]):
        for chunk in part["type"].chunks:
            encoded = chunk.dictionary_encode(null_encoding="encode")
            names = encoded.dictionary.to_pylist()
            found += [name for name in names if name not in found]
            parts.append(np.array([found.index(name) for name in names], np.int16)[encoded.indices.to_numpy()])
    ordered = sorted(found, key=lambda name: (name is not None, name))
    return ordered, np.array([ordered.index(name) for name in found], np.int16)[np.concatenate(parts)]


def has_scores(dataset: datasets.Dataset) -> np.ndarray:
    """For each row whether a teacher scored it."""
    if not set(SCORES) <= set(dataset.column_names):
        return np.zeros(len(dataset), bool)
    parts = _parts(dataset, list(SCORES))
    return np.concatenate([pc.and_(*(pc.is_valid(part[name]) for name in SCORES)).to_numpy() for part in parts])


def digest(path: str) -> str:
    """Of a file's bytes: to tell that it is no longer what it was."""
    found = xxh3_64()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


def _parts(dataset: datasets.Dataset, columns: list[str]) -> Iterator[pa.Table]:
    return dataset.select_columns(columns).with_format("arrow").iter(PART_ROWS)


def _first(
    loaded: datasets.Dataset,
    column: str,
    is_usual: Callable[[pa.DataType], bool],
    are_wrong: Callable[[pa.ChunkedArray], Any],
    is_wrong: Callable[[Any], bool],
) -> int | None:
    """The number of the first row with a wrong value. A column of several types can only be looked at row by row."""
    if not is_usual(loaded.features.arrow_schema.field(column).type):
        return next((number for number, value in enumerate(loaded[column], start=1) if is_wrong(value)), None)
    start = 1
    for part in _parts(loaded, [column]):
        if (place := pc.index(are_wrong(part[column]), True).as_py()) >= 0:
            return start + place
        start += len(part)
    return None


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_texts(kind: pa.DataType) -> bool:
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_text(kind.value_type)


def _no_text(value: Any) -> bool:
    return not isinstance(value, str)


def _no_passages(value: Any) -> bool:
    return not isinstance(value, list) or not value or any(map(_no_text, value))


def _lacks_passages(values: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    if pc.list_flatten(values).null_count:
        return pa.array(map(_no_passages, values.to_pylist()), pa.bool_())
    return pc.fill_null(pc.equal(pc.list_value_length(values), 0), True)


def _are_finite(scores: list[float | None] | None) -> bool:
    return scores is None or all(score is not None and math.isfinite(score) for score in scores)
