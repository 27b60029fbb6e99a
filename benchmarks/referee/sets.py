"""Data sets as every system gets them: rows to train on, and a test that no system sees.

A set is a folder in the kit's layout: one task folder (``retrieval/train.jsonl``, ``sts/sts.jsonl``, …) and ``eval/``.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path

TASKS = {
    "retrieval": "retrieval/train.jsonl",
    "sts": "sts/sts.jsonl",
    "classification": "classification-no_in_batch_neg/train.jsonl",
    "clustering": "clustering-no_in_batch_neg/train.jsonl",
}
# The order of rows and the passages that are drawn are the same for every system, size and seed.
ORDER = 7


@dataclass
class Test:
    """Of retrieval: queries, passages and, for each query, {number of a passage: grade}. Of a task: its rows."""

    queries: list[str] = field(default_factory=list)
    passages: list[str] = field(default_factory=list)
    grades: list[dict[int, int]] = field(default_factory=list)
    rows: list[dict] = field(default_factory=list)
    train: list[dict] = field(default_factory=list)  # what a probe of a classification learns from


@dataclass
class DataSet:
    name: str
    task: str
    rows: list[dict]
    test: Test

    def write(self, folder: Path, count: int | None) -> Path:
        """The first ``count`` rows, all where None, as the kit's users have them. Returns the task folder."""
        file = folder / TASKS[self.task]
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = self.rows[:count]
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        return file.parent


def load(folder: Path, held_out: int, most_passages: int) -> DataSet:
    """Read a set. ``held_out`` retrieval rows become test queries; ``most_passages`` limits what is not relevant."""
    task, file = next((task, folder / name) for task, name in TASKS.items() if (folder / name).is_file())
    rows = read(file)
    random.Random(ORDER).shuffle(rows)
    if task != "retrieval":
        tested = folder / "eval" / task
        train = tested / "train.jsonl"
        return DataSet(
            folder.name, task, rows, Test(rows=read(tested / "test.jsonl"), train=read(train) if train.exists() else [])
        )
    held, rows = rows[:held_out], rows[held_out:]
    return DataSet(folder.name, task, rows, _retrieval_test(folder / "eval", held, most_passages))


def _retrieval_test(folder: Path, held: list[dict], most_passages: int) -> Test:
    texts = {row["_id"]: f"{row.get('title') or ''} {row['text']}".strip() for row in read(folder / "corpus.jsonl")}
    queries = {row["_id"]: row["text"] for row in read(folder / "queries.jsonl")}
    qrels: dict[str, dict[str, int]] = {}
    for file in sorted((folder / "qrels").glob("*.tsv")):
        for line in file.read_text("utf-8").splitlines()[1:]:
            query, passage, grade = line.split("\t")
            if int(grade) > 0:
                qrels.setdefault(query, {})[passage] = int(grade)
    numbers: dict[str, int] = {}  # of each text: a text that stands twice is one passage
    for row in held:
        for text in [*texts_of(row, "positive"), *texts_of(row, "negative")]:
            numbers.setdefault(text, len(numbers))
    relevant = sorted({passage for grades in qrels.values() for passage in grades})
    others = sorted(texts.keys() - set(relevant))
    random.Random(ORDER).shuffle(others)
    for passage in relevant + others[: max(0, most_passages - len(numbers) - len(relevant))]:
        numbers.setdefault(texts[passage], len(numbers))
    test = Test(passages=list(numbers))
    for row in held:
        test.queries.append(row["query"])
        test.grades.append({numbers[text]: 1 for text in texts_of(row, "positive")})
    for query, grades in qrels.items():
        test.queries.append(queries[query])
        test.grades.append({numbers[texts[passage]]: grade for passage, grade in grades.items()})
    return test


def texts_of(row: dict, side: str) -> list[str]:
    """A row's positives or negatives: one text, a list of them, or none."""
    texts = row.get(side) or []
    return [texts] if isinstance(texts, str) else texts


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text("utf-8").split("\n") if line.strip()]
