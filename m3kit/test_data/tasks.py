"""The test data beside retrieval: semantic similarity, classification and clustering.

Each is a folder in the folder of the test data, and each is optional. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from m3kit.errors import KitError
from m3kit.reading.files import read_values
from m3kit.reading.problems import BadRow, Problem, refuse
from m3kit.reading.text import is_blank
from m3kit.test_data.rows import read_rows

FILES = {
    "sts": ("sts/test.jsonl",),
    "classification": ("classification/test.jsonl", "classification/labels.json"),
    "clustering": ("clustering/test.jsonl",),
}
TRAINING = "train.jsonl"


@dataclass(frozen=True)
class Sts:
    firsts: list[str]
    seconds: list[str]
    scores: list[float]

    @property
    def counts(self) -> dict[str, int]:
        return {"pairs": len(self.scores)}

    @property
    def texts(self) -> list[str]:
        return self.firsts + self.seconds


@dataclass(frozen=True)
class Classification:
    """``training``: rows and labels to learn from, where the user gives them; without, the test rows serve for both."""

    rows: list[str]
    labels: list[str]
    label_texts: dict[str, str]
    training: tuple[list[str], list[str]] | None = None

    @property
    def counts(self) -> dict[str, int]:
        counts = {"texts": len(self.rows), "labels": len(self.label_texts)}
        return counts | ({"training texts": len(self.training[0])} if self.training else {})

    @property
    def texts(self) -> list[str]:
        return self.rows + list(self.label_texts.values()) + (self.training[0] if self.training else [])


@dataclass(frozen=True)
class Clustering:
    texts: list[str]
    labels: list[str]

    @property
    def counts(self) -> dict[str, int]:
        return {"texts": len(self.texts), "labels": len(set(self.labels))}


Task = Sts | Classification | Clustering


def read_tasks(folder: Path) -> dict[str, Task]:
    """Read and check the tasks that the folder holds. Raises ``KitError`` that names file and line with the fix."""
    tasks: dict[str, Task] = {}
    problems: list[Problem] = []
    for name, files in FILES.items():
        # A folder without its file is refused, not passed over: the file may only have another name.
        if not (folder / name).exists():
            continue
        missing = [file for file in files if not (folder / file).is_file()]
        if missing:
            fix = f"put it there, or take {name}/ out of the test data"
            raise KitError(f"the test data {folder} has no {' and no '.join(missing)}; {fix}")
        tasks[name] = _READERS[name](*(folder / file for file in files), problems)
    refuse(problems, "the test data, nothing was evaluated")
    return tasks


def _read_sts(file: Path, problems: list[Problem]) -> Sts:
    rows = read_rows(file, "sts", problems)
    if not problems and len({row.value for row in rows}) < 2:
        problems.append(Problem(file, 1, "gives every pair the same score", "add pairs of other scores"))
    return Sts([row.query for row in rows], [row.positives[0] for row in rows], [row.value for row in rows])


def _read_classification(file: Path, labels_file: Path, problems: list[Problem]) -> Classification:
    before = len(problems)
    label_texts = _read_label_texts(labels_file, problems)
    labels_known = len(problems) == before

    def columns(file: Path) -> tuple[list[str], list[str]]:
        rows = read_rows(file, "labelled", problems)
        for row in rows:
            if labels_known and row.value not in label_texts:
                what = f"label {row.value!r} is not in labels.json"
                problems.append(Problem(file, row.line, what, "add it there with its text, or correct the row"))
        return [row.query for row in rows], [row.value for row in rows]

    texts, labels = columns(file)
    training, training_file = None, file.with_name(TRAINING)
    if training_file.is_file():
        before = len(problems)
        training = columns(training_file)
        if len(problems) == before and len(set(training[1])) == 1:
            problems.append(
                Problem(training_file, 1, "has one label only", "add rows of other labels, or remove the file")
            )
    return Classification(texts, labels, label_texts, training)


def _read_label_texts(file: Path, problems: list[Problem]) -> dict[str, str]:
    texts: dict[str, str] = {}
    shape = 'write {"label": "its text", …} with at least two labels'
    try:
        found = read_values(file)
        if len(found) < 2:
            raise BadRow("is no JSON object of two or more labels", shape)
        for label, text in found.items():
            if not isinstance(text, str) or is_blank(text):
                raise BadRow(f"the text of label {label!r} is missing or no string", f'write "{label}": "its text"')
            if text.strip() in texts.values():
                raise BadRow(f"label {label!r} has the text of another label", "give each label its own text")
            texts[label] = text.strip()
    except BadRow as bad:
        # Whoever reads rows would ask for one object a line.
        bad.fix = shape if bad.code == "json" else bad.fix
        problems.append(bad.at(file, 1))
    return texts


def _read_clustering(file: Path, problems: list[Problem]) -> Clustering:
    rows = read_rows(file, "labelled", problems)
    count = len({row.value for row in rows})
    # Both would give every model a perfect V-measure, or a meaningless one.
    if not problems and count in (1, len(rows)):
        what = "has one label only" if count == 1 else "has no label with two rows"
        problems.append(Problem(file, 1, what, "add rows, for k-means to have something to find"))
    return Clustering([row.query for row in rows], [row.value for row in rows])


_READERS: dict[str, Callable[..., Task]] = {
    "sts": _read_sts,
    "classification": _read_classification,
    "clustering": _read_clustering,
}
