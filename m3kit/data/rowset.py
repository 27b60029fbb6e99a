"""A file's rows together: which task they are for, and what their folder and their labels are called."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from m3kit.reading.files import read_values
from m3kit.reading.problems import ERROR, BadRow, Problem
from m3kit.reading.rows import HELD_OUT, MERGED, Row
from m3kit.reading.sources import EVAL_FOLDER, LABELLED_TASKS, NO_IN_BATCH_NEG
from m3kit.reading.text import is_blank, shown

# What prepare writes beside the folders of prepared rows.
RESERVED = (EVAL_FOLDER, "manifest.json", "problems.jsonl", "rejected.jsonl")


@dataclass
class RowSet:
    """The rows of one file; none is taken out, each has its fate."""

    source: Path
    rows: list[Row]
    kind: str
    split: str = "train"
    task: str = ""
    reason: str = ""  # how the task was told
    folder: str = ""  # the name of its prepared folder
    bad: Counter[str] = field(default_factory=Counter)  # rows that are not among these, by what is wrong with them
    sha256: str = ""
    where: str = "line"  # what a row's number counts
    label_texts: dict[str, str] = field(default_factory=dict)  # what stands for each label in classification
    unused_columns: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    corpus: list[str] = field(default_factory=list)  # passages besides those of the rows, to search in

    @property
    def used(self) -> Iterator[Row]:
        return (row for row in self.rows if not row.fate)

    @property
    def is_ranked(self) -> bool:
        """Whether its rows are of queries and the passages that answer them."""
        ranked_types = (None, "retrieval", "only_1neg")
        return self.task == "retrieval" or (
            self.task == "native" and all(row.value.get("type") in ranked_types for row in self.rows)
        )

    def set_aside(self) -> Counter[str]:
        """How many rows are set aside or held out, by the reason."""
        return Counter(row.fate for row in self.rows if row.fate and row.fate != MERGED)

    def held_out(self) -> list[Row]:
        return [row for row in self.rows if row.fate == HELD_OUT]

    def problem(self, row: Row | int, severity: str, what: str, fix: str, code: str) -> Problem:
        """A problem of one of its rows, or of the row of that line."""
        return Problem(self.source, row if isinstance(row, int) else row.line, what, fix, code, severity)


def tell_task(data: RowSet, asked: str | None) -> Iterator[Problem]:
    """Decide what the rows are for: labelled ones by their folder's name, all others by their columns."""
    folder = data.source.resolve().parent.name
    data.task, data.reason = data.kind, "by its columns"
    if data.kind == "labelled":
        data.task = next((task for task in LABELLED_TASKS if folder.startswith(task)), asked or "")
        data.reason += f", and its folder {folder}" if folder.startswith(LABELLED_TASKS) else ", and --task"
        if not data.task:
            what = f"rows of text and label in a folder named {folder!r} may be meant for classification or clustering"
            fix = (
                f"say --task classification or --task clustering, or put the file in a folder named "
                f"classification-{NO_IN_BATCH_NEG} or clustering-{NO_IN_BATCH_NEG}"
            )
            yield data.problem(1, ERROR, what, fix, "task")
        if not (folder.startswith(data.task) and folder.endswith(NO_IN_BATCH_NEG)):
            folder = f"{data.task}-{NO_IN_BATCH_NEG}"  # rows of one label in a batch would be false negatives (D4)
    if data.source.is_dir():
        folder = "retrieval"
    # A file in / has no folder.
    data.folder = data.task if not folder or folder in RESERVED else folder
    if data.task == "classification":
        labels_file = data.source.with_name("labels.json")
        try:
            data.label_texts = _label_texts(dict.fromkeys(row.value for row in data.rows), labels_file, data.notes)
        except BadRow as bad:
            yield bad.at(labels_file, 1)


def _label_texts(labels: dict[str, None], file: Path, notes: list[str]) -> dict[str, str]:
    """The text of each label: its description in ``labels.json`` beside the file, or its name without underscores."""
    described = _descriptions(file) if os.path.lexists(file) else {}
    if unused := sorted(described.keys() - labels):
        names = ", ".join(repr(shown(name)) for name in unused[:5])
        notes.append(f"labels.json describes {len(unused)} labels that no row has, such as {names}")
    return {label: described.get(label) or _without_underscores(label) for label in labels}


def _without_underscores(label: str) -> str:
    text = label.replace("_", " ")
    return label if is_blank(text) else text


def _descriptions(file: Path) -> dict[str, str]:
    fix = "write one object of label and description, every description a text"
    try:
        described = read_values(file)
    except BadRow as bad:
        raise BadRow(bad.what, fix, bad.line, "labels") from bad
    for label, text in described.items():
        if not isinstance(text, str) or is_blank(text):
            raise BadRow(f"the description of {shown(label)!r} is no text, or an empty one", fix, code="labels")
    return described
