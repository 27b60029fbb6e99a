"""Write held-out rows as `m3kit evaluate` reads them: retrieval in BEIR form, other tasks in their own."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from m3kit.data.rowset import RowSet
from m3kit.reading.rows import Row
from m3kit.reading.text import key_of


def write_eval(sets: list[RowSet], folder: Path) -> dict[str, int]:
    """Write what is held out of the sets; returns how many queries (pairs, texts) of each task."""
    counts: dict[str, int] = {}
    ranked = [data for data in sets if data.task in ("retrieval", "native")]
    if held := [row for data in ranked for row in data.held_out()]:
        counts["retrieval"] = _write_beir(ranked, held, folder)
    for task in ("sts", "classification", "clustering"):
        chosen = [data for data in sets if data.task == task and data.held_out()]
        rows = [row for data in chosen for row in data.held_out()]
        if rows:
            (folder / task).mkdir(parents=True)
            _write_lines(folder / task / "test.jsonl", (_task_row(row, task) for row in rows))
            counts[task] = len(rows)
        if rows and task == "classification":
            texts = json.dumps(_label_texts(chosen), ensure_ascii=False, indent=2)
            (folder / task / "labels.json").write_text(texts + "\n", "utf-8")
    return counts


def _task_row(row: Row, task: str) -> dict[str, Any]:
    if task == "sts":
        return {"sentence1": row.query, "sentence2": row.positives[0], "score": row.value}
    return {"text": row.query, "label": row.value}


def _label_texts(sets: list[RowSet]) -> dict[str, str]:
    """The text of each label. Labels of several files may have one text; then only the first is known by it."""
    texts: dict[str, str] = {}
    taken: set[str] = set()
    for label, text in (pair for data in sets for pair in data.label_texts.items()):
        texts.setdefault(label, label if text in taken else text)
        taken.add(texts[label])
    return texts


def _write_beir(sets: list[RowSet], held: list[Row], folder: Path) -> int:
    """Every passage of the sets once, the held-out queries, and their positives as qrels."""
    (folder / "qrels").mkdir(parents=True)
    passages: dict[int, str] = {}
    for row in (row for data in sets for row in data.rows):
        for key, text in zip(row.keys[1:], [*row.positives, *row.negatives], strict=True):
            passages.setdefault(key, text)
    for text in (text for data in sets for text in data.corpus):
        passages.setdefault(key_of(text), text)
    numbers = {key: number for number, key in enumerate(passages, start=1)}
    _write_lines(
        folder / "corpus.jsonl",
        ({"_id": f"p{numbers[key]}", "title": "", "text": text} for key, text in passages.items()),
    )
    queries: dict[int, str] = {}
    relevant: dict[int, dict[int, None]] = defaultdict(dict)
    for row in held:
        queries.setdefault(row.keys[0], row.query)
        relevant[row.keys[0]].update(dict.fromkeys(row.positive_keys))
    names = {key: f"q{number}" for number, key in enumerate(queries, start=1)}
    _write_lines(folder / "queries.jsonl", ({"_id": names[key], "text": text} for key, text in queries.items()))
    with (folder / "qrels" / "test.tsv").open("w", encoding="utf-8", newline="\n") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        file.writelines(f"{names[query]}\tp{numbers[passage]}\t1\n" for query in queries for passage in relevant[query])
    return len(queries)


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
