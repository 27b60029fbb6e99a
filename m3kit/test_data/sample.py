"""Parts of test data: the half that chooses a checkpoint, and as much of it as training has time for. Without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from xxhash import xxh3_64_intdigest

from m3kit.test_data.beir import EvalData
from m3kit.test_data.folder import EvalFolder
from m3kit.test_data.tasks import Classification, Clustering, Sts, Task

# A minute on a GPU at bge-m3's size, during which the other processes wait.
MAX_QUERIES, MAX_PASSAGES, MAX_TEXTS = 200, 2000, 2000
# Fewer can hardly tell checkpoints apart.
FEWEST_QUERIES, FEWEST_PASSAGES, FEWEST_TEXTS = 50, 250, 100
# So many queries, or rows of a task, are enough for two halves; neither may be smaller than a quarter of them.
ENOUGH = 100
# What a task has of each row; the last column is what its figure compares with.
COLUMNS: dict[type, tuple[str, ...]] = {
    Sts: ("firsts", "seconds", "scores"),
    Classification: ("rows", "labels"),
    Clustering: ("texts", "labels"),
}


# ---- Choosing and judging ----


def choosing_half(data: EvalFolder) -> tuple[EvalFolder, EvalFolder]:
    """What chooses among checkpoints, and what judges the chosen one; twice ``data`` itself where it is too small.

    Of many checkpoints the luckiest is chosen, so that its figure on the queries that chose it is too good. Parted are
    the queries, with all passages in both halves; or, without retrieval, the rows of the first task, which then
    chooses. The text alone says which half it is in: every run, seed and process parts alike.
    """
    if data.retrieval:
        keys = list(data.retrieval.queries)
        halves = _halves(list(data.retrieval.queries.values()))
        parts = [replace(data, retrieval=_asking(data.retrieval, [keys[row] for row in half])) for half in halves]
    else:
        name, task = next(iter(data.tasks.items()))
        halves = _halves(["\0".join(texts) for texts in zip(*_columns(task)[:-1], strict=True)])
        parts = [replace(data, tasks=data.tasks | {name: _rows(task, half)}) for half in halves]
        if not all(_is_measurable(part.tasks[name]) for part in parts):
            return data, data
    enough = sum(map(len, halves)) >= ENOUGH and min(map(len, halves)) >= ENOUGH // 4
    return (parts[0], parts[1]) if enough else (data, data)


def _halves(texts: Sequence[str]) -> list[list[int]]:
    """The numbers of the texts of each half."""
    halves: list[list[int]] = [[], []]
    for number, text in enumerate(texts):
        halves[xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) % 2].append(number)
    return halves


def _is_measurable(task: Task) -> bool:
    """Nothing is ranked or clustered where all rows have the same value, or no two the same label."""
    values = _columns(task)[-1]
    return len(set(values)) > 1 and (isinstance(task, Sts) or len(set(values)) < len(values))


# ---- A sample ----


def sample(data: EvalFolder, seed: int, share: float = 1) -> EvalFolder:
    """A random part of the test data; the same seed gives the same part.

    Of queries, passages and texts it has MAX_… times ``share`` at most, and at least FEWEST_…, where there are so many.
    """
    random = np.random.default_rng(seed)
    retrieval = data.retrieval and _some_queries(data.retrieval, random, share)
    return replace(data, retrieval=retrieval, tasks={n: _some_rows(t, random, share) for n, t in data.tasks.items()})


def told(sampled: EvalFolder, whole: EvalFolder) -> str:
    """What was taken of what, such as "80 of 300 queries, 900 passages"."""
    before = _counts(whole)
    return ", ".join(
        f"{count:,} {what}" if count == before[what] else f"{count:,} of {before[what]:,} {what}"
        for what, count in _counts(sampled).items()
    )


def _counts(data: EvalFolder) -> dict[str, int]:
    counts = {}
    if data.retrieval:
        counts = {"queries": len(data.retrieval.queries), "passages": len(data.retrieval.passages)}
    for name, task in data.tasks.items():
        what, count = next(iter(task.counts.items()))
        counts[f"{what} of {name}"] = count
    return counts


def _limit(count: int, most: int, fewest: int, share: float) -> int:
    return max(int(share * min(count, most)), min(count, most, fewest))


def _some_queries(data: EvalData, random: np.random.Generator, share: float) -> EvalData:
    """Some queries, with all that is judged for them, and further passages."""

    def some(keys: list[str], count: int) -> list[str]:
        return [keys[number] for number in sorted(random.permutation(len(keys))[: max(count, 0)])]

    queries = some(list(data.queries), _limit(len(data.queries), MAX_QUERIES, FEWEST_QUERIES, share))
    judged = {passage for query in queries for passage in data.qrels[query]}
    count = _limit(len(data.passages), MAX_PASSAGES, FEWEST_PASSAGES, share)
    kept = judged.union(some([key for key in data.passages if key not in judged], count - len(judged)))
    passages = {key: text for key, text in data.passages.items() if key in kept}
    return replace(_asking(data, queries), passages=passages)


def _asking(data: EvalData, queries: list[str]) -> EvalData:
    """With these queries only."""
    return replace(
        data,
        queries={key: data.queries[key] for key in queries},
        qrels={key: data.qrels[key] for key in queries},
    )


def _some_rows(task: Task, random: np.random.Generator, share: float) -> Task:
    """Of a classification without rows to learn from, which its first figure does not need."""
    values = _columns(task)[-1]
    each = 2 if isinstance(task, Sts) else 1
    task = _rows(task, _share(values, _limit(len(values) * each, MAX_TEXTS, FEWEST_TEXTS, share) // each, random))
    if isinstance(task, Classification):
        texts, known = task.label_texts, set(task.labels)
        if len(texts) > MAX_TEXTS:
            texts = {label: text for label, text in texts.items() if label in known}
        task = replace(task, label_texts=texts, training=None)
    return task


def _columns(task: Task) -> list[list]:
    return [getattr(task, column) for column in COLUMNS[type(task)]]


def _rows(task: Task, kept: Sequence[int]) -> Task:
    """With these rows only."""
    columns: dict[str, Any] = {name: [getattr(task, name)[row] for row in kept] for name in COLUMNS[type(task)]}
    return replace(task, **columns)


def _share(values: Sequence, most: int, random: np.random.Generator) -> Sequence[int]:
    """About ``most`` rows in their order: of each value its share, two at least, so that none is alone with its label.

    Where there are too many values even for that, of some values.
    """
    if len(values) <= most:
        return range(len(values))
    rows_of: dict = {}
    for row in random.permutation(len(values)):
        rows_of.setdefault(values[row], []).append(int(row))
    kept: list[int] = []
    for rows in rows_of.values():
        if len(kept) >= most:
            break
        kept += rows[: max(2, len(rows) * most // len(values))]
    return sorted(kept)
