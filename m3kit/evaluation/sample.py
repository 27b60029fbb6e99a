"""A sample of test data: enough to tell checkpoints apart while training. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from m3kit.evaluation.beir import EvalData
from m3kit.evaluation.folder import EvalFolder
from m3kit.evaluation.tasks import Classification, Clustering, Sts, Task

# A minute on a GPU at bge-m3's size, during which the other processes wait.
MAX_QUERIES, MAX_PASSAGES, MAX_TEXTS = 200, 2000, 2000


def sample(data: EvalFolder, seed: int) -> tuple[EvalFolder, str]:
    """What fits the limits, the same for the same seed; and what was left out of it in words, or "" for nothing."""
    random = np.random.default_rng(seed)
    told: list[str] = []
    retrieval = data.retrieval
    if retrieval and (len(retrieval.queries) > MAX_QUERIES or len(retrieval.passages) > MAX_PASSAGES):
        full, retrieval = retrieval, _some_queries(retrieval, random)
        told.append(f"{len(retrieval.queries):,} of {len(full.queries):,} queries")
        told.append(f"{len(retrieval.passages):,} of {len(full.passages):,} passages")
    tasks = {}
    for name, task in data.tasks.items():
        tasks[name] = _some_rows(task, random)
        (what, count), (_, before) = (next(iter(one.counts.items())) for one in (tasks[name], task))
        if count < before:
            told.append(f"{count:,} of {before:,} {what} of {name}")
    return EvalFolder(data.folder, retrieval, tasks), " and ".join(filter(None, [", ".join(told[:-1]), *told[-1:]]))


def _some_queries(data: EvalData, random: np.random.Generator) -> EvalData:
    """At most MAX_QUERIES queries, with all that is judged for them among MAX_PASSAGES passages."""

    def some(keys: list[str], count: int) -> list[str]:
        return [keys[number] for number in sorted(random.permutation(len(keys))[: max(count, 0)])]

    queries = some(list(data.queries), MAX_QUERIES)
    judged = {passage for query in queries for passage in data.qrels[query]}
    kept = judged.union(some([key for key in data.passages if key not in judged], MAX_PASSAGES - len(judged)))
    return replace(
        data,
        queries={key: data.queries[key] for key in queries},
        passages={key: text for key, text in data.passages.items() if key in kept},
        qrels={key: data.qrels[key] for key in queries},
    )


def _some_rows(task: Task, random: np.random.Generator) -> Task:
    """About MAX_TEXTS texts; of a classification without rows to learn from, which its first figure does not need."""
    values: Sequence = task.scores if isinstance(task, Sts) else task.labels
    kept = _share(values, MAX_TEXTS // 2 if isinstance(task, Sts) else MAX_TEXTS, random)

    def some(column: list) -> list:
        return [column[row] for row in kept]

    if isinstance(task, Sts):
        return Sts(some(task.firsts), some(task.seconds), some(task.scores))
    labels = some(task.labels)
    if isinstance(task, Clustering):
        return Clustering(some(task.texts), labels)
    texts = task.label_texts
    if len(texts) > MAX_TEXTS:
        known = set(labels)
        texts = {label: text for label, text in texts.items() if label in known}
    return Classification(some(task.rows), labels, texts)


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
