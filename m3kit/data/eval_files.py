"""Write held-out rows as `m3kit evaluate` reads them: retrieval in BEIR form, other tasks in their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from m3kit.data.dataset import HELD_OUT, MERGED, DataSet, Texts
from m3kit.data.grouping import among, repeated
from m3kit.data.reading import Reading
from m3kit.data.rowindex import RowIndex
from m3kit.data.text import same_text
from m3kit.data.workers import Workers

RETRIEVAL_TASKS = ("retrieval", "native")


def write_eval(sets: list[DataSet], folder: Path, workers: Workers) -> dict[str, int]:
    """Write what is held out of the sets; returns how many queries (pairs, texts) of each task."""
    counts: dict[str, int] = {}
    retrieval = [data for data in sets if data.task in RETRIEVAL_TASKS and data.fates.count(HELD_OUT)]
    if retrieval:
        # The corpus is every passage, that of sets from which nothing was held out too.
        counts["retrieval"] = _write_beir([d for d in sets if d.task in RETRIEVAL_TASKS], folder, workers)
    for task in ("sts", "classification", "clustering"):
        chosen = [data for data in sets if data.task == task and data.fates.count(HELD_OUT)]
        rows = [row for data in chosen for row in _held_out_rows(data)]
        if rows:
            (folder / task).mkdir(parents=True)
            _write_lines(folder / task / "test.jsonl", rows)
            counts[task] = len(rows)
        if rows and task == "classification":
            texts = _label_texts(chosen)
            (folder / task / "labels.json").write_text(json.dumps(texts, ensure_ascii=False, indent=2) + "\n", "utf-8")
    return counts


def _label_texts(sets: list[DataSet]) -> dict[str, str]:
    """The text of each label. Labels of several files may have one text; then only the first is known by it."""
    texts: dict[str, str] = {}
    taken: set[str] = set()
    for data in sets:
        for label, text in zip(data.labels, data.label_texts, strict=True):
            texts.setdefault(label, label if text in taken else text)
            taken.add(texts[label])
    return texts


def _held_out_rows(data: DataSet) -> Iterator[dict]:
    texts = Texts(data.reading, data.index)
    for row in np.flatnonzero(data.fates.of_row == HELD_OUT).tolist():
        (first, *others), _, value = texts.row(row)
        if data.task == "sts":
            yield {"sentence1": first, "sentence2": others[0], "score": value}
        else:
            yield {"text": first, "label": value}


@dataclass(frozen=True)
class _CorpusPart:
    reading: Reading
    index_folder: Path
    start: int
    stop: int


def _corpus_part(part: _CorpusPart) -> bytes:
    index = RowIndex(part.index_folder)
    first = index.column("first", part.start, part.stop + 1)
    numbers = index.column("passage", int(first[0]), int(first[-1])).tolist()
    flat = (text for texts, _, _ in Texts(part.reading, index).rows(part.start, part.stop) for text in texts)
    return b"".join(
        orjson.dumps({"_id": f"p{number}", "title": "", "text": text}, option=orjson.OPT_APPEND_NEWLINE)
        for number, text in zip(numbers, flat, strict=True)
        if number
    )


def _write_beir(sets: list[DataSet], folder: Path, workers: Workers) -> int:
    """Every passage of the sets once, the held-out queries, and their positives as qrels."""
    (folder / "qrels").mkdir(parents=True)
    ids = _number_passages(sets)
    with (folder / "corpus.jsonl").open("wb") as file:
        for data in sets:
            parts = (_CorpusPart(data.reading, data.index.folder, start, stop) for start, stop in data.index.parts())
            file.writelines(workers.map(_corpus_part, parts))
    queries: dict[str, tuple[str, dict[int, None]]] = {}
    for data in sets:
        texts = Texts(data.reading, data.index)
        for row in np.flatnonzero(data.fates.of_row == HELD_OUT).tolist():
            found, positives, _ = texts.row(row)
            keys = data.index.keys(row, row + 1)[0][1 : 1 + positives]
            _, relevant = queries.setdefault(same_text(found[0]), (found[0], {}))
            relevant.update((ids[int(key)], None) for key in keys)
    names = [f"q{number}" for number in range(1, len(queries) + 1)]
    asked = zip(names, queries.values(), strict=True)
    _write_lines(folder / "queries.jsonl", ({"_id": name, "text": text} for name, (text, _) in asked))
    with (folder / "qrels" / "test.tsv").open("w", encoding="utf-8", newline="\n") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        for name, (_, relevant) in zip(names, queries.values(), strict=True):
            file.writelines(f"{name}\tp{number}\t1\n" for number in relevant)
    return len(queries)


def _number_passages(sets: list[DataSet]) -> dict[int, int]:
    """Keep the number of each text that is the first of its kind among the passages, 0 for all others, as a column;
    returns the numbers of the held-out rows' passages by their keys."""
    keys, passages, wanted = [], [], []
    for data in sets:
        counts, first = data.index.column("texts").astype(np.int64), data.index.column("first")[:-1]
        held_out = data.fates.of_row == HELD_OUT
        passage = np.repeat((data.fates.of_row <= MERGED) | held_out, counts)
        passage[first] = False
        key = data.index.column("key")
        keys.append(key)
        passages.append(passage)
        wanted.append(key[np.repeat(held_out, counts) & passage])
    sizes = [len(key) for key in keys]
    key = np.concatenate(keys)
    del keys
    every = np.flatnonzero(np.concatenate(passages)).astype(np.uint32)
    order, starts = repeated(key[every])
    every = np.delete(every, np.delete(order, starts[:-1]))
    number = np.zeros(len(key), np.uint32)
    number[every] = np.arange(1, len(every) + 1)
    for data, end, size in zip(sets, np.cumsum(sizes), sizes, strict=True):
        data.index.save("passage", number[end - size : end])
    found = every[among(key[every], np.unique(np.concatenate(wanted)))]
    return dict(zip(key[found].tolist(), number[found].tolist(), strict=True))


def _write_lines(path: Path, rows: Iterator[dict] | list[dict]) -> None:
    with path.open("wb") as file:
        file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
