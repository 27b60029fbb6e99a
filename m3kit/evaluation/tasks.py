"""The test data beside retrieval: semantic similarity, classification and clustering, each measured by dense vectors.

Each is a folder in the folder of the test data, and each is optional. Nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from m3kit.data.problems import BadRow, Problem, refuse
from m3kit.errors import KitError
from m3kit.evaluation.rows import read_objects, string
from m3kit.evaluation.task_metrics import (
    ClassificationOutcomes,
    ClusteringOutcomes,
    StsOutcomes,
    classification_outcomes,
    clustering_outcomes,
    nearest_label,
    sts_outcomes,
)

FILES = {
    "sts": ("sts/test.jsonl",),
    "classification": ("classification/test.jsonl", "classification/labels.json"),
    "clustering": ("clustering/test.jsonl",),
}
TRAINING = "train.jsonl"
PAIR = '{"sentence1": "…", "sentence2": "…", "score": 0.85}'
LABELLED = '{"text": "…", "label": "…"}'


class _Task:
    @property
    def quick(self):
        """The task with no more texts than ``measure`` needs."""
        return self


@dataclass(frozen=True)
class Sts(_Task):
    firsts: list[str]
    seconds: list[str]
    scores: list[float]

    @property
    def counts(self) -> dict[str, int]:
        return {"pairs": len(self.scores)}

    @property
    def texts(self) -> list[str]:
        return self.firsts + self.seconds

    def measure(self, dense: np.ndarray) -> dict[str, float]:
        """The task's first figure. ``dense``: the vectors of ``texts``, here, below and in the two other classes."""
        return self.outcomes(dense).metrics

    def outcomes(self, dense: np.ndarray) -> StsOutcomes:
        """All figures of the task, and what they are made of."""
        return sts_outcomes(self.scores, *np.split(dense, 2))


@dataclass(frozen=True)
class Classification(_Task):
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

    @property
    def quick(self) -> Classification:
        return replace(self, training=None)

    def measure(self, dense: np.ndarray) -> dict[str, float]:
        rows, texts, _ = self._parts(dense)
        return {"nearest label": float(nearest_label(rows, self.labels, list(self.label_texts), texts).mean())}

    def outcomes(self, dense: np.ndarray) -> ClassificationOutcomes:
        rows, texts, known = self._parts(dense)
        training = (known, self.training[1]) if self.training else None
        return classification_outcomes(rows, self.labels, list(self.label_texts), texts, training)

    def _parts(self, dense: np.ndarray) -> list[np.ndarray]:
        return np.split(dense, [len(self.rows), len(self.rows) + len(self.label_texts)])


@dataclass(frozen=True)
class Clustering(_Task):
    texts: list[str]
    labels: list[str]

    @property
    def counts(self) -> dict[str, int]:
        return {"texts": len(self.texts), "labels": len(set(self.labels))}

    def measure(self, dense: np.ndarray) -> dict[str, float]:
        return self.outcomes(dense).metrics

    def outcomes(self, dense: np.ndarray) -> ClusteringOutcomes:
        return clustering_outcomes(self.labels, dense)


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
    def parse(_: int, row: dict) -> tuple[str, str, float]:
        return _text(row, "sentence1"), _text(row, "sentence2"), _score(row)

    rows = read_objects(file, parse, PAIR, problems)
    if not problems and len({score for _, _, score in rows}) < 2:
        problems.append(Problem(file, 1, "gives every pair the same score", "add pairs of other scores"))
    return Sts([one for one, _, _ in rows], [two for _, two, _ in rows], [score for _, _, score in rows])


def _read_classification(file: Path, labels_file: Path, problems: list[Problem]) -> Classification:
    before = len(problems)
    label_texts = _read_label_texts(labels_file, problems)
    labels_known = len(problems) == before

    def parse(_: int, row: dict) -> tuple[str, str]:
        text, label = _labelled(row)
        if labels_known and label not in label_texts:
            raise BadRow(f"label {label!r} is not in labels.json", "add it there with its text, or correct the row")
        return text, label

    def columns(file: Path) -> tuple[list[str], list[str]]:
        rows = read_objects(file, parse, LABELLED, problems)
        return [text for text, _ in rows], [label for _, label in rows]

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
        found = json.loads(file.read_bytes().decode("utf-8-sig"))
        if not isinstance(found, dict) or len(found) < 2:
            raise BadRow("is no JSON object of two or more labels", shape)
        for label, text in found.items():
            if not isinstance(text, str) or not text.strip():
                raise BadRow(f"the text of label {label!r} is missing or no string", f'write "{label}": "its text"')
            if text.strip() in texts.values():
                raise BadRow(f"label {label!r} has the text of another label", "give each label its own text")
            texts[label] = text.strip()
    except BadRow as bad:
        problems.append(Problem(file, 1, bad.what, bad.fix))
    except UnicodeDecodeError:
        problems.append(Problem(file, 1, "is not UTF-8", "save the file as UTF-8"))
    except json.JSONDecodeError as error:
        problems.append(Problem(file, error.lineno, f"is broken JSON ({error})", shape))
    return texts


def _read_clustering(file: Path, problems: list[Problem]) -> Clustering:
    rows = read_objects(file, lambda _, row: _labelled(row), LABELLED, problems)
    count = len({label for _, label in rows})
    # Both would give every model a perfect V-measure, or a meaningless one.
    if not problems and count in (1, len(rows)):
        what = "has one label only" if count == 1 else "has no label with two rows"
        problems.append(Problem(file, 1, what, "add rows, for k-means to have something to find"))
    return Clustering([text for text, _ in rows], [label for _, label in rows])


_READERS: dict[str, Callable[..., Task]] = {
    "sts": _read_sts,
    "classification": _read_classification,
    "clustering": _read_clustering,
}


def _text(row: dict, field: str) -> str:
    text = string(row, field)
    if not text:
        raise BadRow(f"{field} is missing or empty", f'write the text under "{field}", or remove the row')
    return text


def _score(row: dict) -> float:
    score = row.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise BadRow(f"score is {score!r}, not a number", "write a number from 0 (unrelated) to 1 (same meaning)")
    if not 0 <= score <= 1:
        raise BadRow(f"score {score} is outside 0 to 1", "scale all scores of the file to 0 to 1")
    return float(score)


def _labelled(row: dict) -> tuple[str, str]:
    label = row.get("label")
    # A number is taken as its digits, as in the training rows; labels.json can name it only so.
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    if not isinstance(label, str) or not label.strip():
        raise BadRow("label is missing, empty or no string", 'write the label under "label"')
    return _text(row, "text"), label
